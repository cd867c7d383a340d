"""The formulas against torch's own counter, and against brute force."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from modernbert_edu.attention import attention, attention_mask
from modernbert_edu.config import EncoderConfig
from modernbert_edu.errors import InputError
from modernbert_edu.measure.flops import Flops, forward_flops, local_pairs_in_blocks, pairs_in_window, train_flops
from modernbert_edu.model import MaskedLM
from modernbert_edu.unpadding import Layout

SMALL = dict(vocab_size=96, hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=24)


def counted(config, lengths, backend, padded_to):
    """(forward, backward, masked tokens) as torch counts them, with attention as plain matrix products."""
    ids = torch.randint(1, config.vocab_size, (len(lengths), padded_to))
    mask = (torch.arange(padded_to) < torch.tensor(lengths)[:, None]).long()
    labels = ids.masked_fill((mask == 0) | (torch.arange(padded_to) % 3 != 0), -100)
    model = MaskedLM(config, backend)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        loss = model(ids, mask, labels=labels).loss
        forward = counter.get_total_flops()
        loss.backward()
    return forward, counter.get_total_flops() - forward, int((labels != -100).sum())


def small(name, **changes):
    return EncoderConfig.preset(name, **{**SMALL, "pad_token_id": 0, **changes})


@pytest.mark.parametrize("name", ["bert-tiny", "modernbert-tiny"])
@pytest.mark.parametrize("changes", [{}, {"mlp": "geglu"}, {"mlp": "gelu", "bias": True}])
def test_linear_layers_and_head_equal_what_torch_counts(name, changes):
    config = small(name, attention_pattern="G", **changes)
    forward, _, masked = counted(config, [40], "eager", 40)
    formula = forward_flops(config, [40], masked=masked)
    assert formula.attention_local == 0
    assert formula.total == forward


@pytest.mark.parametrize("name", ["bert-tiny", "modernbert-tiny"])
def test_padded_and_unpadded_batches_equal_what_torch_counts(name):
    """BERT computes 3 x 50 tokens, ModernBERT 20 + 50 + 7; with sdpa no pair across documents is computed."""
    config = small(name, attention_pattern="G")
    lengths = [20, 45, 7]
    forward, backward, masked = counted(config, lengths, "sdpa", 50)
    formula = forward_flops(config, lengths, masked=masked, padded_to=50)
    assert formula.total == forward
    assert train_flops(formula) == forward + backward


def test_blocks_of_local_layers_equal_what_torch_counts():
    config = small("modernbert-tiny", local_window=16)  # layers G L L G
    lengths = [100, 30, 70]
    forward, _, masked = counted(config, lengths, "sdpa", 100)
    formula = forward_flops(config, lengths, masked=masked)
    computed = 2 * 4 * config.hidden_size * local_pairs_in_blocks(lengths, config.half_window)
    assert formula.total - formula.attention_local + computed == forward
    assert computed > formula.attention_local


def test_blocks_are_counted_as_attention_chooses_them():
    for lengths, window in [([5, 65], 64), ([66, 3], 64), ([64], 64), ([200], 3)]:
        layout = Layout.from_lengths(lengths)
        q = torch.randn(layout.num_tokens, 1, 2)
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            attention(q, q, q, layout, window=window, backend="sdpa")
        assert counter.get_total_flops() == 2 * 2 * 2 * local_pairs_in_blocks(lengths, window)


@given(st.integers(0, 40), st.integers(0, 45))
def test_pairs_in_a_window_equal_the_mask(n, window):
    assert pairs_in_window(n, window) == int(attention_mask(Layout.from_lengths([n]), window).sum())


def test_the_parts_of_base_size_models_by_hand():
    """ModernBERT-base has 110.3 million parameters in the matrices of its layers (22 x 6.5 x 768^2 + ...)."""
    config = EncoderConfig.preset("modernbert-base")
    matrices = 22 * (4 * 768 * 768 + 3 * 768 * 1152)
    flops = forward_flops(config, [8192], masked=100)
    assert flops == Flops(
        linear=2 * matrices * 8192,
        attention_global=8 * 4 * 768 * 8192**2,
        attention_local=14 * 4 * 768 * (8192 * 129 - 64 * 65),
        head=2 * 100 * (768 * 768 + 768 * 50_368),
    )
    assert flops.total == flops.linear + flops.attention_global + flops.attention_local + flops.head
    assert train_flops(flops) == 3 * flops.total


def test_padding_costs_bert_and_not_modernbert():
    bert, modern = EncoderConfig.preset("bert-base"), EncoderConfig.preset("modernbert-base")
    assert forward_flops(bert, [100, 512]) == forward_flops(bert, [512, 512])
    assert forward_flops(bert, [100, 200], padded_to=512) == forward_flops(bert, [512, 512])
    assert forward_flops(modern, [100, 200], padded_to=512) == forward_flops(modern, [100, 200])
    assert forward_flops(modern, [100, 512]).linear * 1024 == forward_flops(modern, [512, 512]).linear * 612


def test_alternating_attention_saves_nothing_up_to_65_tokens():
    alternating = EncoderConfig.preset("modernbert-base")
    full = alternating.replace(attention_pattern="G")
    assert forward_flops(alternating, [65]).total == forward_flops(full, [65]).total
    assert forward_flops(alternating, [66]).total < forward_flops(full, [66]).total


def test_without_masked_tokens_there_is_no_head():
    assert forward_flops(EncoderConfig(), [10]).head == 0


@pytest.mark.parametrize(
    "lengths, padded_to, message",
    [
        ([], None, "at least one document"),
        ([3, -1], None, "none shorter than 0"),
        ([100], 99, "shorter than the longest"),
    ],
)
def test_impossible_lengths_are_refused(lengths, padded_to, message):
    with pytest.raises(InputError, match=message):
        forward_flops(EncoderConfig(), lengths, padded_to=padded_to)
