"""Every size that a lesson uses, three times: `quick`, `laptop`, `gpu`.

A lesson holds no size of its own: it reads them from `get_scale()`, so the same code runs in the tests within seconds,
on a laptop within minutes and on a GPU at sizes that conclusions can rest on. `laptop` is written as the defaults;
`quick` and `gpu` state what they change.

Times behind the sizes: two CPU cores train about 15,000 tokens/s of the tiny models. The loss of a masked language
model first falls fast, to about the unigram entropy of the text, and then slowly; `laptop` has the steps to get below
it, `quick` has not and only shows that everything runs.
"""

import os
from dataclasses import dataclass, field

from modernbert_edu.errors import InputError


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


@dataclass(frozen=True)
class TourScale:
    """00_tour: both models on the same text and budget, then their speed and memory."""

    bert_preset: str = "bert-tiny"
    modernbert_preset: str = "modernbert-tiny"
    dtype: str = "float32"

    vocab_size: int = 4096
    tokenizer_characters: int = 4_000_000  # the tokenizer learns from this many
    corpus_characters: int | None = None  # None: the whole corpus

    sequence_length: int = 128
    batch_size: int = 8  # sequences; many small steps beat few big ones at this size
    steps: int = 1200
    warmup_steps: int = 120
    # Each model has its own: the best of the four that `tour --sweep` tries and records, each at half the steps.
    bert_learning_rate: float = 2e-3
    modernbert_learning_rate: float = 4e-3
    mask_rate: float = 0.3
    held_out_sequences: int = 256

    lengths: tuple[int, ...] = (128, 256, 512, 1024, 2048, 4096)
    mixed_lengths: MixedLengths = field(default_factory=MixedLengths)
    timing_repeats: int = 5
    seed: int = 0


@dataclass(frozen=True)
class VanillaBertScale:
    """01_vanilla_bert: the baseline, trained just long enough to see it learn."""

    preset: str = "bert-tiny"
    dtype: str = "float32"

    vocab_size: int = 4096
    tokenizer_characters: int = 2_000_000
    corpus_characters: int | None = 4_000_000

    sequence_length: int = 128
    batch_size: int = 16
    steps: int = 300
    warmup_steps: int = 30
    ablation_seeds: tuple[int, ...] = (0, 1)  # seeds of the comparison with and without positions
    learning_rate: float = 1e-3
    mask_rate: float = 0.15
    held_out_sequences: int = 256  # some 5,000 masked tokens to judge by

    lengths: tuple[int, ...] = (128, 256, 512)  # learned positions end at 512
    timing_repeats: int = 5
    seed: int = 0


@dataclass(frozen=True)
class Scale:
    """One size of the whole course: a section for each lesson that has sizes."""

    name: str
    tour: TourScale = field(default_factory=TourScale)
    vanilla_bert: VanillaBertScale = field(default_factory=VanillaBertScale)


SCALES = {
    "quick": Scale(
        name="quick",
        tour=TourScale(
            vocab_size=1024,
            tokenizer_characters=300_000,
            corpus_characters=600_000,
            batch_size=8,
            steps=40,
            warmup_steps=8,
            held_out_sequences=32,
            lengths=(128, 256, 512, 1024),
            mixed_lengths=MixedLengths(count=8, mean=128, std=32, max=256),
            timing_repeats=3,
        ),
        vanilla_bert=VanillaBertScale(
            vocab_size=1024,
            tokenizer_characters=300_000,
            corpus_characters=600_000,
            batch_size=8,
            steps=20,
            warmup_steps=4,
            held_out_sequences=32,
            ablation_seeds=(0,),
            lengths=(128, 256),
            timing_repeats=3,
        ),
    ),
    "laptop": Scale(name="laptop"),
    "gpu": Scale(
        name="gpu",
        tour=TourScale(
            bert_preset="bert-small",
            modernbert_preset="modernbert-small",
            dtype="bfloat16",
            vocab_size=8192,
            tokenizer_characters=8_000_000,
            batch_size=64,
            steps=2000,
            warmup_steps=200,
            held_out_sequences=1024,
            lengths=(128, 256, 512, 1024, 2048, 4096, 8192),
            mixed_lengths=MixedLengths(count=256),
            timing_repeats=20,
        ),
        vanilla_bert=VanillaBertScale(
            preset="bert-small",
            dtype="bfloat16",
            vocab_size=8192,
            tokenizer_characters=8_000_000,
            corpus_characters=None,
            batch_size=64,
            steps=1000,
            warmup_steps=100,
            ablation_seeds=(0, 1, 2),
            held_out_sequences=1024,
            timing_repeats=20,
        ),
    ),
}


def get_scale(name: str | None = None) -> Scale:
    """The scale called `name`, or MODERNBERT_EDU_SCALE, or `gpu` where CUDA is and `laptop` elsewhere.

    Raises InputError for a name that is none of quick, laptop, gpu.
    """
    wanted = (name or os.environ.get("MODERNBERT_EDU_SCALE", "")).strip().lower()
    if not wanted:
        import torch  # only here: the table itself needs nothing

        wanted = "gpu" if torch.cuda.is_available() else "laptop"
    if wanted not in SCALES:
        source = "scale" if name else "MODERNBERT_EDU_SCALE"
        raise InputError(f"{source} {wanted!r} does not exist: choose one of {', '.join(SCALES)}")
    return SCALES[wanted]
