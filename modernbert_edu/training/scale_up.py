"""A larger model that begins with a smaller one's weights: tiling in width, repeated layers in depth.

    tile                 a vector or matrix, repeated until it fills a larger shape
    depth_map            which old layer each new one copies
    matched_depth_map    the same within each attention type, so that no layer changes its type
    grow, grow_folder    the whole model

Center tiling (paper, appendix A.2, and the published code): the old tensor stands in the middle of the new one, at the
offset (new - old) // 2, and its rows and columns go on periodically to both sides, around the end. "edge" begins in the
corner instead. Nothing is rescaled, so the grown model is a start, not the same function.

Letters: D hidden, H heads, K head size, I intermediate, V vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoint import load, save
from ..config import EncoderConfig
from ..errors import InputError
from ..model import Encoder, MaskedLM

METHODS = ("center", "edge")
SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
# Beside the sizes, what does not change what the weights mean: how to start, how to train, how to compute.
FREE = ("init", "initializer_range", "embedding_dropout", "attention_dropout", "attention_output_dropout",
        "mlp_dropout", "unpad")  # fmt: skip
SWITCHES = ("positions", "norm_placement", "bias", "mlp", "attention_pattern")


# ---- width -----------------------------------------------------------------------------------------------------------


def sources(old: int, new: int, method: str = "center") -> Tensor:
    """Which of `old` places each of `new` places copies: (new,) int64, the period `old` going on around the end.

    Raises `InputError` where `new` is smaller, or for a method other than "center" and "edge".
    """
    if method not in METHODS:
        raise InputError(f"method {method!r} does not exist; tile from the {' or the '.join(METHODS)}")
    if new < old:
        raise InputError(f"tiling enlarges: {old} places cannot become {new}")
    offset = (new - old) // 2 if method == "center" else 0
    return (torch.arange(new) - offset) % old


def tile(x: Tensor, shape: Sequence[int], method: str = "center") -> Tensor:
    """A vector or matrix repeated until it has `shape`, for example (2, 2) -> (4, 4) (paper, appendix A.2).

    "center" puts one whole copy at the offset (new - old) // 2 of each axis, "edge" at 0; the rest goes on
    periodically. Raises `InputError` for another number of axes than 1 or 2, or a shape that is smaller somewhere.
    """
    shape = tuple(shape)
    if x.dim() not in (1, 2) or len(shape) != x.dim() or 0 in x.shape:
        raise InputError(f"a vector or a matrix can be tiled, to as many axes; not {tuple(x.shape)} to {shape}")
    return _pick(x, [sources(old, new, method) for old, new in zip(x.shape, shape, strict=True)])


def head_sources(old: EncoderConfig, new: EncoderConfig, method: str = "center") -> Tensor:
    """`sources` for an axis of H heads of K numbers each: (new H K,). Every new head copies one old head.

    The heads are tiled, not the numbers: an offset that would cut a head is thereby rounded down to whole heads. From
    base to large, 768 -> 1,024, it is 2 heads of 64, which is (1,024 - 768) // 2 exactly. Where heads get wider, the
    numbers of a head are stretched (0 0 1 1 ...) rather than tiled: that keeps RoPE's halves, and each pair next to the
    speed that it turned at.
    """
    K_old, K_new = old.head_size, new.head_size
    heads_H = sources(old.num_attention_heads, new.num_attention_heads, method)
    inside_K = torch.arange(K_new) * K_old // K_new
    return (heads_H[:, None] * K_old + inside_K).flatten()


def _pick(x: Tensor, axes: Sequence[Tensor]) -> Tensor:
    for axis, index in enumerate(axes):
        x = x.index_select(axis, index.to(x.device))
    return x


def _axes(old: EncoderConfig, new: EncoderConfig, method: str) -> dict[str, tuple[Tensor, ...]]:
    """{end of a parameter's name: sources for each of its axes}; a bias and a norm have the first axis alone."""
    D, I = (sources(getattr(old, s), getattr(new, s), method) for s in ("hidden_size", "intermediate_size"))  # noqa: E741
    HK = head_sources(old, new, method)
    qkv = torch.cat([HK + part * old.hidden_size for part in range(3)])  # Q, K and V apart, each with its own heads
    wi = torch.cat([I, I + old.intermediate_size]) if old.mlp == "geglu" else I  # value and gate apart
    return {
        "attn.Wqkv": (qkv, D),
        "attn.Wo": (D, HK),  # it reads what the heads of V wrote, so its columns follow them
        "mlp.Wi": (wi, D),
        "mlp.Wo": (D, I),
        "head.dense": (D, D),
        "norm": (D,),
        "tok_embeddings": (torch.arange(old.vocab_size), D),
        "position_embeddings": (torch.arange(old.max_position_embeddings), D),
        "type_embeddings": (torch.arange(old.type_vocab_size), D),
        "decoder_bias": (torch.arange(old.vocab_size),),
    }


# ---- depth -----------------------------------------------------------------------------------------------------------


def depth_map(old_layers: int, new_layers: int) -> list[int]:
    """Which old layer each new one copies: round(i * old / new), halves to the even number, as Python rounds.

    22 -> 28 repeats the layers 2, 6, 9, 13, 16 and 20, as the published code does. Raises `InputError` where layers
    would become fewer.
    """
    if not 1 <= old_layers <= new_layers:
        raise InputError(f"{old_layers} layers cannot grow to {new_layers}; layers are only added")
    return [min(round(i * old_layers / new_layers), old_layers - 1) for i in range(new_layers)]


def matched_depth_map(old: EncoderConfig, new: EncoderConfig) -> list[int]:
    """As `depth_map`, but global layers copy global ones and local layers local ones: each type is a stack of its own.

    Within a type the order is kept. Over both it cannot be: GLLGLLG changes its type more often than GLLG, so a map
    that never steps back would run out of source layers. Raises `InputError` where the old model lacks a type.
    """
    copied = [0] * new.num_hidden_layers
    for kind in set(new.layer_types):
        mine, theirs = ([i for i, letter in enumerate(c.layer_types) if letter == kind] for c in (old, new))
        if not mine:
            name = {"G": "global", "L": "local"}[kind]
            raise InputError(f"the small model has no {name} layer that the {name} layers of the large one could copy")
        for place, source in zip(theirs, depth_map(len(mine), len(theirs)), strict=True):
            copied[place] = mine[source]
    return copied


def inherited_types(old: EncoderConfig, new: EncoderConfig, copied: Sequence[int]) -> int:
    """How many new layers copy a layer of the other attention type: 12 of 28 for the published 22 -> 28."""
    return sum(new.layer_type(i) != old.layer_type(source) for i, source in enumerate(copied))


# ---- the model -------------------------------------------------------------------------------------------------------


def check_growth(old: EncoderConfig, new: EncoderConfig) -> None:
    """Raise `InputError` unless `new` is `old` with larger sizes: same vocabulary, same switches, nothing smaller."""
    if new.vocab_size != old.vocab_size:
        raise InputError(
            f"the vocabulary has {old.vocab_size:,} ids and must keep them, not become {new.vocab_size:,}; "
            f"set vocab_size={old.vocab_size}"
        )
    for name, (mine, theirs) in old.differences(new).items():
        rope_length = name == "max_position_embeddings" and old.positions == "rope"  # no weights hang on it
        if name not in SIZES + FREE and not rope_length:
            raise InputError(f"only sizes may grow, but {name} is {mine!r} and would become {theirs!r}; keep it")
    sizes = (*SIZES, "head_size")
    for name in sizes:
        if getattr(new, name) < getattr(old, name):
            raise InputError(f"{name} would shrink from {getattr(old, name)} to {getattr(new, name)}; growth enlarges")
    if all(getattr(new, name) == getattr(old, name) for name in sizes):
        raise InputError("both models have the same sizes, so there is nothing to grow; give a larger configuration")


def layers_copied(old: EncoderConfig, new: EncoderConfig, match_attention: bool = False) -> list[int]:
    """The map that `grow` uses: `matched_depth_map` or `depth_map`."""
    if match_attention:
        return matched_depth_map(old, new)
    return depth_map(old.num_hidden_layers, new.num_hidden_layers)


@torch.no_grad()
def grow(
    model: MaskedLM | Encoder,
    config: EncoderConfig,
    *,
    method: str = "center",
    match_attention: bool = False,
    tile_final_norm: bool = False,
) -> MaskedLM | Encoder:
    """A new model of `config`, every weight of which is copied from `model`: on its device, in its dtype, not trained.

    Q, K, V and the two halves of GeGLU are tiled apart, heads stay whole (`head_sources`), layers are repeated
    (`depth_map`). As in the published code the final norm stays ones, unless `tile_final_norm`; and a layer that copies
    pre-norm's layer 0, which has no attention norm, gets one of ones. `match_attention` is this package's own: see
    `matched_depth_map`. Raises `InputError` where `check_growth` does.
    """
    old = model.config
    check_growth(old, config)
    axes, copied = _axes(old, config, method), layers_copied(old, config, match_attention)
    weight = next(model.parameters())
    grown = type(model)(config).to(weight.device, weight.dtype)
    state = model.state_dict()
    for name, parameter in grown.named_parameters():
        source = re.sub(r"layers\.(\d+)\.", lambda found: f"layers.{copied[int(found[1])]}.", name)
        left_out = "final_norm" in name and not tile_final_norm
        if source in state and not left_out:
            parameter.copy_(_pick(state[source], _axes_of(name, axes)[: parameter.dim()]))
    return grown


def _axes_of(name: str, axes: dict[str, tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """The entry for "encoder.layers.3.attn.Wqkv.weight" is "attn.Wqkv"; for whatever ends in "norm" it is "norm"."""
    module = re.sub(r"\.(weight|bias)$", "", name)
    return next(found for end, found in axes.items() if module.endswith(end))


def grow_folder(source: str | Path, target: str | EncoderConfig, out: str | Path, **options) -> Path:
    """Open a saved model, grow it, save it with the same tokenizer; one printed line says what came from where.

    `target` is a preset's name or a configuration. Its sizes count (hidden, layers, heads, intermediate), all else is
    the source's, its vocabulary first of all. `options` are those of `grow`. Raises `InputError` for a preset of the
    other architecture, for an `out` that is the source, and where `load`, `grow` or `save` do.
    """
    model, tokenizer = load(source)
    old = model.config
    wanted = EncoderConfig.preset(target) if isinstance(target, str) else target
    for switch in SWITCHES:
        mine, theirs = getattr(old, switch), getattr(wanted, switch)
        if mine != theirs:
            name = target if isinstance(target, str) else "the configuration"
            raise InputError(f"{source} has {switch}={mine!r} and {name} {theirs!r}; grow to a model of the same kind")
    if Path(source).expanduser().resolve() == Path(out).expanduser().resolve():
        raise InputError(f"{out} is the model to grow from; choose another folder for the grown one")
    new = old.replace(**{name: getattr(wanted, name) for name in SIZES})
    grown = grow(model, new, **options)
    folder = save(grown, tokenizer, out)
    print(describe(old, new, **options))
    return folder


def describe(
    old: EncoderConfig,
    new: EncoderConfig,
    *,
    method: str = "center",
    match_attention: bool = False,
    tile_final_norm: bool = False,
) -> str:
    """One line: the sizes before and after, and what came from where."""
    copied = layers_copied(old, new, match_attention)
    sizes = [("hidden", "hidden_size"), ("heads", "num_attention_heads"), ("MLP", "intermediate_size")]
    width = ", ".join(f"{word} {getattr(old, name):,} -> {getattr(new, name):,}" for word, name in sizes)
    norm = ""
    if old.norm_placement == "pre":
        norm = f"; final norm {'tiled' if tile_final_norm else 'left at ones'}"
    return (
        f"grown from {old.num_parameters():,} to {new.num_parameters():,} parameters: {width}, "
        f"tiled from the {method}; layers {old.num_hidden_layers} -> {new.num_hidden_layers}, copied from {copied}, "
        f"{inherited_types(old, new, copied)} of another attention type{norm}"
    )
