"""From documents to batches."""

import math
from itertools import chain

import datasets
import pytest
import torch

from modernbert_edu.data.batches import SequenceBatches, chunk, pad_batch, tokenize_corpus, unigram_entropy
from modernbert_edu.data.masking import IGNORED, mask_tokens
from modernbert_edu.data.tokenizer import train_bpe
from modernbert_edu.errors import InputError

CLS, SEP = 1, 2


def test_chunks_cover_the_document():
    pieces = chunk(list(range(10, 40)), 12, CLS, SEP)
    assert pieces == [[CLS, *range(start, start + 10), SEP] for start in (10, 20, 30)]


def test_a_short_tail_is_dropped():
    assert len(chunk(list(range(17)), 12, CLS, SEP)) == 1
    assert chunk(list(range(18)), 12, CLS, SEP)[1] == [CLS, *range(10, 18), SEP]
    assert chunk([5, 6, 7], 12, CLS, SEP) == []
    assert chunk([5, 6, 7], 12, CLS, SEP, min_tokens=1) == [[CLS, 5, 6, 7, SEP]]
    assert chunk([], 12, CLS, SEP, min_tokens=0) == []


def test_a_length_without_room_is_refused():
    for length, min_tokens in ((2, 0), (9, 8)):
        with pytest.raises(InputError, match="must fit"):
            chunk([5] * 20, length, CLS, SEP, min_tokens)
    assert chunk([5] * 20, 10, CLS, SEP, 8)


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(["some words of text that come again and again, and a few other ones besides"] * 3, 320)


def test_tokenize_corpus_keeps_every_document_apart_and_in_order(tokenizer):
    texts = [f"document number {number} has words of its own" for number in range(150)]
    sequences = tokenize_corpus(datasets.Dataset.from_dict({"text": texts}), tokenizer, 512)
    assert [tokenizer.decode(ids) for ids in sequences] == texts
    short = tokenize_corpus(datasets.Dataset.from_dict({"text": texts}), tokenizer, 16, min_tokens=1)
    assert max(map(len, short)) == 16
    assert all(ids[0] == tokenizer.cls_id and ids[-1] == tokenizer.sep_id for ids in short)
    assert "".join(tokenizer.decode(ids) for ids in short) == "".join(texts)
    with pytest.raises(InputError, match="no document of 8 tokens"):
        tokenize_corpus(datasets.Dataset.from_dict({"text": ["a", "b"]}), tokenizer, 16)


def test_a_tokenizer_serves_masking(tokenizer):
    ids, mask = pad_batch(tokenizer.encode_batch(["some words of text", "again"]), tokenizer.pad_id)
    masked, labels = mask_tokens(ids, tokenizer, rate=1.0, split=(1.0, 0.0, 0.0))
    assert torch.equal(labels != IGNORED, masked == tokenizer.mask_id)
    assert (masked == tokenizer.mask_id).sum() == mask.sum() - 2 * len(ids)


def test_each_epoch_shows_every_sequence_once_in_a_new_order():
    sequences = [[number] for number in range(12)]
    batches = list(SequenceBatches(sequences, 4, seed=1).take(6))
    assert all(len(batch) == 4 for batch in batches)
    first, second = (list(chain(*chain(*half))) for half in (batches[:3], batches[3:]))
    assert sorted(first) == sorted(second) == list(range(12))
    assert first != second and first != list(range(12))


def test_batches_may_span_epochs_and_be_larger_than_the_corpus():
    stream = list(chain(*chain(*SequenceBatches([[0], [1], [2]], 4).take(3))))
    assert [sorted(stream[start : start + 3]) for start in range(0, 12, 3)] == [[0, 1, 2]] * 4


def test_two_models_see_the_same_text():
    sequences = [[number] for number in range(50)]
    ours, theirs = SequenceBatches(sequences, 8, seed=7), SequenceBatches(sequences, 8, seed=7)
    interleaved = list(zip(ours.take(20), theirs.take(20), strict=True))
    assert all(a == b for a, b in interleaved)
    assert list(ours.take(20)) == [a for a, _ in interleaved]  # and again from the beginning
    assert list(SequenceBatches(sequences, 8, seed=8).take(20)) != list(ours.take(20))


def test_impossible_batches_are_refused():
    with pytest.raises(InputError, match="no sequences"):
        SequenceBatches([], 4)
    with pytest.raises(InputError, match="batch_size"):
        SequenceBatches([[1]], 0)
    with pytest.raises(InputError, match="empty batch"):
        pad_batch([], 0)


def test_padding():
    input_ids, mask = pad_batch([[5, 6, 7], [8]], pad_id=3)
    assert input_ids.tolist() == [[5, 6, 7], [8, 3, 3]] and input_ids.dtype == torch.int64
    assert mask.tolist() == [[True, True, True], [True, False, False]] and mask.dtype == torch.bool


def test_unigram_entropy_by_hand():
    # ordinary ids 1, 2, 3; train counts 3, 1, 0 plus one each: probabilities 4/7, 2/7, 1/7
    value = unigram_entropy([[0, 1, 1, 0], [0, 1, 2, 0]], [[0, 1, 2, 0], [0, 3, 3, 0]], 4, frozenset({0}))
    expected = -(math.log(4 / 7) + math.log(2 / 7) + 2 * math.log(1 / 7)) / 4
    assert value == pytest.approx(expected)
    uniform = unigram_entropy([[number] for number in range(64)], [[5, 6]], 64, frozenset())
    assert uniform == pytest.approx(math.log(64))
    with pytest.raises(InputError, match="held-out text has no tokens"):
        unigram_entropy([[1]], [[0]], 4, frozenset({0}))
