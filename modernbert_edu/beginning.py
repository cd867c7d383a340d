"""What a training from nothing begins with: a tokenizer learnt on its texts, and a model with random weights."""

from __future__ import annotations

from collections.abc import Sequence

from .config import EncoderConfig
from .data.prepared import first_characters
from .data.tokenizer import Tokenizer, train_bpe
from .model import MaskedLM
from .runtime import seed_everything


def tokenizer_of_texts(texts: Sequence[str], characters: int, vocab_size: int) -> Tokenizer:
    """A byte-level BPE of `vocab_size` ids from the first texts, as many as hold `characters` together."""
    return train_bpe(first_characters(list(texts), characters), vocab_size)


def new_model(preset: str, tokenizer: Tokenizer, seed: int, like: str | None = None, **changes) -> MaskedLM:
    """A model with random weights; with `like`, its MLPs as wide as it takes to match that preset's parameters.

    `changes` are to the configuration: `unpad=True` lets BERT, too, compute no pads.
    """
    config = EncoderConfig.preset(preset, vocab_size=tokenizer.vocab_size)
    if like is not None and like != preset:
        config = config.matched_to(EncoderConfig.preset(like, vocab_size=tokenizer.vocab_size), tolerance=0.01)
    seed_everything(seed)
    return MaskedLM(config.replace(pad_token_id=tokenizer.pad_id, **changes))
