"""Arithmetic by formula: how many floating-point operations a forward pass takes, and where.

A multiplication and the addition that follows it count as 2, as on a processor's data sheet. Matrix products only:
embedding look-ups, norms, activations, softmax and RoPE are left out (they move memory rather than compute, and are
a percent or two of a base-size model's operations). `tests/test_flops.py` holds the formulas to what torch counts.

Letters: T tokens, n tokens of one document, D hidden, I intermediate, V vocabulary, M masked tokens, w half window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..attention import BLOCK
from ..config import EncoderConfig
from ..errors import InputError


@dataclass(frozen=True)
class Flops:
    """Operations of one forward pass, by the part of the model that does them."""

    linear: int  # the four matrices of every layer: grows with T
    attention_global: int  # query-key and weight-value products of global layers: grows with n squared
    attention_local: int  # the same in local layers: grows with n
    head: int  # dense and decoder of the masked-LM head, on masked tokens only

    @property
    def total(self) -> int:
        return self.linear + self.attention_global + self.attention_local + self.head


def forward_flops(
    config: EncoderConfig, lengths: Sequence[int], *, masked: int | None = None, padded_to: int | None = None
) -> Flops:
    """Operations of one forward pass over documents of these lengths (in real tokens).

    A model that does not unpad computes every document at the length `padded_to` (default: the longest). `masked` is
    how many tokens the head predicts; None leaves the head out. Attention counts the pairs that the definition needs;
    `local_pairs_in_blocks` tells how many the blocked implementation computes.
    Raises `InputError` for no documents, or a `padded_to` shorter than one of them.
    """
    lengths = _computed_lengths(config, lengths, padded_to)
    D = config.hidden_size
    wi = config.intermediate_size * (2 if config.mlp == "geglu" else 1)
    per_token = 3 * D * D + D * D + D * wi + config.intermediate_size * D  # Wqkv, Wo, Wi and the MLP's Wo
    # Every pair of a query and a key costs two products of D numbers (all heads together): q.k, and weight times v.
    per_pair = 2 * 2 * D
    global_pairs = sum(n * n for n in lengths)
    local_pairs = sum(pairs_in_window(n, config.half_window) for n in lengths)
    return Flops(
        linear=2 * per_token * sum(lengths) * config.num_hidden_layers,
        attention_global=per_pair * global_pairs * config.layer_types.count("G"),
        attention_local=per_pair * local_pairs * config.layer_types.count("L"),
        head=2 * (D * D + D * config.vocab_size) * (masked or 0),
    )


def train_flops(forward: Flops) -> int:
    """Forward and backward: three times the forward pass.

    The backward pass of a product makes two of the same size, one for each factor's gradient (Kaplan et al. 2020,
    section 2.1). Fused attention kernels add a recomputation of the scores, which is not counted as useful work.
    """
    return 3 * forward.total


def pairs_in_window(n: int, window: int) -> int:
    """Pairs (query, key) of a document of n tokens that lie within `window` tokens of each other.

    Every token has 2 w + 1 neighbours (with itself), except near the two ends, which lack w (w + 1) together.
    """
    return n * n if n <= window else n * (2 * window + 1) - window * (window + 1)


def local_pairs_in_blocks(lengths: Sequence[int], window: int) -> int:
    """Pairs that `attention.sdpa` computes in a local layer: whole blocks, whatever the mask then leaves out.

    At window 64 that is 192 keys for each query, where the definition needs 129.
    """
    if window >= max(lengths) - 1:
        return sum(n * n for n in lengths)
    blocks = -(-sum(lengths) // BLOCK)
    return blocks * BLOCK * (BLOCK + 2 * window)


def _computed_lengths(config: EncoderConfig, lengths: Sequence[int], padded_to: int | None) -> list[int]:
    """The length at which each document is really computed."""
    if not lengths or min(lengths) < 0:
        raise InputError(f"lengths must hold at least one document, none shorter than 0 tokens, not {list(lengths)}")
    longest = max(lengths)
    if padded_to is not None and padded_to < longest:
        raise InputError(f"padded_to ({padded_to}) is shorter than the longest document ({longest}); raise it")
    if config.unpad:
        return list(lengths)
    return [padded_to or longest] * len(lengths)
