"""Sizes of 01_vanilla_bert."""

from dataclasses import dataclass

from .text import TextScale


@dataclass(frozen=True)
class VanillaBertScale(TextScale):
    """01_vanilla_bert: the baseline, trained just long enough to see it learn."""

    preset: str = "bert-tiny"
    dtype: str = "float32"

    tokenizer_characters: int = 2_000_000
    corpus_characters: int | None = 4_000_000

    batch_size: int = 16
    steps: int = 300
    warmup_steps: int = 30
    ablation_seeds: tuple[int, ...] = (0, 1)  # seeds of the comparison with and without positions
    learning_rate: float = 1e-3
    mask_rate: float = 0.15

    lengths: tuple[int, ...] = (128, 256, 512)  # learned positions end at 512
    timing_repeats: int = 5


SIZES = {
    "quick": VanillaBertScale(
        vocab_size=1024,
        tokenizer_characters=300_000,
        corpus_characters=600_000,
        batch_size=8,
        steps=20,
        warmup_steps=4,
        held_out_sequences=32,
        ablation_seeds=(0,),
        lengths=(128, 256),
        timing_repeats=3,
    ),
    "laptop": VanillaBertScale(),
    "gpu": VanillaBertScale(
        preset="bert-small",
        dtype="bfloat16",
        vocab_size=8192,
        tokenizer_characters=8_000_000,
        corpus_characters=None,
        batch_size=64,
        steps=1000,
        warmup_steps=100,
        ablation_seeds=(0, 1, 2),
        held_out_sequences=1024,
        timing_repeats=20,
    ),
}
