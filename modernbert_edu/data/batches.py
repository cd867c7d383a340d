"""From documents to training batches: cut into pieces, shuffle, pad."""

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from modernbert_edu.data.tokenizer import Tokenizer
from modernbert_edu.errors import InputError
from modernbert_edu.runtime import progress

MIN_TOKENS = 8  # a shorter piece has too little context to guess from
DOCUMENTS_AT_ONCE = 64  # tokenised together: enough to keep all cores busy, few enough for the memory


def chunk(ids: Sequence[int], length: int, cls_id: int, sep_id: int, min_tokens: int = MIN_TOKENS) -> list[list[int]]:
    """Cut one tokenised document (without special tokens) into consecutive `[CLS] ... [SEP]` of at most `length` ids.

    A tail with fewer than `min_tokens` tokens of its own is dropped, and so is a document that short.
    """
    room = length - 2
    if room < max(1, min_tokens):
        raise InputError(f"length is {length}: [CLS], [SEP] and at least {max(1, min_tokens)} tokens must fit")
    pieces = (ids[start : start + room] for start in range(0, len(ids), room))
    return [[cls_id, *piece, sep_id] for piece in pieces if len(piece) >= min_tokens]


def tokenize_corpus(split, tokenizer: Tokenizer, length: int, *, min_tokens: int = MIN_TOKENS) -> list[list[int]]:
    """All documents of a `datasets.Dataset` with a `text` column, tokenised and cut by `chunk`, in order."""
    sequences = []
    with progress(total=len(split), desc="tokenizing", unit=" documents") as bar:
        for start in range(0, len(split), DOCUMENTS_AT_ONCE):
            texts = split[start : start + DOCUMENTS_AT_ONCE]["text"]
            for ids in tokenizer.encode_batch(texts, add_special_tokens=False):
                sequences += chunk(ids, length, tokenizer.cls_id, tokenizer.sep_id, min_tokens)
            bar.update(len(texts))
    if not sequences:
        raise InputError(f"the corpus has no document of {min_tokens} tokens or more: give more text")
    return sequences


class SequenceBatches:
    """Batches of id lists for ever, each epoch in a new random order.

    The order depends on the seed and the number of sequences alone, so two models given the same seed see the same
    text at the same step. A batch may span two epochs: every sequence is seen equally often, and every batch is full.
    """

    def __init__(self, sequences: Sequence[list[int]], batch_size: int, seed: int = 0):
        if not sequences:
            raise InputError("there are no sequences to make batches of: the corpus is empty")
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}: it must be at least 1")
        self.sequences = sequences
        self.batch_size = batch_size
        self.seed = seed

    def __iter__(self) -> Iterator[list[list[int]]]:
        """Endless, and from the beginning each time."""
        order = self._order()
        while True:
            yield [self.sequences[index] for index in itertools.islice(order, self.batch_size)]

    def _order(self) -> Iterator[int]:
        generator = np.random.Generator(np.random.PCG64DXSM(self.seed))
        while True:
            yield from generator.permutation(len(self.sequences))

    def take(self, num_batches: int) -> Iterator[list[list[int]]]:
        """The first `num_batches` batches."""
        return itertools.islice(self, num_batches)


def pad_batch(sequences: Sequence[Sequence[int]], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Id lists of different lengths as one rectangle: (input_ids (B, S) int64, attention_mask (B, S) bool)."""
    if not sequences:
        raise InputError("an empty batch cannot be padded: give at least one sequence")
    longest = max(len(ids) for ids in sequences)
    input_ids = torch.tensor([[*ids, *[pad_id] * (longest - len(ids))] for ids in sequences])
    lengths = torch.tensor([len(ids) for ids in sequences])
    return input_ids, torch.arange(longest) < lengths[:, None]


def unigram_entropy(
    train_sequences: Sequence[Sequence[int]],
    held_out_sequences: Sequence[Sequence[int]],
    vocab_size: int,
    special_ids: frozenset[int],
) -> float:
    """What a model that ignores all context can reach, in nats per token: the number a trained model has to beat.

    The cross-entropy of the held-out tokens under the frequencies of the train tokens, each count plus one (Laplace),
    since a token unseen in training must not cost infinitely much. Special tokens count on neither side.
    """
    ordinary = np.ones(vocab_size, dtype=bool)
    ordinary[list(special_ids)] = False
    train, held_out = (
        np.bincount(np.fromiter(itertools.chain.from_iterable(side), dtype=np.int64), minlength=vocab_size)[ordinary]
        for side in (train_sequences, held_out_sequences)
    )
    if held_out.sum() == 0:
        raise InputError("the held-out text has no tokens: hold out more")
    log_probability = np.log(train + 1) - math.log(train.sum() + len(train))
    return float(-(held_out * log_probability).sum() / held_out.sum())
