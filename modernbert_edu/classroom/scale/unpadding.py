"""Sizes of 07_unpadding."""

from dataclasses import dataclass

from .text import TextScale


@dataclass(frozen=True)
class UnpaddingScale(TextScale):
    """07_unpadding: what pads cost at several spreads of length, how full packing gets, and training three ways."""

    preset: str = "modernbert-tiny"
    dtype: str = "float32"
    tokenizer_characters: int = 2_000_000
    corpus_characters: int | None = 4_000_000
    sequence_length: int = 512  # the longest sequence, n; the paper draws lengths from N(n/2, n/8)

    batch_size: int = 8  # sequences in a rectangle
    timed_batches: int = 4  # rectangles that are timed for each spread of lengths
    timing_repeats: int = 3

    packed_documents: int = 4000
    budget_multiples: tuple[int, ...] = (1, 2, 4, 8)  # a row's tokens, in units of the longest sequence
    best_fit_counts: tuple[int, ...] = (250, 1000, 4000)  # documents, to time the two forms of best fit

    steps: int = 400  # of training, of each way
    learning_rate: float = 2e-3  # the best of 1e-3, 2e-3 and 4e-3 for the unpadded way, one trial each at these sizes
    mask_rate: float = 0.3
    evaluations: int = 8  # points of a curve

    picture_documents: int = 24  # of mean length 100, none above 200; sliders are (low, high, step, start)
    picture_budget: tuple[int, int, int, int] = (200, 800, 50, 250)
    picture_spread: tuple[int, int, int, int] = (0, 60, 5, 30)


SIZES = {
    "quick": UnpaddingScale(
        vocab_size=1024,
        tokenizer_characters=300_000,
        corpus_characters=600_000,
        sequence_length=256,
        held_out_sequences=32,
        timed_batches=1,
        packed_documents=500,
        budget_multiples=(1, 4),
        best_fit_counts=(100, 400),
        steps=12,
        evaluations=3,
    ),
    "laptop": UnpaddingScale(),
    "gpu": UnpaddingScale(
        preset="modernbert-small",
        dtype="bfloat16",
        vocab_size=8192,
        tokenizer_characters=8_000_000,
        corpus_characters=None,
        sequence_length=1024,
        held_out_sequences=1024,
        batch_size=128,
        timed_batches=4,
        timing_repeats=10,
        packed_documents=8000,
        best_fit_counts=(250, 1000, 4000, 16_000),
        steps=500,
        learning_rate=1e-3,
        evaluations=10,
    ),
}
