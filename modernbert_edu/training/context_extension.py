"""Context extension: the same weights, meant for longer texts (Warner et al. 2024, section 2.2.2).

ModernBERT learns at 1,024 tokens first. Then the length becomes 8,192, theta of the global layers 160,000 instead of
10,000, at once, and training goes on with as many tokens per step as before. What has to change in the model is two
numbers of its configuration: it has no table of positions that ends, and it computes the rotary tables from the
configuration at each forward pass. Code that caches cos and sin must throw the cache away when theta changes, or
the change does nothing.

The recipe of the training that follows is `Recipe.preset("modernbert-context")` in recipe.py.
"""

from __future__ import annotations

import copy
import math
from typing import TypeVar

from torch import nn

from ..compiled import CompiledEncoder
from ..config import EncoderConfig
from ..data.batches import tokenize_corpus
from ..data.corpus import Corpus
from ..data.tokenizer import Tokenizer
from ..errors import InputError
from ..model import Encoder

GLOBAL_THETA = 160_000.0  # of the published models, after extension (section 2.2.2)

Model = TypeVar("Model", bound=nn.Module)


def extended_config(config: EncoderConfig, length: int, theta: float = GLOBAL_THETA) -> EncoderConfig:
    """The configuration for texts of up to `length` tokens, global layers turning with `theta`.

    The local theta stays: a local layer sees the same 64 tokens on each side, however long the text is.
    Raises `InputError` for learned positions, whose table ends; for a length that is not a whole number above the
    present one; and for a theta that is not a number above 0.
    """
    if config.positions != "rope":
        raise InputError(
            f"learned positions end at {config.max_position_embeddings}: there are no rows for more, so only a model "
            'with positions="rope" can be extended'
        )
    if isinstance(length, bool) or not isinstance(length, int) or length < 1:
        raise InputError(f"the new length must be a whole number of tokens, at least 1, not {length!r}")
    if length <= config.max_position_embeddings:
        raise InputError(
            f"the model is meant for {config.max_position_embeddings:,} tokens already; give a length above that, or, "
            "if it was trained on shorter texts, set max_position_embeddings to their length first"
        )
    if isinstance(theta, bool) or not isinstance(theta, int | float) or not 0 < theta < math.inf:
        raise InputError(f"theta must be a number above 0, not {theta!r}; ModernBERT's global layers have 160,000")
    return config.replace(max_position_embeddings=length, global_rope_theta=float(theta))


def extended_model(model: Model, length: int, theta: float = GLOBAL_THETA) -> Model:
    """A new model of the same class with a copy of the weights and the configuration of `extended_config`.

    The given model stays as it was. Device, dtype and training mode are kept; parameters have the same order and names,
    so that an optimizer's state dict fits. Raises `InputError` as `extended_config` does.
    """
    config = extended_config(model.config, length, theta)
    extended = copy.deepcopy(model)
    for module in extended.modules():
        if isinstance(getattr(module, "config", None), EncoderConfig):
            module.config = config
        if isinstance(module, Encoder) and module.compiled is not None:  # its graph holds the old numbers
            module.compiled = CompiledEncoder(module, module.compiled.token_budget)
    return extended


def cut_documents(corpus: Corpus, tokenizer: Tokenizer, length: int) -> tuple[list[list[int]], list[list[int]]]:
    """(train, held out): both sides of a corpus as `[CLS] ... [SEP]` of at most `length` ids.

    A document that is shorter stays short: nothing is joined, so that what stands far away belongs to the same text.
    """
    return tuple(tokenize_corpus(split, tokenizer, length) for split in (corpus.train, corpus.held_out))
