"""Sizes of the headline figure: BERT and ModernBERT, each by its own recipe."""

from dataclasses import dataclass

from .text import TextScale


@dataclass(frozen=True)
class HeadlineScale(TextScale):
    """Each model is trained at each of `rates` with the first seed, then at its best rate with the other seeds."""

    bert_preset: str = "bert-tiny"
    modernbert_preset: str = "modernbert-tiny"
    dtype: str = "float32"
    vocab_size: int = 1024  # few tokens, so that both leave the plateau of token frequencies within the budget
    tokenizer_characters: int = 1_000_000

    batch_size: int = 8  # sequences of full length in a step
    microbatch_size: int = 8
    steps: int = 800
    rates: tuple[float, ...] = (1e-3, 2e-3, 4e-3)
    seeds: tuple[int, ...] = (0, 1, 2)
    evaluations: int = 20  # points of a curve


SIZES = {
    "quick": HeadlineScale(
        tokenizer_characters=300_000,
        corpus_characters=600_000,
        held_out_sequences=32,
        steps=16,
        rates=(2e-3, 4e-3),
        seeds=(0, 1),
        evaluations=4,
    ),
    "laptop": HeadlineScale(),
    "gpu": HeadlineScale(
        bert_preset="bert-small",
        modernbert_preset="modernbert-small",
        dtype="bfloat16",
        vocab_size=8192,
        tokenizer_characters=8_000_000,
        sequence_length=512,
        held_out_sequences=1024,
        batch_size=64,
        microbatch_size=64,
        steps=2500,
        rates=(5e-4, 1e-3, 2e-3),
    ),
}
