"""Unpadding: from a padded rectangle to one flat axis of tokens, and back.

A batch of sequences of different lengths is usually a rectangle (B, S) filled up with pad tokens, and every linear
layer computes the filling too. Here the model sees one flat axis of T tokens, all documents laid end to end, and a
`Layout` that says where each begins: `cu_seqlens = [0, len_0, len_0 + len_1, ..., T]`.

Vanilla BERT keeps its padding. Its layout describes the rectangle, T = B * S, one document per row, with a key mask
over the pads, so the same code computes it at its honest cost.

Letters: B batch, S padded length, T tokens on the flat axis, N documents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .errors import InputError


@dataclass(frozen=True, eq=False)
class Layout:
    """Where the documents lie on the flat axis. Built once per batch; every layer of the model reads it."""

    lengths: tuple[int, ...]  # tokens of each document, as Python ints; () where a compiler must not see them
    cu_seqlens: Tensor  # (N + 1,) int32: where each document begins; the last entry is T
    position_ids: Tensor  # (T,) int64: 0, 1, 2, ... within each document
    document_ids: Tensor  # (T,) int64: which document each token belongs to
    key_mask: Tensor | None = None  # (T,) bool, False at pad tokens that were kept; None when every token is real
    shape: tuple[int, int] | None = None  # the rectangle (B, S) that the batch came as, if it did
    indices: Tensor | None = None  # (T,) int64: each token's place in the flattened rectangle; None: all of it
    bound: int | None = None  # the longest document there may be, where the lengths are not to be seen
    plans: dict = field(default_factory=dict, repr=False)  # what is made once per batch: masks, block lists

    @property
    def num_tokens(self) -> int:
        """T, the length of the flat axis (pad tokens included where they were kept)."""
        return self.position_ids.shape[0]

    @property
    def num_documents(self) -> int:
        return len(self.lengths)

    @property
    def max_seqlen(self) -> int:
        """Tokens of the longest document, or the bound on them."""
        return max(self.lengths, default=0) if self.bound is None else self.bound

    @property
    def uniform(self) -> bool:
        """Whether all documents are equally long, so that the flat axis can be viewed as (N, length)."""
        return len(set(self.lengths)) == 1

    @classmethod
    def from_lengths(cls, lengths: Sequence[int], device: torch.device | str | None = None) -> Layout:
        """The layout of documents of these lengths laid end to end. A length may be 0; negative is refused."""
        lengths = tuple(int(n) for n in lengths)
        if any(n < 0 for n in lengths):
            raise InputError(f"a document cannot have {min(lengths)} tokens; lengths must be 0 or more")
        sizes = torch.tensor(lengths, dtype=torch.int64)
        cu_seqlens = torch.zeros(len(lengths) + 1, dtype=torch.int32)
        cu_seqlens[1:] = sizes.cumsum(0)
        document_ids = torch.repeat_interleave(torch.arange(len(lengths)), sizes)
        position_ids = torch.arange(int(sizes.sum())) - cu_seqlens[:-1].long()[document_ids]
        return cls(lengths, cu_seqlens.to(device), position_ids.to(device), document_ids.to(device))

    @classmethod
    def from_cu_seqlens(
        cls, cu_seqlens: Tensor, num_tokens: int | None = None, max_seqlen: int | None = None
    ) -> Layout:
        """The layout of documents given by their offsets [0, ..., T], as FlashAttention takes them.

        Raises `InputError` for offsets that do not begin at 0, that fall, or that do not end at `num_tokens`, and for
        a document longer than `max_seqlen`.
        """
        offsets = cu_seqlens.flatten().tolist()
        lengths = [after - before for before, after in zip(offsets, offsets[1:], strict=False)]
        if not lengths or offsets[0] != 0:
            raise InputError(f"cu_seqlens must begin at 0 and name at least one document's end, not {offsets[:3]}")
        if min(lengths) < 0:
            at = lengths.index(min(lengths))
            raise InputError(f"cu_seqlens must not fall, but goes from {offsets[at]} to {offsets[at + 1]}")
        if num_tokens is not None and offsets[-1] != num_tokens:
            raise InputError(f"cu_seqlens ends at {offsets[-1]}, but there are {num_tokens} tokens")
        if max_seqlen is not None and max(lengths) > max_seqlen:
            raise InputError(f"a document has {max(lengths)} tokens, more than max_seqlen, {max_seqlen}")
        return cls.from_lengths(lengths, cu_seqlens.device)

    @classmethod
    def from_mask(cls, attention_mask: Tensor, unpad: bool = True) -> Layout:
        """The layout of a padded batch from its attention mask (B, S), 1 or True at real tokens.

        With `unpad` the flat axis holds the real tokens of each row, numbered 0, 1, ... as if the pads had never been
        there. Without, it holds the whole rectangle, and the pads are excluded as keys only, as BERT does.
        """
        if attention_mask.dim() != 2:
            raise InputError(f"attention_mask must have the shape (B, S), not {tuple(attention_mask.shape)}")
        real = attention_mask.bool()
        B, S = real.shape
        lengths = real.sum(dim=1).tolist()
        if unpad:
            layout = cls.from_lengths(lengths, attention_mask.device)
            indices = None if layout.num_tokens == B * S else real.flatten().nonzero().flatten()
            return cls(**{**_fields(layout), "shape": (B, S), "indices": indices})
        if min(lengths, default=1) == 0:
            raise InputError(f"row {lengths.index(0)} of attention_mask has no real token; leave such rows out")
        layout = cls.from_lengths([S] * B, attention_mask.device)
        key_mask = None if sum(lengths) == B * S else real.flatten()
        return cls(**{**_fields(layout), "shape": (B, S), "key_mask": key_mask})

    def gather(self, x_BS: Tensor) -> Tensor:
        """(B, S, ...) -> (T, ...): the tokens that are computed, in order."""
        flat = x_BS.flatten(0, 1)
        return flat if self.indices is None else flat[self.indices]

    def scatter(self, x_T: Tensor) -> Tensor:
        """(T, ...) -> (B, S, ...): back to the rectangle, zeros where pad tokens were left out."""
        assert self.shape is not None, "this layout did not come from a rectangle"
        B, S = self.shape
        if self.indices is None:
            return x_T.unflatten(0, (B, S))
        rectangle = x_T.new_zeros(B * S, *x_T.shape[1:])
        return rectangle.index_copy(0, self.indices, x_T).unflatten(0, (B, S))

    def to(self, device: torch.device | str) -> Layout:
        """The same layout on another device, with nothing cached."""
        moved = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in _fields(self).items()}
        return Layout(**moved)


def _fields(layout: Layout) -> dict:
    """The constructor's arguments, without the cache."""
    names = ("lengths", "cu_seqlens", "position_ids", "document_ids", "key_mask", "shape", "indices", "bound")
    return {name: getattr(layout, name) for name in names}


def pack(documents: Sequence[Sequence[int]], device: torch.device | str | None = None) -> tuple[Tensor, Layout]:
    """Lay token-id lists end to end: -> (input_ids (T,) int64, layout). No document will see another."""
    documents = [list(document) for document in documents]
    if not any(documents):
        raise InputError("there is nothing to pack: no document has a token")
    input_ids = torch.tensor([token for document in documents for token in document], dtype=torch.int64)
    return input_ids.to(device), Layout.from_lengths([len(document) for document in documents], device)
