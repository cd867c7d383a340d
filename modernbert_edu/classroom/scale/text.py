"""What every lesson that trains on text needs: the text, its tokenizer, its sequences."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TextScale:
    """The text and how it is cut; `data.prepare` reads these. The sections of the lessons add to it."""

    vocab_size: int = 4096
    tokenizer_characters: int = 4_000_000  # the tokenizer learns from this many
    corpus_characters: int | None = None  # None: the whole corpus
    sequence_length: int = 128
    held_out_sequences: int = 256
    seed: int = 0


@dataclass(frozen=True)
class MixedLengths:
    """A batch of `count` sequences, lengths from N(mean, std) clamped to 16 ... max.

    The defaults are the lengths of the paper's short variable set (arXiv 2412.13663, section 4.2), and `max` is where
    BERT's published position table ends. A padded model computes the rectangle up to the longest one drawn.
    """

    count: int = 16
    mean: int = 256
    std: int = 64
    max: int = 512
