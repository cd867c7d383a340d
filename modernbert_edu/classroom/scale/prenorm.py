"""Sizes of 03_prenorm_and_biases."""

from dataclasses import dataclass

from .ablation import AblationScale


@dataclass(frozen=True)
class PrenormScale(AblationScale):
    """03_prenorm_and_biases: a deep and narrow stack, looked into and trained at many rates; then the ablation."""

    # The stack. Its matrices are drawn with sigma = gain / sqrt(width): see lessons/prenorm.py.
    deep_width: int = 64
    deep_heads: int = 4
    depths: tuple[int, ...] = (4, 24)
    profile_sequences: int = 16
    profile_steps: int = 40  # of training, between "at initialisation" and "after training"
    profile_batch_size: int = 4
    profile_rate: float = 1e-3
    profile_warmup: int = 15

    # The learning rates at which it breaks, on topic sequences (lessons/prenorm.py).
    rate_layers: int = 12
    rate_variants: tuple[str, ...] = ("post-norm, normal", "pre-norm, normal", "pre-norm, megatron")
    tried_rates: tuple[float, ...] = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)
    warmups: tuple[int, ...] = (1, 20)
    rate_steps: int = 80
    rate_batch_size: int = 16
    topics: int = 8
    words_per_topic: int = 8
    topic_length: int = 16
    topic_sequences: int = 4000

    # Batches (in sequences) at which the cost of biases is measured.
    bias_batches: tuple[int, ...] = (1, 4, 16)
    timing_repeats: int = 7

    # The ablation of the lesson: one rate for all, the best for BERT in the sweep of `tour --sweep`.
    steps: int = 220
    evaluations: int = 5
    ablation_rate: float = 2e-3


SIZES = {
    "quick": PrenormScale(
        vocab_size=1024,
        tokenizer_characters=300_000,
        corpus_characters=600_000,
        held_out_sequences=32,
        depths=(2, 8),
        profile_steps=2,
        profile_warmup=1,
        profile_sequences=4,
        rate_layers=4,
        tried_rates=(4e-3, 1.6e-2),
        warmups=(1, 2),
        rate_steps=6,
        topic_sequences=400,
        bias_batches=(1, 2),
        timing_repeats=3,
        steps=6,
        evaluations=2,
        seeds=(0,),
    ),
    "laptop": PrenormScale(),
    "gpu": PrenormScale(
        bert_preset="bert-small",
        modernbert_preset="modernbert-small",
        dtype="bfloat16",
        vocab_size=8192,
        tokenizer_characters=8_000_000,
        held_out_sequences=1024,
        profile_batch_size=16,
        profile_steps=300,
        profile_warmup=30,
        rate_layers=24,
        rate_steps=200,
        rate_batch_size=32,
        tried_rates=(2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2),
        topic_sequences=16_000,
        bias_batches=(1, 4, 16, 64),
        timing_repeats=20,
        batch_size=64,
        steps=600,
        seeds=(0, 1, 2),
        ablation_rate=1e-3,
    ),
}
