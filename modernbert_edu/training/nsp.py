"""Next-sentence prediction, BERT's second task: does B follow A in its document? (Devlin et al. 2019, 3.1, task 2, A.2)

A training example is `[CLS] A [SEP] B [SEP]`. Half of the time B is the text that follows A, the other half a random
span of another document. "Sentence" means any span of running text. The answer is read from the [CLS] token alone.
ModernBERT leaves the task out (Warner et al. 2024): here it serves the `bert-2018` recipe.

Letters: B batch, S padded length, T tokens on the flat axis, D hidden.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import EncoderConfig
from ..errors import InputError
from ..model import MaskedLM, MaskedLMOutput
from ..unpadding import Layout

MIN_SEGMENT = 4  # tokens of A and of B: with fewer there is nothing to compare
SHORT_SHARE = 0.1  # of the pairs are shorter than they could be, so that the model meets short ones too (as BERT's)
NUM_SPECIAL = 3  # [CLS] A [SEP] B [SEP]


@dataclass(frozen=True)
class Pair:
    """One example: `[CLS] A [SEP]` with type 0, then `B [SEP]` with type 1; `is_next`: B follows A in its document."""

    input_ids: list[int]
    token_type_ids: list[int]
    is_next: bool


def sentence_pairs(
    documents: Sequence[Sequence[int]], length: int, tokenizer, generator: np.random.Generator | int
) -> list[Pair]:
    """Cut tokenised documents (lists of ids without special tokens) into pairs of at most `length` ids, in order.

    A coin is thrown for each: the true B or a random one. In the end as many pairs as one side has too many are left
    out at random, so that each has half. (To throw none away by throwing the coin so that it comes out even would let
    the end of a document, and with it the length of a pair, tell something of the answer.) Nine of ten fill the length
    where the document has the text for it. A is cut off at a random place; both segments have at least `MIN_SEGMENT`
    tokens. A random B begins at a random token of any other document, so long documents give more of them; what it
    took the place of becomes the next A, and a tail of less than two segments is left.
    `tokenizer` needs `cls_id` and `sep_id` only. The same generator state (or seed) gives the same pairs.

    Raises `InputError` where the length has no room for two segments, and where fewer than two documents have
    `MIN_SEGMENT` tokens or none has enough for two segments.
    """
    room = length - NUM_SPECIAL
    if room < 2 * MIN_SEGMENT:
        raise InputError(
            f"length is {length}: next-sentence prediction needs {2 * MIN_SEGMENT + NUM_SPECIAL} or more, "
            f"for [CLS] A [SEP] B [SEP] with {MIN_SEGMENT} tokens in A and in B"
        )
    others = _OtherDocuments(documents)
    generator = np.random.default_rng(generator)
    pairs = []
    for index, ids in enumerate(documents):
        start = 0
        while len(ids) - start >= 2 * MIN_SEGMENT:
            chunk = min(_draw_size(room, generator), len(ids) - start)
            cut = int(generator.integers(MIN_SEGMENT, chunk - MIN_SEGMENT + 1))
            a, is_next = ids[start : start + cut], bool(generator.integers(2))
            if is_next:
                b, start = ids[start + cut : start + chunk], start + chunk
            else:
                b, start = others.draw(index, chunk - cut, generator), start + cut
            pairs.append(_join(a, b, is_next, tokenizer))
    return _half_and_half(pairs, generator)


def _half_and_half(pairs: list[Pair], generator: np.random.Generator) -> list[Pair]:
    """The pairs without some of the more frequent kind, so that the two differ by one at most."""
    kinds = [[i for i, pair in enumerate(pairs) if pair.is_next is which] for which in (True, False)]
    fewer, more = sorted(kinds, key=len)
    surplus = max(0, len(more) - max(1, len(fewer)))
    dropped = set(generator.choice(more, surplus, replace=False).tolist())
    return [pair for i, pair in enumerate(pairs) if i not in dropped]


def _draw_size(room: int, generator: np.random.Generator) -> int:
    """Tokens of A and B together: all that there is room for, or now and then fewer."""
    if generator.random() < SHORT_SHARE:
        return int(generator.integers(2 * MIN_SEGMENT, room + 1))
    return room


def _join(a: Sequence[int], b: Sequence[int], is_next: bool, tokenizer) -> Pair:
    input_ids = [tokenizer.cls_id, *a, tokenizer.sep_id, *b, tokenizer.sep_id]
    return Pair(input_ids, [0] * (len(a) + 2) + [1] * (len(b) + 1), is_next)


class _OtherDocuments:
    """Random spans of any document but one, each token of the others equally likely to be drawn."""

    def __init__(self, documents: Sequence[Sequence[int]]):
        self.documents = documents
        sizes = [len(ids) if len(ids) >= MIN_SEGMENT else 0 for ids in documents]  # shorter ones are never drawn
        usable = sum(size > 0 for size in sizes)
        if usable < 2:
            raise InputError(
                f"next-sentence prediction takes its false answers from another document, so it needs two of "
                f"{MIN_SEGMENT} tokens or more; there are {usable}: give more text, or leave the task out"
            )
        if max(sizes) < 2 * MIN_SEGMENT:
            raise InputError(
                f"no document has {2 * MIN_SEGMENT} tokens, which two segments need; the longest has {max(sizes)}: "
                "give longer documents, or leave next-sentence prediction out"
            )
        self.ends = list(accumulate(sizes))  # on one axis of all documents end to end

    def draw(self, not_this: int, size: int, generator: np.random.Generator) -> Sequence[int]:
        """`size` tokens of another document, or all of it where it is shorter."""
        begin = self.ends[not_this - 1] if not_this else 0
        own = self.ends[not_this] - begin
        place = int(generator.integers(self.ends[-1] - own))
        place += own if place >= begin else 0  # step over the document itself
        chosen = bisect_right(self.ends, place)
        ids = self.documents[chosen]
        start = place - (self.ends[chosen] - len(ids))
        start = max(0, min(start, len(ids) - size))  # so near the end that it would be cut off: begin earlier
        return ids[start : start + size]


class NextSentenceHead(nn.Module):
    """[CLS] states (B, D) -> logits (B, 2): dense, tanh, linear. Class 0: B follows A; 1: B is random.

    Begins at N(0, `initializer_range`), biases 0. Classes and names are those of transformers'
    `BertForPreTraining`: `pooler` is its bert.pooler.dense, `seq_relationship` its cls.seq_relationship.
    """

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size)
        self.seq_relationship = nn.Linear(config.hidden_size, 2)
        for linear in (self.pooler, self.seq_relationship):
            nn.init.normal_(linear.weight, std=config.initializer_range)
            nn.init.zeros_(linear.bias)

    def forward(self, cls_BD: Tensor) -> Tensor:
        return self.seq_relationship(torch.tanh(self.pooler(cls_BD)))


@dataclass
class PretrainingOutput:
    """`loss` is the sum of the two tasks' mean losses in nats; None where the labels of a task were not given."""

    masked: MaskedLMOutput
    next_logits: Tensor  # (B, 2)
    next_loss: Tensor | None

    @property
    def mlm_loss(self) -> Tensor | None:
        return self.masked.loss

    @property
    def loss(self) -> Tensor | None:
        if self.mlm_loss is None or self.next_loss is None:
            return None
        return self.mlm_loss + self.next_loss


