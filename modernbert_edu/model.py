"""BERT and ModernBERT in one file, read top to bottom: embeddings -> blocks -> encoder -> masked-LM head.

What a configuration can turn, and where it is read:

    positions          learned table added to the embedding | RoPE inside attention        Embeddings, SelfAttention
    norm_placement     norm after the residual sum | before the sublayer                   Block
    bias               in every linear layer and norm | nowhere but in the decoder         everywhere
    mlp                GELU | GeGLU                                                        mlp.py
    attention_pattern  every layer global | "GLL": two of three see a window only          SelfAttention
    unpad              the whole rectangle | real tokens only, on one flat axis            Encoder.forward

Letters: B batch, S padded length, T tokens on the flat axis, D hidden, H heads, K head size, V vocabulary, M masked
tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import attention, choose_backend
from .compiled import CompiledEncoder
from .config import EncoderConfig
from .errors import InputError
from .mlp import build_mlp
from .norms import RESIDUAL, build_norm
from .recompute import in_runs, recompute
from .rope import apply_rope, rotary_tables
from .unpadding import Layout


class Embeddings(nn.Module):
    """Token ids (T,) -> (T, D): tokens, plus learned positions and segments where the configuration has them."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        D = config.hidden_size
        self.tok_embeddings = nn.Embedding(config.vocab_size, D)
        learned = config.positions == "learned"
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, D) if learned else None
        self.type_embeddings = nn.Embedding(config.type_vocab_size, D) if config.type_vocab_size else None
        self.norm = build_norm(config)
        self.drop = nn.Dropout(config.embedding_dropout)

    def forward(self, input_ids: Tensor, position_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:
        x_TD = self.tok_embeddings(input_ids)
        if self.type_embeddings is not None:
            types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
            x_TD = x_TD + self.type_embeddings(types)
        if self.position_embeddings is not None:
            x_TD = x_TD + self.position_embeddings(position_ids)
        return self.drop(self.norm(x_TD))


class SelfAttention(nn.Module):
    """(T, D) -> (T, D). One matrix makes q, k and v; a local layer sees `half_window` keys on each side."""

    def __init__(self, config: EncoderConfig, layer: int):
        super().__init__()
        D = config.hidden_size
        self.num_heads, self.head_size = config.num_attention_heads, config.head_size
        self.window = config.half_window if config.layer_type(layer) == "L" else None
        self.dropout = config.attention_dropout
        self.Wqkv = nn.Linear(D, 3 * D, bias=config.bias)
        self.Wo = nn.Linear(D, D, bias=config.bias)
        self.drop = nn.Dropout(config.attention_output_dropout)

    def forward(self, x_TD: Tensor, layout: Layout, rotary: tuple[Tensor, Tensor] | None, backend: str) -> Tensor:
        return self.rest(self.Wqkv(x_TD), layout, rotary, backend)

    def rest(self, qkv_TD: Tensor, layout: Layout, rotary: tuple[Tensor, Tensor] | None, backend: str) -> Tensor:
        """What follows Wqkv. A local layer's attention is cheap, so it is done again in the backward pass, not kept."""

        def attend(qkv_TD: Tensor) -> Tensor:
            return self.Wo(self.attend(qkv_TD, layout, rotary, backend).flatten(1))

        if self.window is None:
            return self.drop(attend(qkv_TD))
        return self.drop(recompute(attend, qkv_TD, random=self.dropout > 0))

    def attend(self, qkv_TD: Tensor, layout: Layout, rotary: tuple[Tensor, Tensor] | None, backend: str) -> Tensor:
        """(T, 3 D) -> (T, H, K): split into heads, turn q and k to their positions, attend."""
        qkv = qkv_TD.unflatten(-1, (3, self.num_heads, self.head_size))
        q_THK, k_THK, v_THK = qkv.unbind(dim=1)
        if rotary is not None:  # q and k turn alike, so they turn together, as 2 H heads
            turned = apply_rope(qkv[:, :2].flatten(1, 2), *rotary)
            q_THK, k_THK = turned.unflatten(1, (2, self.num_heads)).unbind(dim=1)
        dropout = self.dropout if self.training else 0.0
        return attention(q_THK, k_THK, v_THK, layout, window=self.window, backend=backend, dropout=dropout)


class Block(nn.Module):
    """One layer: attention, then MLP, each inside a residual sum with its norm before or after: (T, D) -> (T, D)."""

    def __init__(self, config: EncoderConfig, layer: int):
        super().__init__()
        # With pre-norm, layer 0 would normalise what the embedding has just normalised; ModernBERT leaves that out.
        first_pre_norm = config.norm_placement == "pre" and layer == 0
        self.attn_norm = nn.Identity() if first_pre_norm else build_norm(config)
        self.attn = SelfAttention(config, layer)
        self.mlp_norm = build_norm(config)
        self.mlp = build_mlp(config)
        self.residual = RESIDUAL[config.norm_placement]

    def forward(self, x_TD: Tensor, layout: Layout, rotary: tuple[Tensor, Tensor] | None, backend: str) -> Tensor:
        attention_rest = lambda qkv: self.attn.rest(qkv, layout, rotary, backend)  # noqa: E731
        x_TD = self.residual(x_TD, self.attn_norm, self.attn.Wqkv, attention_rest)
        return in_runs(lambda x: self.residual(x, self.mlp_norm, self.mlp.Wi, self.mlp.rest), x_TD)


@dataclass
class EncoderOutput:
    last_hidden_state: Tensor  # (B, S, D) for a padded batch, (T, D) on the flat axis
    hidden_states: tuple[Tensor, ...] | None = None  # embedding and each layer's output, where asked for


class Encoder(nn.Module):
    """The stack without a head. `backend` names the attention backend for every layer ("auto": the best at hand).

    With `compile` the layers run as one compiled graph on a flat axis filled up to a multiple of `token_budget` tokens
    (compiled.py says why); the first batch of each multiple takes half a minute.
    """

    def __init__(self, config: EncoderConfig, backend: str = "auto", compile: bool = False, token_budget: int = 1024):
        super().__init__()
        self.config = config
        self.backend = backend
        self.compiled = CompiledEncoder(self, token_budget) if compile else None
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Block(config, i) for i in range(config.num_hidden_layers))
        # Post-norm ends in a norm anyway; in pre-norm the residual sum itself was never normalised.
        self.final_norm = build_norm(config) if config.norm_placement == "pre" else nn.Identity()
        initialise(self, config)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        layout: Layout | None = None,
        token_type_ids: Tensor | None = None,
        output_hidden_states: bool = False,
    ) -> EncoderOutput:
        """(B, S) ids, with an attention mask where there is padding, or (T,) ids with the `layout` that `pack` gives.

        Pad positions of the output are zeros where the configuration unpads, and mean nothing where it does not.
        Raises `InputError` for ids outside the vocabulary, a mask of another shape than the ids, and documents longer
        than a learned position table.
        """
        padded = input_ids.dim() == 2
        layout = make_layout(self.config, input_ids, attention_mask, layout)
        if padded:  # the only gather
            input_ids = layout.gather(input_ids)
            token_type_ids = None if token_type_ids is None else layout.gather(token_type_ids)
        backend, states = self.choose_backend(layout), [] if output_hidden_states else None
        if self.compiled is not None and states is None:
            x_TD = self.compiled(input_ids, layout, token_type_ids, backend)
        else:
            x_TD = self.flat_forward(input_ids, layout, token_type_ids, backend, states)
        if padded:  # the only scatter
            x_TD, states = layout.scatter(x_TD), states and [layout.scatter(x) for x in states]
        return EncoderOutput(x_TD, states and tuple(states))

    def choose_backend(self, layout: Layout) -> str:
        """What "auto" is for this batch, decided once for all layers."""
        if self.backend != "auto":
            return self.backend
        weight = self.embeddings.tok_embeddings.weight
        kind = weight.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
        dropout = self.config.attention_dropout if self.training else 0.0
        return choose_backend(weight.device, dtype, kept_pads=layout.key_mask is not None, dropout=dropout)[0]

    def flat_forward(
        self,
        input_ids: Tensor,
        layout: Layout,
        token_type_ids: Tensor | None = None,
        backend: str = "auto",
        states: list[Tensor] | None = None,
    ) -> Tensor:
        """(T,) ids -> (T, D). Where `states` is a list, the embedding and each layer's output are appended to it."""
        rotary = self.rotary_tables(layout.position_ids)
        x_TD = self.embeddings(input_ids, layout.position_ids, token_type_ids)
        for i, block in enumerate(self.layers):
            if states is not None:
                states.append(x_TD)
            x_TD = block(x_TD, layout, rotary[self.config.layer_type(i)], backend)
        if states is not None:
            states.append(x_TD)
        return self.final_norm(x_TD)

    def rotary_tables(self, position_ids: Tensor) -> dict[str, tuple[Tensor, Tensor] | None]:
        """The cos and sin tables for global ("G") and local ("L") layers, which turn with different thetas."""
        c = self.config
        if c.positions == "learned":
            return {"G": None, "L": None}
        thetas = {"G": c.global_rope_theta, "L": c.local_rope_theta}
        return {kind: rotary_tables(position_ids, thetas[kind], c.head_size) for kind in set(c.layer_types)}


