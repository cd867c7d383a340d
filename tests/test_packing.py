"""Packing: nothing lost, nothing over the budget, fast equal to plain, and more than 99 % full where it matters."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modernbert_edu import InputError, pack
from modernbert_edu.packing import best_fit, best_fit_by_loops, fullness


@settings(max_examples=150, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 50), max_size=60), budget=st.integers(50, 120), longest_first=st.booleans()
)  # fmt: skip
def test_fast_equals_plain_and_nothing_is_lost(lengths, budget, longest_first):
    rows = best_fit(lengths, budget, longest_first)
    assert rows == best_fit_by_loops(lengths, budget, longest_first)
    assert sorted(document for row in rows for document in row) == list(range(len(lengths)))
    assert all(sum(lengths[document] for document in row) <= budget for row in rows)


@pytest.mark.parametrize("mean, std, longest, budget", [(256, 64, 512, 8192), (4096, 1024, 8192, 98_304)])
@pytest.mark.parametrize("longest_first", [True, False])
def test_full_on_the_papers_lengths(mean, std, longest, budget, longest_first):
    drawn = mean + std * torch.randn(8192, generator=torch.Generator().manual_seed(0))
    lengths = drawn.round().clamp(16, longest).int().tolist()
    assert fullness(best_fit(lengths, budget, longest_first), lengths, budget) > 0.99


def test_full_on_the_python_corpus():
    from modernbert_edu.data.corpus import load_corpus

    texts = load_corpus("python", max_characters=3_000_000).train["text"]
    lengths = []
    for text in texts:  # about four characters a token, cut at 1,024 tokens
        tokens = len(text) // 4
        lengths += [1024] * (tokens // 1024) + ([tokens % 1024] if tokens % 1024 else [])
    assert fullness(best_fit(lengths, 1024), lengths, 1024) > 0.99


def test_a_row_is_packed_so_that_no_document_sees_another():
    documents = [[1] * 5, [2] * 3, [3] * 2]
    rows = best_fit([len(d) for d in documents], 8)
    assert rows == [[0, 1], [2]]
    ids, layout = pack([documents[i] for i in rows[0]])
    assert ids.tolist() == [1] * 5 + [2] * 3 and layout.lengths == (5, 3)


def test_bad_input():
    with pytest.raises(InputError, match="document 1 has 9 tokens, more than the budget of 8"):
        best_fit([3, 9], 8)
    with pytest.raises(InputError, match="at least 1"):
        best_fit([1], 0)
    with pytest.raises(InputError, match="document 0 has -1 tokens"):
        best_fit([-1], 8)
