"""Sizes of 05_geglu."""

from dataclasses import dataclass

from .ablation import AblationScale


@dataclass(frozen=True)
class GegluScale(AblationScale):
    """05_geglu: two functions fitted, one model trained for its gates, a short ablation, the cost of one MLP."""

    # Short texts and a small vocabulary: so all variants leave the plateau at the unigram entropy within seconds.
    vocab_size: int = 1024
    tokenizer_characters: int = 1_000_000
    corpus_characters: int | None = 8_000_000
    sequence_length: int = 64
    held_out_sequences: int = 256

    # The live ablation: three variants, each from every seed; the model with the gates is trained just as long.
    batch_size: int = 16
    steps: int = 250
    evaluations: int = 6
    # One rate for all three: the best for ModernBERT, so for GeGLU, of the four that `tour --sweep` tries and records.
    learning_rate: float = 4e-3

    fit_steps: int = 300
    fit_seeds: tuple[int, ...] = (0, 1, 2)
    activity_sequences: int = 32

    # Multiples of 3 x 64, so that 2/3 of each is whole. The last of each is the one held fixed along the other axis.
    cost_hidden: int = 384
    cost_widths: tuple[int, ...] = (192, 384, 768, 1536)
    cost_tokens: tuple[int, ...] = (256, 512, 1024, 2048)
    timing_repeats: int = 5


SIZES = {
    "quick": GegluScale(
        vocab_size=512,
        tokenizer_characters=300_000,
        corpus_characters=600_000,
        held_out_sequences=16,
        steps=12,
        evaluations=3,
        fit_steps=60,
        fit_seeds=(0, 1),
        activity_sequences=8,
        cost_hidden=64,
        cost_widths=(96, 192, 384),
        cost_tokens=(128, 256, 512),
        timing_repeats=3,
    ),
    "laptop": GegluScale(),
    "gpu": GegluScale(
        bert_preset="bert-small",
        modernbert_preset="modernbert-small",
        dtype="bfloat16",
        vocab_size=8192,
        tokenizer_characters=8_000_000,
        corpus_characters=None,
        sequence_length=128,
        held_out_sequences=512,
        batch_size=64,
        steps=800,
        seeds=(0, 1, 2),
        learning_rate=1e-3,
        evaluations=10,
        activity_sequences=128,
        cost_hidden=768,
        cost_widths=(768, 1536, 3072, 6144),
        cost_tokens=(1024, 4096, 16_384, 65_536),
        timing_repeats=20,
    ),
}
