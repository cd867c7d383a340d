"""Sizes of 12_retrieval."""

from dataclasses import dataclass

from .ablation import AblationScale


@dataclass(frozen=True)
class RetrievalScale(AblationScale):
    """12_retrieval: BERT and ModernBERT learn to find functions and prose, from random and from pretrained weights.

    The learning rates of the two models are the best of 1e-3 and 3e-3, tried once each from random weights.
    """

    vocab_size: int = 2048
    tokenizer_characters: int = 1_000_000
    batch_size: int = 8  # sequences, of pretraining
    steps: int = 60  # of pretraining
    pretraining_rate: float = 2e-3
    held_out_sequences: int = 32

    installed: bool = True  # besides the standard library, the packages installed here
    functions_per_package: int | None = 40
    modules_per_package: int | None = 4
    module_characters: int = 3_000  # of the shortest module
    held_out_share: float = 0.2
    questions: int = 300  # of each task, at most
    modules: int = 24

    runs: tuple[tuple[str, str], ...] = (("BERT", "random"), ("ModernBERT", "random"), ("ModernBERT", "MLM"))
    seeds: tuple[int, ...] = (0, 1)  # of the runs from random weights; those from pretrained ones have the first
    rates: tuple[float, ...] = (1e-3, 3e-3)  # of BERT and of ModernBERT
    contrastive_steps: int = 32
    contrastive_batch: int = 64  # pairs: each question has so many texts to choose from
    temperature: float = 0.1
    query_length: int = 32  # tokens
    document_length: int = 96
    evaluations: int = 2  # points of a curve, after the first

    late_dimension: int = 32  # numbers a token

    chunk_length: int = 128  # tokens, as in pretraining: BERT knows no later positions
    long_length: int = 2048  # tokens of a module that any way of reading sees; the published models take 8,192

    cache_chunk: int = 8
    cache_batches: tuple[int, ...] = (8, 16, 32)
    corpus_sizes: tuple[int, ...] = (1_000, 10_000, 100_000)  # texts of an exact search
    graph_size: int = 10_000  # texts of an approximate search
    timing_repeats: int = 5
    timing_budget: float = 0.5  # seconds for one size, after which three repeats are enough

    rag_files: tuple[str, ...] = ("bisect.py", "calendar.py", "heapq.py", "shelve.py", "statistics.py", "textwrap.py")
    passage_length: int = 128
    # Trials of 400 steps, one each, on 60 questions of which BM25 has MRR@10 0.740; before training 0.18. From the
    # retriever's encoder at 3e-3: 0.878, loss 0.18 in the last eighth of the steps; at 5e-3: 0.511, 0.93; from random
    # weights (normal, 0.15) at 3e-3: 0.589, 0.49. On code search itself nothing was learnt in 150 steps of 8 questions
    # (random wrong texts, mean pooling, 1e-3 and 3e-3): loss 1.39. In the lesson itself, where chance has 0.683: 0.600
    # after 350 steps, loss 0.34, 0.745 after 400, loss 0.16, and 0.746 after 500, loss 0.19.
    candidates: int = 20  # that the reranker reads
    line_parts: int = 10  # names and signs of the longest line
    rerank_length: int = 48  # tokens
    rerank_steps: int = 500
    rerank_batch: int = 16
    rerank_rate: float = 3e-3
    rerank_questions: int = 100
    budget: int = 300  # tokens of a context

    picture_temperature: tuple[float, float, float, float] = (0.05, 1.0, 0.05, 0.1)  # low, high, step, start

    def rate_of(self, model: str) -> float:
        return dict(zip(("BERT", "ModernBERT"), self.rates, strict=True))[model]


SIZES = {
    "quick": RetrievalScale(
        vocab_size=1024,
        tokenizer_characters=100_000,
        steps=6,
        held_out_sequences=8,
        installed=False,
        functions_per_package=6,
        modules_per_package=1,
        module_characters=3_000,
        questions=40,
        modules=10,
        seeds=(0,),
        contrastive_steps=3,
        contrastive_batch=16,
        query_length=24,
        document_length=48,
        evaluations=1,
        long_length=640,
        cache_chunk=4,
        cache_batches=(4, 8),
        corpus_sizes=(500, 4_000),
        graph_size=500,
        timing_repeats=3,
        timing_budget=0.05,
        rag_files=("bisect.py", "shelve.py", "textwrap.py"),
        candidates=5,
        rerank_steps=4,
        rerank_batch=8,
        rerank_questions=10,
    ),
    "laptop": RetrievalScale(),
    # Never run yet. Sized for about two minutes where modernbert-small trains on 1 M tokens/s: 13 M tokens for each
    # pretraining, at most 10 M for each of seven contrastive trainings. The rates are those of `search compare`.
    "gpu": RetrievalScale(
        sequence_length=512,
        chunk_length=512,
        bert_preset="bert-small",
        modernbert_preset="modernbert-small",
        dtype="bfloat16",
        vocab_size=8192,
        tokenizer_characters=8_000_000,
        held_out_sequences=128,
        batch_size=64,
        steps=400,
        pretraining_rate=1e-3,
        functions_per_package=100,
        modules_per_package=10,
        questions=1000,
        modules=150,
        runs=(("BERT", "random"), ("ModernBERT", "random"), ("BERT", "MLM"), ("ModernBERT", "MLM")),
        rates=(5e-4, 1e-3),
        contrastive_steps=250,
        contrastive_batch=256,
        query_length=64,
        document_length=128,
        evaluations=5,
        late_dimension=64,
        long_length=8192,
        cache_chunk=32,
        cache_batches=(32, 64, 128, 256, 512),
        corpus_sizes=(1_000, 10_000, 100_000, 1_000_000),
        graph_size=30_000,
        timing_repeats=10,
        timing_budget=0.5,
        passage_length=256,
        rerank_steps=600,
        rerank_batch=64,
        rerank_rate=1e-3,
        rerank_questions=500,
        budget=800,
    ),
}
