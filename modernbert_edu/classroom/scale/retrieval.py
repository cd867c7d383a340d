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
    steps: int = 120  # of pretraining
    pretraining_rate: float = 2e-3
    held_out_sequences: int = 32

    installed: bool = True  # besides the standard library, the packages installed here
    functions_per_package: int | None = 40
    modules_per_package: int | None = 4
    module_characters: int = 3_000  # of the shortest module
    held_out_share: float = 0.2
    questions: int = 300  # of each task, at most
    modules: int = 36

    runs: tuple[tuple[str, str], ...] = (("BERT", "random"), ("ModernBERT", "random"), ("ModernBERT", "MLM"))
    seeds: tuple[int, ...] = (0, 1)
    rates: tuple[float, ...] = (1e-3, 3e-3)  # of BERT and of ModernBERT
    contrastive_steps: int = 48
    contrastive_batch: int = 64  # pairs: each question has so many texts to choose from
    temperature: float = 0.1
    query_length: int = 32  # tokens
    document_length: int = 96
    evaluations: int = 3  # points of a curve, after the first

    late_dimension: int = 32  # numbers a token

    chunk_length: int = 128  # tokens, as in pretraining: BERT knows no later positions
    long_length: int = 2048  # tokens of a module that any way of reading sees; the published models take 8,192

    cache_chunk: int = 8
    cache_batches: tuple[int, ...] = (8, 16, 32, 64)
    corpus_sizes: tuple[int, ...] = (1_000, 10_000, 100_000)  # texts of an exact search
    graph_size: int = 10_000  # texts of an approximate search
    timing_repeats: int = 5
    timing_budget: float = 0.5  # seconds for one size, after which three repeats are enough

    rag_files: tuple[str, ...] = ("bisect.py", "calendar.py", "heapq.py", "shelve.py", "statistics.py", "textwrap.py")
    passage_length: int = 128
    candidates: int = 20  # that the reranker reads
    rerank_steps: int = 30
    rerank_batch: int = 8
    rerank_rate: float = 1e-3
    rerank_questions: int = 40
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
        rerank_steps=2,
        rerank_batch=4,
        rerank_questions=6,
    ),
    "laptop": RetrievalScale(),
    "gpu": RetrievalScale(
        sequence_length=512,
        chunk_length=512,
        bert_preset="bert-small",
        modernbert_preset="modernbert-small",
        dtype="bfloat16",
        vocab_size=8192,
        tokenizer_characters=8_000_000,
        held_out_sequences=256,
        batch_size=64,
        steps=2000,
        pretraining_rate=1e-3,
        functions_per_package=400,
        modules_per_package=20,
        questions=1000,
        modules=300,
        runs=(("BERT", "MLM"), ("ModernBERT", "MLM"), ("BERT", "random"), ("ModernBERT", "random")),
        seeds=(0, 1, 2),
        rates=(3e-4, 1e-3),
        contrastive_steps=1500,
        contrastive_batch=256,
        query_length=64,
        document_length=256,
        evaluations=10,
        late_dimension=64,
        long_length=8192,
        cache_chunk=32,
        cache_batches=(32, 64, 128, 256, 512),
        corpus_sizes=(1_000, 10_000, 100_000, 1_000_000),
        graph_size=100_000,
        timing_repeats=20,
        timing_budget=2.0,
        passage_length=256,
        candidates=50,
        rerank_steps=600,
        rerank_batch=32,
        rerank_rate=3e-4,
        rerank_questions=300,
        budget=800,
    ),
}
