"""Unpadding: the layout says what the mask said, and gather and scatter undo each other."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modernbert_edu import InputError, Layout, pack

MASKS = st.integers(1, 5).flatmap(
    lambda B: st.integers(1, 9).flatmap(
        lambda S: st.lists(st.lists(st.booleans(), min_size=S, max_size=S), min_size=B, max_size=B)
    )
)


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(0, 40), min_size=1, max_size=8))
def test_layout_of_lengths_by_plain_loops(lengths):
    layout = Layout.from_lengths(lengths)
    cu, positions, documents = [0], [], []
    for i, n in enumerate(lengths):
        cu.append(cu[-1] + n)
        positions += range(n)
        documents += [i] * n
    assert layout.cu_seqlens.tolist() == cu and layout.cu_seqlens.dtype == torch.int32
    assert layout.position_ids.tolist() == positions
    assert layout.document_ids.tolist() == documents
    assert layout.max_seqlen == max(lengths) and layout.lengths == tuple(lengths)
    assert layout.num_tokens == sum(lengths) and layout.num_documents == len(lengths)


@settings(max_examples=60, deadline=None)
@given(rows=MASKS)
def test_gather_and_scatter_undo_each_other(rows):
    mask = torch.tensor(rows)
    layout = Layout.from_mask(mask)
    x = torch.arange(mask.numel() * 2, dtype=torch.float32).view(*mask.shape, 2) + 1
    flat = layout.gather(x)
    assert torch.equal(flat, x[mask])
    assert torch.equal(layout.scatter(flat), x * mask[..., None])


@settings(max_examples=30, deadline=None)
@given(rows=MASKS.filter(lambda rows: all(any(row) for row in rows)))
def test_rectangle_keeps_everything(rows):
    mask = torch.tensor(rows)
    layout = Layout.from_mask(mask, unpad=False)
    B, S = mask.shape
    assert layout.lengths == (S,) * B and layout.num_tokens == B * S
    assert layout.position_ids.tolist() == list(range(S)) * B
    assert (layout.key_mask is None) == bool(mask.all())
    if layout.key_mask is not None:
        assert torch.equal(layout.key_mask.view(B, S), mask)


def test_scatter_has_a_gradient():
    layout = Layout.from_mask(torch.tensor([[1, 1, 0], [1, 0, 0]]))
    x = torch.randn(3, 2, requires_grad=True)
    layout.scatter(x).sum().backward()
    assert torch.equal(x.grad, torch.ones(3, 2))


def test_pack_lays_documents_end_to_end():
    ids, layout = pack([[5, 6, 7], [], [8]])
    assert ids.tolist() == [5, 6, 7, 8] and layout.cu_seqlens.tolist() == [0, 3, 3, 4]


def test_moving_drops_what_was_cached():
    layout = Layout.from_mask(torch.tensor([[1, 0]]))
    layout.plans["something"] = 1
    moved = layout.to("cpu")
    assert not moved.plans and moved.shape == (1, 2) and torch.equal(moved.cu_seqlens, layout.cu_seqlens)


def test_bad_input():
    with pytest.raises(InputError, match="nothing to pack"):
        pack([[], []])
    with pytest.raises(InputError, match="cannot have -2 tokens"):
        Layout.from_lengths([3, -2])
    with pytest.raises(InputError, match=r"must have the shape \(B, S\), not \(4,\)"):
        Layout.from_mask(torch.ones(4))
    with pytest.raises(InputError, match="row 1 of attention_mask has no real token"):
        Layout.from_mask(torch.tensor([[1, 1], [0, 0]]), unpad=False)


def test_offsets_as_flash_attention_takes_them():
    layout = Layout.from_cu_seqlens(torch.tensor([0, 3, 3, 7], dtype=torch.int32), num_tokens=7, max_seqlen=4)
    assert layout.lengths == (3, 0, 4) and layout.position_ids.tolist() == [0, 1, 2, 0, 1, 2, 3]


@pytest.mark.parametrize(
    "offsets, facts, said",
    [
        ([1, 3], {}, "must begin at 0"),
        ([0], {}, "at least one document's end"),
        ([0, 5, 3], {}, "must not fall, but goes from 5 to 3"),
        ([0, 5], dict(num_tokens=6), "ends at 5, but there are 6 tokens"),
        ([0, 5], dict(max_seqlen=4), "a document has 5 tokens, more than max_seqlen, 4"),
    ],
)
def test_bad_offsets_are_refused(offsets, facts, said):
    with pytest.raises(InputError, match=said):
        Layout.from_cu_seqlens(torch.tensor(offsets), **facts)
