"""Sizes of 08_mlm_pretraining."""

from dataclasses import dataclass

from .text import TextScale


@dataclass(frozen=True)
class PretrainingScale(TextScale):
    """08_mlm_pretraining: ModernBERT's recipe against the same with 15 % masked, and with BERT's optimizer and plan.

    The recipes are the published ones, shrunk to these sizes.
    """

    preset: str = "modernbert-tiny"
    dtype: str = "float32"
    vocab_size: int = 1024  # few tokens, so that the loss leaves the plateau of token frequencies within the budget
    tokenizer_characters: int = 1_000_000
    corpus_characters: int | None = 4_000_000
    held_out_sequences: int = 128

    batch_size: int = 8  # sequences of full length in a step, and in one forward pass
    steps: int = 300
    # Each the best of 2e-3, 3e-3 and 4e-3 by the mean over both seeds at these sizes. With 4e-3 one seed of
    # ModernBERT's recipe ended at 3.57 nats and the other at 4.96.
    stable_rate: float = 3e-3  # ModernBERT's recipe
    fewer_rate: float = 2e-3  # the same with 15 % masked
    adamw_rate: float = 4e-3  # the same with BERT's optimizer and plan
    seeds: tuple[int, ...] = (0, 1)
    evaluations: int = 10  # points of a curve; the checkpoints that are averaged are taken at the last of them

    init_layers: int = 22  # of the model that is initialised and not trained, as deep as the published base
    picture_warmup: tuple[int, int, int, int] = (0, 20, 1, 5)  # per cent of the run: low, high, step, start
    picture_decay: tuple[int, int, int, int] = (0, 80, 5, 30)

    timing_repeats: int = 7
    timed_rates: tuple[float, ...] = (0.15, 0.3, 1.0)  # 1: the head computed at every token


SIZES = {
    "quick": PretrainingScale(
        tokenizer_characters=300_000,
        corpus_characters=600_000,
        held_out_sequences=32,
        steps=12,
        seeds=(0, 1),
        evaluations=4,
        timing_repeats=3,
    ),
    "laptop": PretrainingScale(),
    "gpu": PretrainingScale(
        preset="modernbert-small",
        dtype="bfloat16",
        vocab_size=8192,
        tokenizer_characters=8_000_000,
        corpus_characters=None,
        sequence_length=256,
        held_out_sequences=1024,
        batch_size=64,
        steps=800,
        stable_rate=1e-3,
        fewer_rate=1e-3,
        adamw_rate=1e-3,
        seeds=(0, 1, 2),
        evaluations=20,
        timing_repeats=20,
    ),
}
