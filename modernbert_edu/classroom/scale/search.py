"""Sizes of `search compare`, and of the small model that `search build` uses where none is named."""

from dataclasses import dataclass

from .text import TextScale


@dataclass(frozen=True)
class SearchScale(TextScale):
    """Retrievers are trained from random weights on functions and prose of the library; data: measure/retrieval.py."""

    bert_preset: str = "bert-tiny"
    modernbert_preset: str = "modernbert-tiny"
    dtype: str = "float32"
    tokenizer_characters: int = 2_000_000
    installed: bool = True  # the installed packages beside the standard library
    per_package: int = 200  # functions asked for and, unless the next line says another number, trained on
    trained_per_package: int | None = 1000
    modules_per_package: int = 3
    held_out_share: float = 0.15  # of the functions, whole packages
    queries: int = 1000

    batch_size: int = 64  # pairs; a text's negatives are the batch's other texts
    steps: int = 1200
    # From one trial each of few steps: BERT 0.188 at 1e-3 and 0.139 at 3e-3, ModernBERT 0.279 and 0.312 (MRR@10).
    bert_rate: float = 1e-3
    modernbert_rate: float = 3e-3
    # 0.05 and 0.1 after 300 steps of modernbert-tiny: 0.399 and 0.409.
    temperature: float = 0.1
    query_length: int = 48  # tokens
    document_length: int = 128
    seeds: tuple[int, ...] = (0, 1)
    evaluations: int = 4  # points of a curve
    default_steps: int = 400  # of the model for `search build`


SIZES = {
    "quick": SearchScale(
        vocab_size=1024,
        tokenizer_characters=200_000,
        installed=False,
        per_package=8,
        trained_per_package=None,
        modules_per_package=1,
        queries=50,
        batch_size=16,
        steps=8,
        query_length=24,
        document_length=48,
        evaluations=2,
        default_steps=30,
    ),
    "laptop": SearchScale(),
    "gpu": SearchScale(
        bert_preset="bert-small",
        modernbert_preset="modernbert-small",
        dtype="bfloat16",
        vocab_size=8192,
        tokenizer_characters=8_000_000,
        per_package=2000,
        trained_per_package=None,
        modules_per_package=10,
        queries=4000,
        batch_size=512,
        steps=2000,
        bert_rate=5e-4,  # neither swept at this scale
        modernbert_rate=1e-3,
        query_length=64,
        document_length=256,
        evaluations=20,
        default_steps=2000,
    ),
}
