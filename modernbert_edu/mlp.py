"""The MLP of a layer: BERT's GELU and ModernBERT's GeGLU.

GELU   (Devlin et al. 2019):            Wo gelu(Wi x)
GeGLU  (Shazeer 2020, equation 6):      Wo (gelu(a) * b)   with  [a, b] = Wi x

A gated MLP has three matrices instead of two, so at 2/3 of the width it has as many parameters. Shapes: T tokens,
D hidden, I intermediate.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .config import EncoderConfig
from .recompute import recompute


class GeluMLP(nn.Module):
    """(T, D) -> (T, I) -> (T, D), with the exact (erf) GELU."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.Wi = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.bias)
        self.Wo = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.bias)
        self.drop = nn.Dropout(config.mlp_dropout)

    def forward(self, x_TD: Tensor) -> Tensor:
        return self.rest(self.Wi(x_TD))

    def rest(self, h_TI: Tensor) -> Tensor:
        """What follows Wi; its activation is made again in the backward pass, not kept."""
        return self.drop(recompute(lambda h: self.Wo(F.gelu(h)), h_TI))


class GeGLU(nn.Module):
    """(T, D) -> (T, 2 I) -> (T, I) -> (T, D): one half goes through the GELU and is scaled by the other, the gate."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.Wi = nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=config.bias)
        self.Wo = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.bias)
        self.drop = nn.Dropout(config.mlp_dropout)

    def forward(self, x_TD: Tensor) -> Tensor:
        return self.rest(self.Wi(x_TD))

    def rest(self, h_TI: Tensor) -> Tensor:
        """What follows Wi; the activated and gated halves are made again in the backward pass, not kept."""
        return self.drop(recompute(lambda h: self.Wo(gated_gelu(h)), h_TI))


def gated_gelu(h_TI: Tensor) -> Tensor:
    """(T, 2 I) -> (T, I): gelu(value) * gate. The *first* half is activated, as in the published weights."""
    value, gate = h_TI.chunk(2, dim=-1)
    return F.gelu(value) * gate


def build_mlp(config: EncoderConfig) -> nn.Module:
    return GeGLU(config) if config.mlp == "geglu" else GeluMLP(config)
