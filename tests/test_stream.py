"""The data's order: all of it, once an epoch; the same from any place, for any number of processes or workers."""

import itertools
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modernbert_edu import InputError
from modernbert_edu.data.masking import IGNORED, MaskingSpec
from modernbert_edu.training.nsp import sentence_pairs
from modernbert_edu.training.recipe import Recipe
from modernbert_edu.training.stream import Documents, Place, derived_seed, microbatches, plan

SMALL = dict(tokens=40_960, length=64, tokens_per_step=1024, microbatch_tokens=256, learning_rate=1e-3)


class Words(MaskingSpec):
    """A tokenizer as far as the stream needs one: ids 0 to 4 are special."""

    pad_id, cls_id, sep_id = 0, 1, 2


TOKENIZER = Words(mask_id=3, special_ids=frozenset(range(5)), ordinary_ids=torch.arange(5, 100))


def recipe(name="modernbert", **changes):
    return Recipe.preset(name).shrunk(**{**SMALL, **changes})


def documents(count=300, seed=0):
    lengths = torch.randint(10, 63, (count,), generator=torch.Generator().manual_seed(seed)).tolist()
    return [[1, *((i * 7 + j) % 95 + 5 for j in range(n)), 2][:64] for i, n in enumerate(lengths)]


def one_epoch(lengths, r, seed=0, epoch=0):
    return [indices for place, indices in itertools.takewhile(lambda x: x[0].epoch == epoch, plan(lengths, r, seed))]


@settings(max_examples=25)
@given(lengths=st.lists(st.integers(1, 64), min_size=1, max_size=400), seed=st.integers(0, 1000), packed=st.booleans())
def test_an_epoch_holds_every_document_once_and_no_row_overflows(lengths, seed, packed):
    r = recipe() if packed else recipe("bert-2018")
    rows = one_epoch(lengths, r, seed)
    assert Counter(itertools.chain(*rows)) == Counter(range(len(lengths)))
    if packed:
        assert max(sum(lengths[i] for i in row) for row in rows) <= r.microbatch_tokens
    else:
        assert max(map(len, rows)) == min(len(lengths), 4)


@settings(max_examples=25)
@given(
    lengths=st.lists(st.integers(1, 64), min_size=5, max_size=300), skip=st.integers(0, 200), seed=st.integers(0, 99)
)
def test_from_any_place_the_plan_goes_on_as_it_would_have(lengths, skip, seed):
    r = recipe()
    whole = list(itertools.islice(plan(lengths, r, seed), skip + 20))
    assert [place.number for place, _ in whole] == list(range(skip + 20))
    assert list(itertools.islice(plan(lengths, r, seed, whole[skip][0]), 20)) == whole[skip:]


def test_many_windows_and_epochs(monkeypatch):
    monkeypatch.setattr("modernbert_edu.training.stream.ROWS_IN_WINDOW", 3)
    lengths = [len(d) for d in documents()]
    entries = list(itertools.islice(plan(lengths, recipe(), 0), 200))
    assert max(place.window for place, _ in entries) >= 10 and entries[-1][0].epoch >= 1
    assert list(itertools.islice(plan(lengths, recipe(), 0, entries[57][0]), 50)) == entries[57:107]
    first, second = (one_epoch(lengths, recipe(), 0), one_epoch(lengths, recipe(), 1))
    assert first != second  # another seed, another order


def test_rows_are_full():
    docs = documents(4000)
    rows = one_epoch([len(d) for d in docs], recipe())
    filled = sum(len(docs[i]) for row in rows for i in row) / (len(rows) * 256)
    assert filled > 0.99


def fields_of(m):
    return (m.place, m.input_ids, m.labels, m.tokens, m.masked)


def same(a, b):
    return all(
        torch.equal(x, y) if torch.is_tensor(x) else x == y for x, y in zip(fields_of(a), fields_of(b), strict=True)
    )


def take(stream, n):
    return list(itertools.islice(stream, n))


def test_the_processes_together_see_what_one_sees_alone():
    data = Documents(documents(), TOKENIZER, recipe(), seed=3)
    alone = take(microbatches(data), 24)
    for world in (2, 3, 4):
        shares = [take(microbatches(data, rank=rank, world=world), 24 // world) for rank in range(world)]
        merged = [shares[i % world][i // world] for i in range(24)]
        assert all(map(same, alone, merged))


def test_a_resume_with_another_number_of_processes_goes_on_without_gap_or_overlap():
    data = Documents(documents(), TOKENIZER, recipe(), seed=3)
    alone = take(microbatches(data), 24)
    rank_0_last = take(microbatches(data, rank=0, world=3), 4)[-1]  # 12 microbatches are done, this one is number 9
    assert rank_0_last.place.number == 9
    for world in (1, 2, 4):
        shares = [take(microbatches(data, rank_0_last.place, 12, rank, world), 12 // world) for rank in range(world)]
        merged = sorted(itertools.chain(*shares), key=lambda m: m.place.number)
        assert [m.place.number for m in merged] == list(range(12, 24))
        assert all(map(same, merged, alone[12:]))


def test_workers_change_nothing():
    data = Documents(documents(), TOKENIZER, recipe(), seed=3)
    assert all(map(same, take(microbatches(data), 12), take(microbatches(data, workers=2), 12)))


def test_a_microbatch_is_masked_at_the_rate_and_its_documents_are_whole():
    docs = documents()
    data = Documents(docs, TOKENIZER, recipe(), seed=0)
    for m in take(microbatches(data), 10):
        ordinary = m.tokens - 2 * m.layout.num_documents
        assert m.masked == round(0.3 * ordinary) == int((m.labels != IGNORED).sum())
        true_ids = torch.where(m.labels != IGNORED, m.labels, m.input_ids)
        assert all(part.tolist() in docs for part in true_ids.split(m.layout.lengths))


def test_berts_pairs_come_as_a_padded_rectangle():
    r = recipe("bert-2018")
    pairs = sentence_pairs([list(range(5, 95)) for _ in range(40)], r.length, TOKENIZER, 0)
    m = next(microbatches(Documents(pairs, TOKENIZER, r, seed=0)))
    assert m.input_ids.shape == m.token_type_ids.shape == m.attention_mask.shape and m.layout is None
    assert m.next_labels.shape == (4,) and set(m.next_labels.tolist()) <= {0, 1}
    assert int(m.attention_mask.sum()) == m.tokens and m.token_type_ids[~m.attention_mask].sum() == 0
    labels = {tuple(pair.input_ids): 0 if pair.is_next else 1 for pair in pairs}
    true_ids = torch.where(m.labels != IGNORED, m.labels, m.input_ids)
    for ids, mask, label in zip(true_ids, m.attention_mask, m.next_labels, strict=True):
        assert labels[tuple(ids[mask].tolist())] == label


def test_what_cannot_be_streamed_is_refused():
    with pytest.raises(InputError, match="no documents"):
        Documents([], TOKENIZER, recipe(), 0)
    with pytest.raises(InputError, match="90 tokens, more than the recipe's length, 64"):
        Documents([list(range(90))], TOKENIZER, recipe(), 0)


def test_seeds_have_nothing_in_common():
    seeds = {derived_seed(a, b) for a in range(50) for b in range(50)}
    assert len(seeds) == 2500 and all(0 <= seed < 2**63 for seed in seeds)
    assert Place() == Place(0, 0, 0, 0)