class PretrainingModel(nn.Module):
    """A masked language model and a next-sentence head on one encoder. `masked_lm` is what is kept in the end."""

    def __init__(self, masked_lm: MaskedLM):
        super().__init__()
        self.masked_lm = masked_lm
        self.next_sentence = NextSentenceHead(masked_lm.config)

    @property
    def config(self) -> EncoderConfig:
        return self.masked_lm.config

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        next_labels: Tensor | None = None,
        layout: Layout | None = None,
    ) -> PretrainingOutput:
        """As `MaskedLM.forward`; `next_labels` (B,) is 0 where B follows A and 1 where it is random.

        On the flat axis each document of the layout is one pair. Raises `InputError` where the labels do not fit.
        """
        masked = self.masked_lm(input_ids, attention_mask, layout, labels, token_type_ids)
        hidden = masked.last_hidden_state
        if input_ids.dim() == 2:
            cls_BD = hidden[:, 0]
        else:  # without a layout all of it is one document
            cls_BD = hidden[:1] if layout is None else hidden[layout.cu_seqlens[:-1].long()]
        next_logits = self.next_sentence(cls_BD)
        next_loss = None
        if next_labels is not None:
            if next_labels.shape != next_logits.shape[:1]:
                raise InputError(
                    f"next_labels {tuple(next_labels.shape)} must hold one number for each of the "
                    f"{next_logits.shape[0]} pairs"
                )
            next_loss = F.cross_entropy(next_logits.float(), next_labels)
        return PretrainingOutput(masked, next_logits, next_loss)
