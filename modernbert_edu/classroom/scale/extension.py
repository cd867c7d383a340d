"""Sizes of 09_context_extension."""

from dataclasses import dataclass

from .ablation import AblationScale


@dataclass(frozen=True)
class ExtensionScale(AblationScale):
    """09_context_extension: phase one on short texts, then three ways to go on, each with as many tokens per step.

    The length grows eightfold, as in the paper (1,024 -> 8,192). On a laptop it is tested at twice the new length.
    """

    corpus_characters: int | None = 4_000_000
    sequence_length: int = 128  # phase one
    batch_size: int = 8
    held_out_sequences: int = 64  # for the curves
    steps: int = 600  # of phase one
    learning_rate: float = 2e-3
    warmup_share: float = 0.1  # of phase one; what follows has none
    short_theta: float = 10_000.0
    long_theta: float = 160_000.0

    long_length: int = 1024  # phases two and three: one text at a time
    long_steps: int = 150
    long_rate_share: float = 0.375  # of the learning rate: 3e-4 / 8e-4
    decay_share: float = 0.3  # of the steps; the paper's is 50 of 300 billion tokens
    long_seeds: tuple[int, ...] = (0,)  # of the continuations

    test_length: int = 2048
    test_texts: int = 36
    probe: int = 128  # tokens at the end of a text, of which some are masked
    near: int = 128  # tokens of context that any model had in phase one
    test_mask_rate: float = 0.15
    position_bins: int = 8

    needle_hidden: int = 64
    needle_layers: int = 4
    needle_heads: int = 2
    needle_keys: int = 16
    needle_values: int = 8
    needle_length: int = 128
    needle_batch: int = 32
    needle_pairs: int = 8  # in a text of the short length; in longer ones more, at most one for each key
    needle_steps: int = 300
    needle_rate: float = 3e-3
    needle_long_length: int = 1024
    needle_long_steps: int = 60
    needle_distances: tuple[int, ...] = (16, 32, 64, 128, 256, 512, 1024, 1984)
    needle_test_length: int = 2048
    needle_test_texts: int = 16
    needle_test_pairs: int = 8

    cost_lengths: tuple[int, ...] = (512, 1024, 2048, 4096, 8192)
    timing_repeats: int = 3
    timing_budget: float = 4.0  # seconds for one length, after which three repeats are enough

    @property
    def contexts(self) -> tuple[int, ...]:
        """Tokens of context that stand before the probe: powers of two, and all that a test text has."""
        whole = self.test_length - self.probe - 2  # [CLS] and [SEP]
        powers = [2**i for i in range(4, 20)]
        return (*(n for n in powers if n < 0.9 * whole), whole)


SIZES = {
    "quick": ExtensionScale(
        tokenizer_characters=300_000,
        corpus_characters=600_000,
        held_out_sequences=8,
        steps=24,
        long_length=512,
        long_steps=6,
        test_length=704,
        test_texts=6,
        position_bins=4,
        needle_steps=16,
        needle_batch=8,
        needle_long_length=512,
        needle_long_steps=4,
        needle_distances=(16, 64, 256, 512),
        needle_test_length=640,
        needle_test_texts=4,
        cost_lengths=(512, 1024),
        timing_budget=0.5,
    ),
    "laptop": ExtensionScale(),
    "gpu": ExtensionScale(
        bert_preset="bert-small",
        modernbert_preset="modernbert-small",
        dtype="bfloat16",
        vocab_size=8192,
        tokenizer_characters=8_000_000,
        corpus_characters=None,
        sequence_length=1024,
        held_out_sequences=256,
        batch_size=32,
        steps=1200,
        learning_rate=1e-3,
        long_length=8192,
        long_steps=200,
        long_seeds=(0, 1, 2),
        test_length=8192,  # few of the corpus's held-out documents are longer
        test_texts=64,
        probe=256,
        near=1024,
        needle_steps=1500,
        needle_batch=64,
        needle_long_length=1024,
        needle_long_steps=200,
        needle_distances=(16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 7936),
        needle_test_length=8192,
        needle_test_texts=64,
        timing_repeats=10,
    ),
}
