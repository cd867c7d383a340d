"""Checks of 03_prenorm_and_biases."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ...config import EncoderConfig
from .machinery import check, compare, compare_number

Step = Callable[[Tensor], Tensor]


@check
def check_pre_norm_block(fn) -> str:
    """`fn(x_TD, attn_norm, attn, mlp_norm, mlp) -> (T, D)`: sublayers read normalised input, the stream is a sum."""
    cases = [(4, 8), (1, 6), (5, 3)]
    for T, D in cases:
        x = 2 * torch.randn(T, D) + 1
        norms = [_norm_with(torch.rand(D) + 0.5) for _ in range(2)]
        mixing, matrix = torch.randn(T, T).softmax(-1), torch.randn(D, D)
        sublayers = [lambda h, m=mixing: torch.tanh(m @ h) + 0.5, lambda h, w=matrix: torch.sin(h @ w)]
        _compare_block(fn, x, norms[0], sublayers[0], norms[1], sublayers[1], f"with T {T}, D {D}")
    _compare_block(fn, x, lambda h: h, sublayers[0], norms[1], sublayers[1], "with no attention norm, as in layer 0")
    return "agrees with the definition on 4 blocks, one of them a first layer without its attention norm"


def _norm_with(weight_D: Tensor) -> Step:
    return lambda x: F.layer_norm(x, weight_D.shape, weight_D, None, 1e-5)


def _compare_block(fn, x: Tensor, attn_norm: Step, attn: Step, mlp_norm: Step, mlp: Step, case: str) -> None:
    middle = x + attn(attn_norm(x))
    got = fn(x.clone(), attn_norm, attn, mlp_norm, mlp)
    mistakes = _block_mistakes(x, attn_norm, attn, mlp_norm, mlp)
    compare(got, middle + mlp(mlp_norm(middle)), case, mistakes)


def _block_mistakes(x: Tensor, attn_norm: Step, attn: Step, mlp_norm: Step, mlp: Step) -> dict[str, Tensor]:
    middle = x + attn(attn_norm(x))
    post = attn_norm(x + attn(x))
    from_norm = attn_norm(x) + attn(attn_norm(x))
    no_norm, outer = x + attn(x), x + attn_norm(attn(x))
    return {
        "that is post-norm, norm(x + f(x)); the norm belongs inside the sum, before the sublayer": mlp_norm(
            post + mlp(post)
        ),
        "x itself was replaced by norm(x), so the sum holds normalised values; normalise only what the sublayer "
        "reads": mlp_norm(from_norm) + mlp(mlp_norm(from_norm)),
        "the norms stand behind the sublayers, x + norm(f(x)); they stand before them": outer + mlp_norm(mlp(outer)),
        "there are no norms in it": no_norm + mlp(no_norm),
        "the attention's input is not normalised": no_norm + mlp(mlp_norm(no_norm)),
        "the MLP's input is not normalised": middle + mlp(middle),
        "the MLP reads the block's input x, beside the attention; it must read the sum after the attention": middle
        + mlp(mlp_norm(x)),
        "the MLP's output was added to the block's input x, so the attention's is lost": x + mlp(mlp_norm(middle)),
        "the attention's residual is missing: x + attn(...)": attn(attn_norm(x)) + mlp(mlp_norm(attn(attn_norm(x)))),
        "the MLP's residual is missing: x + mlp(...)": mlp(mlp_norm(middle)),
        "nothing is added: each sublayer's output belongs on top of its input": mlp(mlp_norm(attn(attn_norm(x)))),
        "the MLP got the attention's norm; each sublayer has its own": middle + mlp(attn_norm(middle)),
        "the MLP comes first in yours; attention is first": (x + mlp(mlp_norm(x)))
        + attn(attn_norm(x + mlp(mlp_norm(x)))),
        "the MLP is missing": middle,
        "the result was normalised once more; the stream leaves the block as the plain sum": mlp_norm(
            middle + mlp(mlp_norm(middle))
        ),
    }


@check
def check_bias_count(fn) -> str:
    """`fn(D, I, L, gated) -> int`: how many numbers `bias=False` takes out of a `MaskedLM`."""
    cases = [(10, 23, 5, False), (10, 17, 5, True), (768, 3072, 12, False), (768, 1152, 22, True), (4, 6, 1, True)]
    for D, width, L, gated in cases:
        config = EncoderConfig(
            vocab_size=100, hidden_size=D, intermediate_size=width, num_hidden_layers=L, num_attention_heads=1,
            mlp="geglu" if gated else "gelu",
        )  # fmt: skip
        want = config.num_parameters() - config.replace(bias=False).num_parameters()
        case = f"with D {D}, I {width}, L {L}, {'gated' if gated else 'not gated'}"
        compare(fn(D, width, L, gated), want, case, _bias_mistakes(D, width, L, 2 if gated else 1))
    return "agrees with the package's parameter counts for 5 models, BERT-base and ModernBERT-base among them"


def _bias_mistakes(D: int, width: int, L: int, halves: int) -> dict[str, int]:
    outside, wi = 3 * D, halves * width
    return {
        "the norms have biases too: two in each layer, one after the embedding, one in the head": L * (5 * D + wi) + D,
        "the two norms of each layer are missing": L * (5 * D + wi) + outside,
        "one D in each layer is missing: an output matrix, or the second norm": L * (6 * D + wi) + outside,
        "those are the layers alone; the embedding's norm and the head (dense and norm) have biases too": L
        * (7 * D + wi),
        "one D outside the layers is missing: embedding's norm, head's dense layer, head's norm": L * (7 * D + wi)
        + 2 * D,
        "outside the layers there are 3 D: embedding's norm, head's dense layer, head's norm": L * (7 * D + wi) + D,
        "one D too many outside the layers: the final norm of pre-norm comes for layer 0's attention norm": L
        * (7 * D + wi)
        + 4 * D,
        "Wqkv has 3 D outputs, so 3 D biases": L * (5 * D + wi) + outside,
        "a gated MLP's Wi has 2 I outputs": L * (7 * D + width) + outside,
        "the MLP's Wo has D outputs, so D biases, whatever its inputs": L * (6 * D + wi + width) + outside,
        "the MLP's biases are missing": L * (6 * D) + outside,
        "a norm has a weight and a bias; only the bias goes": L * (9 * D + wi) + outside + 2 * D,
        "those are the weights of the matrices; a linear layer has one bias for each output": L
        * (4 * D * D + (halves + 1) * D * width)
        + D * D,
        "that is one layer; there are L": 7 * D + wi + outside,
    }


@check
def check_stream_rms(fn) -> str:
    """`fn(L, v, scaled) -> float`: rms of the stream after L layers; `scaled`: outputs smaller by sqrt(2 L)."""
    cases = [(12, 0.25, False), (1, 0.5, False), (24, 0.08, False), (12, 0.25, True), (48, 2.0, True)]
    for L, v, scaled in cases:
        want = math.sqrt(1 + (v if scaled else 2 * L * v))
        case = f"with L {L}, v {v}, {'scaled' if scaled else 'not scaled'}"
        compare_number(fn(L, v, scaled), want, case, _stream_mistakes(L, v, scaled))
    return "agrees with 1 + 2 L v and 1 + v under the root, on 5 stacks"


def _stream_mistakes(L: int, v: float, scaled: bool) -> dict[str, float]:
    n = 2 * L
    total = v if scaled else n * v
    if scaled:
        own = {
            "the variance of a scaled output is v / (2 L): a factor on a number is squared in its variance": math.sqrt(
                1 + n * v / math.sqrt(n)
            ),
            "the outputs were not scaled": math.sqrt(1 + n * v),
            "scaled by sqrt(L); each layer has two sublayers, so it is sqrt(2 L)": math.sqrt(1 + n * v / L),
            "one sublayer's share alone was added; there are 2 L of them": math.sqrt(1 + v / n),
            "a layer has two sublayers, so 2 L outputs are added, not L": math.sqrt(1 + v / 2),
        }
    else:
        own = {
            "a layer has two sublayers, so 2 L outputs are added, not L": math.sqrt(1 + L * v),
            "one sublayer's output alone was added; there are 2 L of them": math.sqrt(1 + v),
            "the scaling was applied although scaled is False": math.sqrt(1 + v / n),
            "sizes were added; of independent numbers the variances add up": 1 + n * math.sqrt(v),
            "one of the 2 L + 1 terms is missing": math.sqrt(1 + (n - 1) * v),
        }
    return own | {
        "that is the variance; the rms is its root": 1 + total,
        "the embedding is in the sum too, with variance 1": math.sqrt(total),
        "the roots were added; add the variances, then take the root": 1 + math.sqrt(total),
    }
