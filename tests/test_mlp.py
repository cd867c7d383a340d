"""The two MLPs against their equations."""

import math

import torch

from modernbert_edu import EncoderConfig
from modernbert_edu.mlp import GeGLU, GeluMLP

SIZES = dict(vocab_size=50, hidden_size=12, num_attention_heads=2)


def gelu(x):
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def test_gelu_mlp():
    mlp = GeluMLP(EncoderConfig(**SIZES, intermediate_size=30)).double()
    x = torch.randn(5, 12, dtype=torch.float64)
    inner = gelu(x @ mlp.Wi.weight.T + mlp.Wi.bias)
    torch.testing.assert_close(mlp(x), inner @ mlp.Wo.weight.T + mlp.Wo.bias)


def test_geglu_activates_the_first_half_and_gates_with_the_second():
    mlp = GeGLU(EncoderConfig(**SIZES, intermediate_size=20, mlp="geglu", bias=False)).double()
    x = torch.randn(5, 12, dtype=torch.float64)
    value, gate = x @ mlp.Wi.weight[:20].T, x @ mlp.Wi.weight[20:].T
    torch.testing.assert_close(mlp(x), (gelu(value) * gate) @ mlp.Wo.weight.T)
    swapped = (value * gelu(gate)) @ mlp.Wo.weight.T
    assert (mlp(x) - swapped).abs().max() > 1e-4


def test_two_thirds_of_the_width_is_as_many_parameters():
    gelu_mlp = GeluMLP(EncoderConfig(**SIZES, intermediate_size=48, bias=False))
    gated = GeGLU(EncoderConfig(**SIZES, intermediate_size=32, mlp="geglu", bias=False))
    count = [sum(p.numel() for p in mlp.parameters()) for mlp in (gelu_mlp, gated)]
    assert count[0] == count[1]
