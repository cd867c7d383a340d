"""Checks of 05_geglu."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .machinery import NotYet, check, compare, compare_or_recognise


def _gelu(x: float) -> float:
    """x times the normal distribution function, exactly (Hendrycks and Gimpel 2016)."""
    return x * 0.5 * (1 + math.erf(x / math.sqrt(2)))


def _gelu_slope(x: float) -> float:
    """The derivative of `_gelu`: by the product rule the distribution function plus x times the density."""
    density = math.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    return 0.5 * (1 + math.erf(x / math.sqrt(2))) + x * density


def gated_by_loops(h_TI: Tensor) -> Tensor:
    """(T, 2 I) -> (T, I), one unit of one token at a time: gelu of the first half times the second."""
    T, width = h_TI.shape[0], h_TI.shape[1] // 2
    out_TI = torch.zeros(T, width)
    for token in range(T):
        for unit in range(width):
            out_TI[token, unit] = _gelu(float(h_TI[token, unit])) * float(h_TI[token, width + unit])
    return out_TI


@check
def check_gated(fn) -> str:
    """`fn(h_TI) -> (T, I)`: exact gelu of the first half, times the second half."""
    for T, width in [(4, 2), (1, 5), (6, 3), (2, 8)]:
        h_TI = 2 * torch.randn(T, 2 * width)
        got = fn(h_TI.clone())
        case = f"with T {T}, I {width}"
        if isinstance(got, Tensor) and got.shape != (T, width):
            compare_or_recognise(got, gated_by_loops(h_TI), case, _gated_shape_mistakes(h_TI))
        compare(got, gated_by_loops(h_TI), case, _gated_mistakes(h_TI))
    return "agrees with the plain loops on 4 inputs"


def _gated_mistakes(h_TI: Tensor) -> dict[str, Tensor]:
    value, gate = h_TI.chunk(2, dim=-1)
    return {
        "the second half was activated; published ModernBERT activates the first": value * F.gelu(gate),
        "both halves were activated; the gate stays as it is": F.gelu(value) * F.gelu(gate),
        "nothing was activated; the first half goes through the gelu": value * gate,
        "the gelu came after the product; it acts on the first half alone": F.gelu(value * gate),
        "the gate is added; it multiplies": F.gelu(value) + gate,
        "the second half is not used": F.gelu(value),
        "that is GLU, with a sigmoid": torch.sigmoid(value) * gate,
        "that is SwiGLU, with silu; GeGLU has the gelu": F.silu(value) * gate,
        "that is ReGLU, with relu; GeGLU has the gelu": F.relu(value) * gate,
        "that is the tanh approximation of the gelu; the published model has the exact one": F.gelu(
            value, approximate="tanh"
        )
        * gate,
        "even and odd columns were taken; the halves lie one behind the other": F.gelu(h_TI[:, ::2]) * h_TI[:, 1::2],
        "the gate went through a sigmoid; it stays as it is": F.gelu(value) * torch.sigmoid(gate),
    }


def _gated_shape_mistakes(h_TI: Tensor) -> dict[str, Tensor]:
    mistakes = {"that is the gelu of all 2 I numbers; split them first": F.gelu(h_TI)}
    if h_TI.shape[0] % 2 == 0:
        first, second = h_TI.chunk(2, dim=0)
        mistakes["the tokens were split, not the 2 I numbers of each (dim=-1)"] = F.gelu(first) * second
    return mistakes


def _best_width(D: int, W: int, bias: bool, multiple: int) -> int:
    """By trying every allowed width: the one whose parameter count comes nearest to the GELU MLP's."""
    b = 1 if bias else 0
    target = D * W + b * W + W * D + b * D
    widths = range(multiple, 2 * W + 2 * multiple, multiple)
    return min(widths, key=lambda width: abs(D * 2 * width + b * 2 * width + width * D + b * D - target))


@check
def check_matched_width(fn) -> str:
    """`fn(D, W, bias, multiple) -> I`: the GeGLU width, a multiple of `multiple`, nearest in parameters."""
    cases = [(8, 96, True, 1), (4, 100, True, 1), (128, 500, False, 1), (768, 3072, False, 64), (768, 3072, True, 1)]
    cases += [(1024, 4096, False, 64), (256, 700, False, 32), (2, 40, True, 8), (64, 10, False, 16)]
    for D, W, bias, multiple in cases:
        case = f"with D {D}, W {W}, {'with' if bias else 'without'} biases, multiples of {multiple}"
        got = fn(D, W, bias, multiple)
        want = _best_width(D, W, bias, multiple)
        if isinstance(got, float) and got == want:
            raise NotYet(f"{case}: {got} is the right number, but a width is an int")
        compare(got, want, case, _width_mistakes(D, W, bias, multiple))
    return f"agrees with a search through all widths on {len(cases)} cases"


