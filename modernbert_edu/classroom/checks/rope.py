"""Checks of 04_rope."""

from __future__ import annotations

import cmath
import math

import torch
from torch import Tensor

from .machinery import NotYet, check, compare, short


def turn_by_loops(x_THK: Tensor, position_ids: Tensor, theta: float) -> Tensor:
    """Pair i of a head is the complex number x[i] + 1j x[i + K/2], multiplied by exp(1j position theta ** (-2i/K))."""
    T, H, K = x_THK.shape
    out = torch.zeros_like(x_THK)
    for t in range(T):
        for h in range(H):
            for i in range(K // 2):
                angle = float(position_ids[t]) * theta ** (-2 * i / K)
                z = complex(x_THK[t, h, i], x_THK[t, h, i + K // 2]) * cmath.exp(1j * angle)
                out[t, h, i], out[t, h, i + K // 2] = z.real, z.imag
    return out


@check
def check_turn(fn) -> str:
    """`fn(x_THK, position_ids, theta) -> (T, H, K)`: RoPE on halves, the angles included."""
    cases = [
        ([0, 1, 2, 3], 2, 4, 10_000.0),
        ([5, 9], 1, 8, 100.0),
        ([0, 1, 2, 0, 1], 3, 6, 160_000.0),
        ([7, 3], 2, 2, 10.0),
    ]
    for positions, H, K, theta in cases:
        x, at = torch.randn(len(positions), H, K), torch.tensor(positions)
        got = fn(x.clone(), at.clone(), theta)
        case = f"at positions {positions}, H {H}, K {K}"
        compare(got, turn_by_loops(x, at, theta), case, _turn_mistakes(x, at, theta), tolerance=1e-4)
    return "agrees with complex multiplication on 4 inputs, one of them with two documents"


def _turn_mistakes(x: Tensor, at: Tensor, theta: float) -> dict[str, Tensor]:
    T, H, K = x.shape
    i = torch.arange(K // 2)
    right = theta ** (-2 * i / K)

    def turn(frequencies=right, at=at, x=x):
        angles = (at[:, None] * frequencies)[:, None]
        a, b = x.chunk(2, dim=-1)
        return torch.cat([a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()], dim=-1)

    angles = (at[:, None] * right)[:, None]
    cos, sin = angles.cos(), angles.sin()
    a, b = x.chunk(2, dim=-1)
    even, odd = x[..., ::2], x[..., 1::2]
    neighbours = torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1).flatten(-2)
    doubled = [table.repeat_interleave(2, dim=-1) for table in (cos, sin)]
    mixed = x * doubled[0] + torch.cat([-b, a], dim=-1) * doubled[1]
    return {
        "neighbours were paired (x[0] with x[1]); here pair i is x[i] with x[i + K/2]": neighbours,
        "the angles are laid out for neighbours (0, 0, 1, 1, ...), the vectors for halves; use cat, not"
        " repeat_interleave": mixed,
        "it turns the other way: exp(+i angle) is a cos - b sin in the first half": turn(at=-at),
        "nothing was turned": x,
        "the second half is b cos - a sin; its sign must be plus": torch.cat(
            [a * cos - b * sin, b * cos - a * sin], -1
        ),
        "both halves subtract: the second is b cos + a sin": torch.cat([a * cos - b * sin, a * sin - b * cos], -1),
        "the first half is a cos + b sin; its sign must be minus": torch.cat(
            [a * cos + b * sin, b * cos + a * sin], -1
        ),
        "the exponent is -i / K; pair i has theta ** (-2 i / K)": turn(theta ** (-i / K)),
        "the exponent is positive, so each pair turns faster than the last; it is -2 i / K": turn(theta ** (2 * i / K)),
        "the exponent is -2 i / (K/2), twice too large; divide by K": turn(theta ** (-4 * i / K)),
        "the pairs are counted from 1; pair 0 turns by a whole radian for each position": turn(
            theta ** (-2 * (i + 1) / K)
        ),
        "the positions are counted from 1; use position_ids as they are": turn(at=at + 1),
        "position_ids were not used: the second document must start at its own position": turn(at=torch.arange(T)),
        "all pairs turn by the same angle; pair i has theta ** (-2 i / K)": turn(torch.ones(K // 2)),
        "the halves are swapped in the result": turn().roll(K // 2, dims=-1),
    }


@check
def check_to_halves(fn) -> str:
    """`fn(weight_OD, H) -> (O, D)`: rows of each head from neighbouring pairs to halves; O = H K."""
    for H, K, D in [(1, 8, 3), (2, 4, 5), (3, 6, 4), (2, 2, 3)]:
        weight = torch.randn(H * K, D)
        want = torch.zeros_like(weight)
        for h in range(H):
            for i in range(K // 2):
                want[h * K + i] = weight[h * K + 2 * i]
                want[h * K + i + K // 2] = weight[h * K + 2 * i + 1]
        mistakes = _halves_mistakes(weight, H, K)
        compare(fn(weight.clone(), H), want, f"with H {H}, K {K}, D {D}", mistakes, tolerance=0)
    return "moves every row of 4 matrices to its half"


def _halves_mistakes(weight: Tensor, H: int, K: int) -> dict[str, Tensor]:
    D = weight.shape[1]
    heads = weight.view(H, K, D)
    even, odd = heads[:, ::2], heads[:, 1::2]

    def flat(x):
        return x.reshape(-1, D)

    return {
        "nothing was moved": weight,
        "that is the way back, from halves to neighbours": flat(heads.view(H, 2, K // 2, D).transpose(1, 2)),
        "the rows were sorted over all heads at once; a row must stay in its own head": torch.cat(
            [weight[::2], weight[1::2]]
        ),
        "the odd rows came first; row 0 of a head stays its first": flat(torch.cat([odd, even], dim=1)),
        "the second half is in reverse order": flat(torch.cat([even, odd.flip(1)], dim=1)),
        "the rows were reversed, not sorted into even and odd": flat(heads.flip(1)),
    }


@check
def check_never_turned(fn) -> str:
    """`fn(theta, K, length) -> int`: pairs of a head that make less than one full turn within `length` tokens."""
    cases = [(10_000.0, 64, 512), (10_000.0, 64, 8192), (160_000.0, 64, 8192), (10_000.0, 128, 1024), (100.0, 8, 20),
             (10.0, 4, 1000), (10_000.0, 6, 3)]  # fmt: skip
    for theta, K, length in cases:
        got = fn(theta, K, length)
        if isinstance(got, Tensor) and got.numel() == 1:
            got = got.item()
        if isinstance(got, float) and got.is_integer():
            got = int(got)
        case = f"with theta {theta:,.0f}, K {K}, length {length:,}"
        if got is None:
            raise NotYet("your function returned None; does it end with a return?")
        if isinstance(got, bool) or not isinstance(got, int):
            raise NotYet(f"{case}: expected a number of pairs, got {short(got)}")
        want = sum(2 * math.pi * theta ** (2 * i / K) > length for i in range(K // 2))
        if got != want:
            known = next((words for words, n in _turns_mistakes(theta, K, length).items() if n == got), None)
            raise NotYet(f"{case}: {known or f'expected {want}, got {got}'}")
    return "counts the slow pairs right in 7 cases"


def _turns_mistakes(theta: float, K: int, length: int) -> dict[str, int]:
    pairs = range(K // 2)

    def slower(period, over=pairs):
        return sum(period(i) > length for i in over)

    return {
        "those are the pairs that do make a full turn; count the others": K // 2
        - slower(lambda i: math.tau * theta ** (2 * i / K)),
        "a full turn is 2 pi radians: 2 pi / frequency tokens": slower(lambda i: theta ** (2 * i / K)),
        "a full turn is 2 pi radians, not 360": slower(lambda i: 360 * theta ** (2 * i / K)),
        "a full turn is 2 pi radians, not pi": slower(lambda i: math.pi * theta ** (2 * i / K)),
        "the exponent is 2 i / K, not i / K": slower(lambda i: math.tau * theta ** (i / K)),
        "the exponent is 2 i / K, not 4 i / K": slower(lambda i: math.tau * theta ** (4 * i / K)),
        "a head has K/2 pairs, not K": slower(lambda i: math.tau * theta ** (2 * i / K), range(K)),
        "the pairs are counted from 0: the first has the frequency 1": slower(
            lambda i: math.tau * theta ** (2 * i / K), range(1, K // 2 + 1)
        ),
        "the frequencies grow: the exponent of the frequency is negative, that of the turn positive": slower(
            lambda i: math.tau * theta ** (-2 * i / K)
        ),
    }
