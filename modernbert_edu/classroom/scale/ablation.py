"""Sizes of `ablate`, and of the ablation that each lesson shows."""

from dataclasses import dataclass

from .text import TextScale


@dataclass(frozen=True)
class AblationScale(TextScale):
    """Every variant is trained from each of `seeds`, at the best of `rates`: all are tried with the first seed.

    A small vocabulary has a low unigram entropy, and models get below it sooner.
    """

    bert_preset: str = "bert-tiny"
    modernbert_preset: str = "modernbert-tiny"
    dtype: str = "float32"
    vocab_size: int = 1024
    tokenizer_characters: int = 1_000_000

    batch_size: int = 8  # sequences; many small steps beat few big ones at this size
    steps: int = 600
    rates: tuple[float, ...] = (2e-3, 4e-3)
    warmup_share: float = 0.1  # of the steps
    seeds: tuple[int, ...] = (0, 1)
    mask_rate: float = 0.3
    evaluations: int = 10  # points of a curve


SIZES = {
    "quick": AblationScale(
        tokenizer_characters=300_000,
        corpus_characters=600_000,
        held_out_sequences=32,
        steps=20,
        rates=(2e-3,),
        evaluations=4,
    ),
    "laptop": AblationScale(seeds=(0, 1, 2)),
    "gpu": AblationScale(
        bert_preset="bert-small",
        modernbert_preset="modernbert-small",
        dtype="bfloat16",
        vocab_size=8192,
        tokenizer_characters=8_000_000,
        held_out_sequences=1024,
        batch_size=64,
        steps=4000,
        rates=(5e-4, 1e-3, 2e-3),
        seeds=(0, 1, 2),
        evaluations=20,
    ),
}
