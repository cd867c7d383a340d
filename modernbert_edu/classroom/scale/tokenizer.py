"""Sizes of 02_tokenizer_and_data."""

from dataclasses import dataclass

from .text import TextScale


@dataclass(frozen=True)
class TokenizerScale(TextScale):
    """02_tokenizer_and_data: two tokenizers on the same text, what they cost, and one model trained on each."""

    preset: str = "modernbert-tiny"
    dtype: str = "float32"
    timing_repeats: int = 9

    corpus_characters: int | None = 4_000_000
    toy_characters: int = 20_000  # the merges that are learnt by hand
    vocab_sizes: tuple[int, ...] = (1024, 4096, 16_384)  # of the tokenizers that are counted with
    full_vocabulary: bool = True  # learn the published size too, from the whole corpus

    decoder_rows: int = 128  # masked tokens of a batch
    decoder_width: int = 768  # ModernBERT-base's
    aligned: int = 50_368  # the multiple of 64 around which the decoder's product is timed
    offsets: tuple[int, ...] = (-64, -63, -33, -32, -8, -1, 0, 1, 8, 32, 33, 63, 64)
    decoder_sizes: tuple[int, ...] = (4096, 8192, 16_384, 30_528, 50_368)

    padding_batches: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    padding_limits: tuple[int, ...] = (128, 512)  # tokens at which a text is cut

    batch_size: int = 8  # sequences
    steps: int = 240
    warmup_steps: int = 24
    learning_rate: float = 4e-3  # what the tour's sweep found best for modernbert-tiny, on byte-level BPE
    seeds: tuple[int, ...] = (0, 1)
    mask_rate: float = 0.3
    evaluations: int = 6  # points of a curve
    passage_characters: int = 200  # held-out text is scored in passages of this many characters at most


SIZES = {
    "quick": TokenizerScale(
        vocab_size=1024,
        tokenizer_characters=300_000,
        corpus_characters=600_000,
        held_out_sequences=32,
        timing_repeats=3,
        vocab_sizes=(512, 1024),
        full_vocabulary=False,
        decoder_rows=64,
        decoder_width=128,
        aligned=4096,
        decoder_sizes=(1024, 2048, 4096),
        batch_size=4,
        steps=6,
        warmup_steps=2,
        seeds=(0,),
        evaluations=2,
    ),
    "laptop": TokenizerScale(),
    "gpu": TokenizerScale(
        preset="modernbert-small",
        dtype="bfloat16",
        vocab_size=8192,
        tokenizer_characters=8_000_000,
        corpus_characters=None,
        held_out_sequences=1024,
        vocab_sizes=(1024, 2048, 4096, 8192, 16_384),  # WordPiece finds 31,000 pieces in this text, not more
        decoder_rows=8192,
        decoder_sizes=(4096, 8192, 16_384, 30_528, 50_368, 100_352),
        timing_repeats=20,
        batch_size=64,
        steps=1000,
        warmup_steps=100,
        learning_rate=2e-3,  # not from a sweep: half of the tiny model's
        seeds=(0, 1, 2),
    ),
}
