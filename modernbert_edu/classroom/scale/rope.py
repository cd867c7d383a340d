"""Sizes of 04_rope."""

from dataclasses import dataclass

from .ablation import AblationScale


@dataclass(frozen=True)
class RopeScale(AblationScale):
    """04_rope: short texts and a small vocabulary, so that learned positions get to be used at all within a minute."""

    vocab_size: int = 1024
    tokenizer_characters: int = 1_000_000
    corpus_characters: int | None = 4_000_000
    sequence_length: int = 32  # the one length that is trained on
    held_out_sequences: int = 256
    batch_size: int = 32

    steps: int = 150  # of each variant and seed of the ablation
    evaluations: int = 6
    bert_rate: float = 2e-3  # the best of the four that the tour's sweep tried
    modernbert_rate: float = 4e-3

    length_steps: int = 400  # of each of the two models that are tested at longer lengths
    length_factors: tuple[int, ...] = (1, 2, 4, 8, 16)  # tested lengths, in trained ones
    length_texts: int = 48  # texts of the longest length

    cost_lengths: tuple[int, ...] = (128, 512, 2048)
    cost_tokens: int = 2048  # in a batch
    timing_repeats: int = 5

    @property
    def rate_of(self) -> dict[str, float]:
        """The learning rate of each variant: that of the end it belongs to, so that positions alone differ."""
        bert, modern = self.bert_rate, self.modernbert_rate
        return {"BERT": bert, "BERT + RoPE": bert, "ModernBERT": modern, "learned instead": modern}


SIZES = {
    "quick": RopeScale(
        vocab_size=512,
        tokenizer_characters=300_000,
        corpus_characters=600_000,
        held_out_sequences=32,
        steps=12,
        evaluations=4,
        length_steps=40,
        length_texts=12,
        cost_lengths=(128, 512),
        cost_tokens=1024,
        timing_repeats=3,
    ),
    "laptop": RopeScale(),
    "gpu": RopeScale(
        bert_preset="bert-small",
        modernbert_preset="modernbert-small",
        dtype="bfloat16",
        vocab_size=8192,
        tokenizer_characters=8_000_000,
        corpus_characters=None,
        sequence_length=64,
        held_out_sequences=1024,
        batch_size=256,
        steps=600,
        bert_rate=1e-3,
        modernbert_rate=1e-3,
        evaluations=15,
        seeds=(0, 1, 2),
        length_steps=1500,
        length_factors=(1, 2, 4, 8),  # BERT's table ends at 512
        length_texts=256,
        cost_lengths=(128, 512, 2048, 8192),
        cost_tokens=65_536,
        timing_repeats=20,
    ),
}
