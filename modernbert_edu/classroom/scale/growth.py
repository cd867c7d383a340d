"""Sizes of 10_large_from_base."""

from dataclasses import dataclass

from .text import TextScale


@dataclass(frozen=True)
class GrowthScale(TextScale):
    """10_large_from_base: a small model is trained once, then a larger one from several starts, from each seed.

    The widths stand as 3 : 4, as the published 768 : 1,024, and the head size stays.
    """

    base: tuple[int, int, int, int] = (4, 96, 6, 144)  # layers, hidden size, heads, intermediate size
    large: tuple[int, int, int, int] = (7, 128, 8, 288)
    widths: tuple[int, ...] = (96, 112, 128, 160, 192)  # hidden sizes at which a grown model is looked at, untrained
    offsets: int = 8  # random places at which tiling begins, beside the edge and the center
    local_window: int = 32  # keys, both sides together: at sequences of 128, ModernBERT's 128 would cut little off
    dtype: str = "float32"
    vocab_size: int = 1024
    tokenizer_characters: int = 1_000_000
    corpus_characters: int | None = 4_000_000
    held_out_sequences: int = 48

    batch_size: int = 8  # sequences
    base_steps: int = 300
    steps: int = 60  # of the larger model, from each start
    starts: tuple[str, ...] = ("random", "edge", "center", "center, both fixes")
    # Constant after the warm-up, as in the first two parts of warmup-stable-decay: so curves of unequal length compare.
    # The best of 1e-3, 2e-3 and 4e-3 from random, one trial each; from the center 1e-3 is as good.
    learning_rate: float = 2e-3
    warmup_steps: int = 10
    mask_rate: float = 0.3
    seeds: tuple[int, ...] = (0, 1)
    base_seed: int = 100  # another order and other masks than any of `seeds`
    evaluations: int = 4  # points of a curve over `steps`
    timing_repeats: int = 5

    picture_old: tuple[int, int, int, int] = (2, 8, 1, 3)  # rows and columns; sliders are (low, high, step, start)
    picture_new: tuple[int, int, int, int] = (8, 16, 1, 8)


SIZES = {
    "quick": GrowthScale(
        base=(4, 24, 3, 32),
        large=(7, 32, 4, 64),
        widths=(24, 32, 48),
        offsets=2,
        tokenizer_characters=300_000,
        corpus_characters=600_000,
        held_out_sequences=8,
        base_steps=20,
        steps=6,
        warmup_steps=2,
        evaluations=2,
        timing_repeats=3,
    ),
    "laptop": GrowthScale(),
    "gpu": GrowthScale(
        base=(10, 384, 6, 576),
        large=(13, 512, 8, 1312),
        widths=(384, 448, 512, 640, 768),
        local_window=128,
        dtype="bfloat16",
        vocab_size=8192,
        tokenizer_characters=8_000_000,
        corpus_characters=None,
        sequence_length=512,
        held_out_sequences=256,
        batch_size=16,
        base_steps=1000,
        steps=400,
        starts=("random", "edge", "center", "center, own types", "center, norm tiled", "center, both fixes"),
        learning_rate=1e-3,  # not swept at this scale
        warmup_steps=40,
        seeds=(0, 1, 2),
        evaluations=8,
        timing_repeats=20,
    ),
}
