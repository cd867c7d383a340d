"""Sizes of 00_tour."""

from dataclasses import dataclass, field

from .text import MixedLengths, TextScale


@dataclass(frozen=True)
class TourScale(TextScale):
    """00_tour: both models on the same text and budget, then their speed and memory."""

    bert_preset: str = "bert-tiny"
    modernbert_preset: str = "modernbert-tiny"
    dtype: str = "float32"

    batch_size: int = 8  # sequences; many small steps beat few big ones at this size
    steps: int = 1200
    warmup_steps: int = 120
    # Each model has its own: the best of the four that `tour --sweep` tries and records, each at half the steps.
    bert_learning_rate: float = 2e-3
    modernbert_learning_rate: float = 4e-3
    mask_rate: float = 0.3

    lengths: tuple[int, ...] = (128, 256, 512, 1024, 2048, 4096)
    mixed_lengths: MixedLengths = field(default_factory=MixedLengths)
    timing_repeats: int = 5


SIZES = {
    "quick": TourScale(
        vocab_size=1024,
        tokenizer_characters=300_000,
        corpus_characters=600_000,
        batch_size=8,
        steps=40,
        warmup_steps=8,
        held_out_sequences=32,
        lengths=(128, 256, 512, 1024),
        mixed_lengths=MixedLengths(count=8, mean=128, std=32, max=256),
        timing_repeats=3,
    ),
    "laptop": TourScale(),
    "gpu": TourScale(
        bert_preset="bert-small",
        modernbert_preset="modernbert-small",
        dtype="bfloat16",
        vocab_size=8192,
        tokenizer_characters=8_000_000,
        batch_size=64,
        steps=2000,
        warmup_steps=200,
        held_out_sequences=1024,
        lengths=(128, 256, 512, 1024, 2048, 4096, 8192),
        mixed_lengths=MixedLengths(count=256),
        timing_repeats=20,
    ),
}