def _width_mistakes(D: int, W: int, bias: bool, multiple: int) -> dict[str, int | float]:
    exact = (2 * D * W + bias * W) / (3 * D + 2 * bias)

    def nearest(width, multiple=multiple):
        return max(multiple, round(width / multiple) * multiple)

    return {
        "W itself gives a GeGLU with half as many parameters again": W,
        "Wi alone was made equal; count the matrix down too": nearest(W / 2),
        "that is not rounded to a multiple": round(exact),
        "that is not rounded to a whole number": exact,
        "0 is no width; the smallest is one multiple": 0,
        "biases count too: Wi of the GeGLU has 2 I, Wo has D": nearest(2 * W / 3),
        "the GeGLU's Wi has a bias for both halves, 2 I": nearest((2 * D * W + bias * W) / (3 * D + bias)),
        "rounded down; the nearest multiple is wanted": math.floor(exact / multiple) * multiple,
        "rounded up; the nearest multiple is wanted": math.ceil(exact / multiple) * multiple,
        "that is the way back, from GeGLU to GELU (3/2)": nearest(3 * W / 2),
    }


def backward_by_loops(h_TI: Tensor, grad_TI: Tensor) -> Tensor:
    """The gradient of `gated_by_loops`, one number at a time: (T, 2 I)."""
    T, width = grad_TI.shape
    out_TI = torch.zeros(T, 2 * width)
    for token in range(T):
        for unit in range(width):
            value, gate, arriving = (float(x) for x in (h_TI[token, unit], h_TI[token, width + unit],
                                                        grad_TI[token, unit]))  # fmt: skip
            out_TI[token, unit] = arriving * gate * _gelu_slope(value)
            out_TI[token, width + unit] = arriving * _gelu(value)
    return out_TI


@check
def check_gated_backward(fn) -> str:
    """`fn(h_TI, grad_TI) -> (T, 2 I)`: the gradient with respect to both halves, without autograd."""
    for T, width in [(4, 2), (1, 6), (5, 3)]:
        h_TI, grad_TI = 1.5 * torch.randn(T, 2 * width), torch.randn(T, width)
        with torch.inference_mode():  # where autograd cannot be asked
            try:
                got = fn(h_TI.clone(), grad_TI.clone())
            except RuntimeError as error:
                if "grad" in str(error) or "nference" in str(error):
                    raise NotYet("autograd is switched off here: write the two gradients down yourself") from None
                raise
            case = f"with T {T}, I {width}"
            want = backward_by_loops(h_TI, grad_TI)
            if isinstance(got, Tensor) and got.shape != want.shape:
                compare_or_recognise(got, want, case, _backward_shape_mistakes(h_TI, grad_TI))
            compare(got, want, case, _backward_mistakes(h_TI, grad_TI))
    return "agrees with the derivative in plain loops on 3 inputs"


def _backward_parts(h_TI: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """value, gate, Phi(value) and the density at value."""
    value, gate = h_TI.chunk(2, dim=-1)
    distribution = 0.5 * (1 + torch.erf(value / math.sqrt(2)))
    return value, gate, distribution, torch.exp(-value * value / 2) / math.sqrt(2 * math.pi)


def _backward_mistakes(h_TI: Tensor, grad_TI: Tensor) -> dict[str, Tensor]:
    value, gate, distribution, density = _backward_parts(h_TI)
    slope, activated = distribution + value * density, value * distribution
    to_value, to_gate = grad_TI * gate * slope, grad_TI * activated

    def both(to_value=to_value, to_gate=to_gate):
        return torch.cat([to_value, to_gate], dim=-1)

    return {
        "the gradients of the two halves are exchanged": both(to_gate, to_value),
        "grad_TI, which arrives from above, is not used": both(gate * slope, activated),
        "grad_TI is missing in the gate's half": both(to_gate=activated),
        "grad_TI is missing in the value's half": both(gate * slope),
        "the slope of x Phi(x) has two terms; x times the density is missing": both(grad_TI * gate * distribution),
        "the slope of x Phi(x) has two terms; Phi(x) is missing": both(grad_TI * gate * value * density),
        "in the slope the density is not multiplied by x": both(grad_TI * gate * (distribution + density)),
        "the density lacks 1 / sqrt(2 pi)": both(
            grad_TI * gate * (distribution + value * density * math.sqrt(2 * math.pi))
        ),
        "the value's half is not multiplied by the gate": both(grad_TI * slope),
        "the value's half needs the slope of the gelu, not the gelu": both(grad_TI * gate * activated),
        "the gate's half is the gelu of the value, not the value": both(to_gate=grad_TI * value),
        "the gate's half is not multiplied by the gate: the derivative of a b by b is a": both(to_gate=to_gate * gate),
    }


def _backward_shape_mistakes(h_TI: Tensor, grad_TI: Tensor) -> dict[str, Tensor]:
    value, gate, distribution, density = _backward_parts(h_TI)
    to_value, to_gate = grad_TI * gate * (distribution + value * density), grad_TI * value * distribution
    return {
        "only the value's half; the gate needs its gradient as well": to_value,
        "only the gate's half; the value needs its gradient as well": to_gate,
        "the two halves were added; lay them one behind the other": to_value + to_gate,
        "the halves were put under each other; they belong side by side (dim=-1)": torch.cat([to_value, to_gate]),
    }
