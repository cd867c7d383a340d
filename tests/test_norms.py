"""Norms and their placement."""

import torch
from torch import nn

from modernbert_edu import Encoder, EncoderConfig
from modernbert_edu.norms import build_norm, layer_norm_reference, post_norm, pre_norm

SIZES = dict(vocab_size=50, hidden_size=16, num_attention_heads=2, intermediate_size=8, num_hidden_layers=4)


def test_reference_equals_torch():
    x = torch.randn(7, 16, dtype=torch.float64)
    for bias in (True, False):
        norm = build_norm(EncoderConfig(**SIZES, bias=bias)).double()
        for parameter in norm.parameters():
            nn.init.normal_(parameter)
        torch.testing.assert_close(norm(x), layer_norm_reference(x, norm.weight, norm.bias, norm.eps))
        assert (norm.bias is not None) == bias


def test_placement():
    x, norm = torch.randn(3, 16), nn.LayerNorm(16)
    torch.testing.assert_close(post_norm(x, norm, torch.sin, torch.exp), norm(x + x.sin().exp()))
    torch.testing.assert_close(pre_norm(x, norm, torch.sin, torch.exp), x + norm(x).sin().exp())


def test_pre_norm_leaves_the_residual_stream_a_plain_sum():
    """With every sublayer's output zeroed, a pre-norm stack is the identity up to its final norm."""
    encoder = Encoder(EncoderConfig(**SIZES, norm_placement="pre")).eval()
    for block in encoder.layers:
        for linear in (block.attn.Wo, block.mlp.Wo):
            nn.init.zeros_(linear.weight)
    states = encoder(torch.arange(10), output_hidden_states=True).hidden_states
    assert all(torch.equal(states[0], state) for state in states)


def test_layer_0_skips_its_attention_norm_in_pre_norm_only():
    pre = Encoder(EncoderConfig(**SIZES, norm_placement="pre"))
    post = Encoder(EncoderConfig(**SIZES, norm_placement="post"))
    assert isinstance(pre.layers[0].attn_norm, nn.Identity) and isinstance(pre.layers[1].attn_norm, nn.LayerNorm)
    assert isinstance(pre.final_norm, nn.LayerNorm)
    assert isinstance(post.layers[0].attn_norm, nn.LayerNorm) and isinstance(post.final_norm, nn.Identity)
