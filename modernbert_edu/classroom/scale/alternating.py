"""Sizes of 06_alternating_attention."""

from dataclasses import dataclass

from .ablation import AblationScale


@dataclass(frozen=True)
class AlternatingScale(AblationScale):
    """06_alternating_attention.

    The window holds 129 keys, so the sequences of the ablation must be longer, or it would cut off next to nothing.
    """

    # The ablation, from ModernBERT's end. Windows are written as in the configuration: both sides together.
    sequence_length: int = 256
    batch_size: int = 2
    steps: int = 600
    evaluations: int = 6
    held_out_sequences: int = 48
    # For all variants. 00_tour's 4e-3 was found with twice the tokens in a batch: here 700 steps end on the plateau
    # (6.3 nats with the first seed), and with 2e-3 well below it (5.3).
    learning_rate: float = 2e-3
    windows: tuple[int, ...] = (512,)  # the first is twice the sequence: it cuts off nothing
    seeds: tuple[int, ...] = (0, 1)

    # Receptive field, by gradient.
    field_layers: int = 7
    field_length: int = 1024
    field_hidden: int = 32  # what depends on what is a matter of the masks, not of the width

    # One attention layer.
    heads: int = 1
    head_size: int = 32
    half_window: int = 64
    lengths: tuple[int, ...] = (128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
    mask_up_to: int = 4096  # n * n numbers must fit: masks over all pairs, and attention that stores its weights
    longest_call: float = 3.0  # seconds; a pattern stops before a length at which a call would take longer
    timing_budget: float = 4.0  # seconds for one length, after which three repeats are enough
    timing_repeats: int = 5

    memory_lengths: tuple[int, ...] = (128, 256, 512, 1024, 2048, 4096, 8192)

    # Documents around the size of the window, as many as fill `short_tokens`.
    short_lengths: tuple[int, ...] = (16, 32, 65, 96, 128, 192, 256, 384, 512, 1024, 2048)
    short_tokens: int = 8192
    short_repeats: int = 9

    # The whole encoder; 1 mod 3 layers, so that GLL begins and ends with a global one.
    encoder_layers: int = 7
    encoder_lengths: tuple[int, ...] = (128, 512, 1024, 2048, 4096)
    encoder_tokens: int = 4096  # of the batch, at every length


SIZES = {
    "quick": AlternatingScale(
        vocab_size=1024,
        tokenizer_characters=300_000,
        corpus_characters=600_000,
        held_out_sequences=8,
        steps=8,
        evaluations=4,
        seeds=(0,),
        longest_call=0.2,
        timing_budget=0.5,
        timing_repeats=3,
        short_lengths=(32, 65, 128, 256, 512, 1024),
        short_tokens=2048,
        short_repeats=5,
        mask_up_to=2048,
        memory_lengths=(128, 256, 512, 1024),
        field_layers=4,
        field_length=640,
        encoder_layers=4,
        encoder_lengths=(128, 256, 512),
        encoder_tokens=512,
    ),
    "laptop": AlternatingScale(),
    "gpu": AlternatingScale(
        modernbert_preset="modernbert-small",
        bert_preset="bert-small",
        dtype="bfloat16",
        vocab_size=8192,
        tokenizer_characters=8_000_000,
        sequence_length=512,
        windows=(1024, 16),
        held_out_sequences=256,
        batch_size=16,
        steps=800,
        learning_rate=1e-3,  # the middle one of those that `ablate` tries at this scale
        evaluations=16,
        seeds=(0, 1, 2),
        heads=96,  # those of eight texts at once: fewer would leave a GPU idle at short lengths
        head_size=64,
        mask_up_to=2048,
        timing_repeats=20,
        short_tokens=65_536,
        short_repeats=30,
        encoder_lengths=(128, 256, 512, 1024, 2048, 4096, 8192),
        encoder_tokens=65_536,
    ),
}