@dataclass
class MaskedLMOutput:
    """`loss` is the mean cross-entropy in nats over the M masked tokens, `masked_logits` their logits, (M, V).

    `logits` for every token, (B, S, V) or (T, V), are computed when first asked for: during training nobody looks at
    the other 70 %, and the product with the vocabulary is the largest of the model.
    """

    last_hidden_state: Tensor
    loss: Tensor | None
    masked_logits: Tensor | None
    compute_logits: Callable[[], Tensor] = field(repr=False)

    @cached_property
    def logits(self) -> Tensor:
        return self.compute_logits()


class PredictionHead(nn.Module):
    """dense -> GELU -> norm: (M, D) -> (M, D). BERT's and ModernBERT's alike."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size, bias=config.bias)
        self.norm = build_norm(config)

    def forward(self, x_MD: Tensor) -> Tensor:
        return self.norm(F.gelu(self.dense(x_MD)))


class MaskedLM(nn.Module):
    """The encoder with the masked-language-model head. The decoder's matrix is the embedding's, its bias its own."""

    def __init__(self, config: EncoderConfig, backend: str = "auto", compile: bool = False, token_budget: int = 1024):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config, backend, compile, token_budget)
        self.head = PredictionHead(config)
        self.decoder_bias = nn.Parameter(torch.zeros(config.vocab_size))
        initialise(self.head, config)

    def decode(self, x_MD: Tensor) -> Tensor:
        """Hidden states (M, D) -> logits (M, V), with the embedding's matrix as the decoder's."""
        return F.linear(self.head(x_MD), self.encoder.embeddings.tok_embeddings.weight, self.decoder_bias)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        layout: Layout | None = None,
        labels: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> MaskedLMOutput:
        """As `Encoder.forward`; `labels` has the shape of the ids, with -100 where nothing is to be predicted."""
        if labels is not None and labels.shape != input_ids.shape:
            raise InputError(f"labels {tuple(labels.shape)} must have the shape of the ids {tuple(input_ids.shape)}")
        hidden = self.encoder(input_ids, attention_mask, layout, token_type_ids).last_hidden_state
        loss = masked_logits = None
        if labels is not None:
            # The head runs on the masked positions only: at 30 % masking that is 30 % of the largest product.
            chosen = (labels.flatten() != -100).nonzero().flatten()
            if chosen.numel() == 0:
                raise InputError("labels are -100 everywhere, so there is nothing to learn; mask some tokens first")
            masked_logits = self.decode(hidden.flatten(0, -2)[chosen])
            loss = F.cross_entropy(masked_logits.float(), labels.flatten()[chosen])
        return MaskedLMOutput(hidden, loss, masked_logits, lambda: self.decode(hidden))


def make_layout(
    config: EncoderConfig, input_ids: Tensor, attention_mask: Tensor | None, layout: Layout | None
) -> Layout:
    """The layout of what a model was called with, after checking that the pieces fit."""
    _check_ids(config, input_ids)
    if input_ids.dim() == 1:
        layout = Layout.from_lengths([input_ids.shape[0]], input_ids.device) if layout is None else layout
        if layout.num_tokens != input_ids.shape[0]:
            raise InputError(f"the layout has {layout.num_tokens} tokens and input_ids {input_ids.shape[0]}")
        if attention_mask is not None:
            raise InputError("flat ids have no pads: give a layout (from pack) instead of an attention_mask")
    elif input_ids.dim() == 2:
        if layout is not None:
            raise InputError("give (B, S) ids with an attention_mask, or flat (T,) ids with a layout, not a mixture")
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        if mask.shape != input_ids.shape:
            raise InputError(
                f"attention_mask {tuple(mask.shape)} must have the shape of input_ids {tuple(input_ids.shape)}"
            )
        layout = Layout.from_mask(mask, unpad=config.unpad)
    else:
        raise InputError(f"input_ids must be (B, S) or flat (T,), not {tuple(input_ids.shape)}")
    if config.positions == "learned" and layout.max_seqlen > config.max_position_embeddings:
        raise InputError(
            f"a sequence of {layout.max_seqlen} tokens is longer than the {config.max_position_embeddings} learned "
            "positions; cut it, or use a model with RoPE"
        )
    return layout


def _check_ids(config: EncoderConfig, input_ids: Tensor) -> None:
    """Ids must be in the vocabulary. On a GPU the check would wait for the device, so it is left to the kernel."""
    if input_ids.is_floating_point() or input_ids.dtype == torch.bool:
        raise InputError(f"input_ids must be whole numbers, not {input_ids.dtype}")
    if input_ids.numel() == 0:
        raise InputError("input_ids is empty")
    if input_ids.device.type == "cpu" and not torch.compiler.is_compiling():
        low, high = int(input_ids.min()), int(input_ids.max())
        if low < 0 or high >= config.vocab_size:
            raise InputError(
                f"token id {low if low < 0 else high} is outside the vocabulary of {config.vocab_size}; "
                "was the text encoded with another model's tokenizer?"
            )


@torch.no_grad()
def initialise(module: nn.Module, config: EncoderConfig) -> None:
    """Random weights in place, drawn from torch's global generator. Norms start at 1, biases at 0.

    "normal": N(0, 0.02) for every matrix (BERT). "megatron": normal cut off at two sigmas, and the matrices that write
    into the residual stream smaller by sqrt(2 layers), so that its variance does not grow with depth (ModernBERT's
    full_megatron; paper, table 3).
    """
    sigma, deep = config.initializer_range, config.initializer_range / math.sqrt(2 * config.num_hidden_layers)
    for name, parameter in module.named_parameters():
        if parameter.dim() < 2:
            parameter.fill_(1.0 if name.endswith("norm.weight") else 0.0)
        elif config.init == "normal":
            nn.init.normal_(parameter, std=sigma)
        else:
            std = deep if name.endswith(("Wo.weight", "dense.weight")) else sigma
            nn.init.trunc_normal_(parameter, std=std, a=-2 * std, b=2 * std)
