"""Checks of 09_context_extension."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .machinery import NotYet, check, close, compare, pair, recognise, short

PHASES = [
    (1_719_000_000_000, 4_718_592, 1024),
    (250_000_000_000, 4_718_592, 8192),
    (50_000_000_000, 4_718_592, 8192),
    (163_840, 1024, 1024),
    (100_000, 4096, 512),
]


@check
def check_batch_and_steps(fn) -> str:
    """`fn(tokens, tokens_per_step, length) -> (sequences in a step, whole steps)`."""
    for tokens, per_step, length in PHASES:
        case = f"with {tokens:,} tokens, {per_step:,} in a step, length {length:,}"
        got = pair(fn(tokens, per_step, length), case, "the sequences of a step and the number of steps")
        want = (per_step // length, tokens // per_step)
        numbers = [number.item() if isinstance(number, Tensor) else number for number in got]
        if not all(isinstance(number, int | float) for number in numbers):
            raise NotYet(f"{case}: expected two numbers, got {short(got)}")
        if tuple(numbers) == want:
            if not all(isinstance(number, int) for number in numbers):
                raise NotYet(f"{case}: the numbers are right, but sequences and steps are whole: use //")
            continue
        known = recognise(tuple(numbers), _phase_mistakes(tokens, per_step, length), _both_close)
        raise NotYet(f"{case}: {known or f'expected {want[0]:,} and {want[1]:,}, got {got[0]:,} and {got[1]:,}'}")
    return f"plans {len(PHASES)} phases, the paper's three among them"


def _both_close(a, b) -> bool:
    return all(math.isclose(x, y, rel_tol=1e-9) for x, y in zip(a, b, strict=True))


def _phase_mistakes(tokens: int, per_step: int, length: int) -> dict[str, tuple]:
    sequences, steps = per_step // length, tokens // per_step
    return {
        "the two are swapped: first the sequences of a step, then the steps": (steps, sequences),
        "that is one of 8 GPUs' share; count the sequences of the whole step": (sequences // 8, steps),
        "the batch is that of length 1,024; longer sequences are fewer to a step": (per_step // 1024, steps),
        "the last step is not full, so it is none: round down": (sequences, -(-tokens // per_step)),
        "the second number is that of all sequences; a step takes many of them": (sequences, tokens // length),
        "the tokens were divided by the sequences of a step; divide by its tokens": (sequences, tokens // sequences),
        "those are fractions; sequences and steps are whole: round down": (per_step / length, tokens / per_step),
        "the first number is that of the tokens of a step; divide by the length": (per_step, steps),
    }


def tables_by_loops(theta: float, length: int, head_size: int) -> tuple[Tensor, Tensor]:
    """cos and sin of position times theta ** (-2 i / K), number by number: two tensors (length, K/2)."""
    angles = [[m * theta ** (-2 * i / head_size) for i in range(head_size // 2)] for m in range(length)]
    return tuple(torch.tensor([[turn(a) for a in row] for row in angles]) for turn in (math.cos, math.sin))


CALLS = [
    (10_000.0, 6, 8),
    (160_000.0, 6, 8),  # the same length, another theta
    (160_000.0, 9, 8),  # longer
    (160_000.0, 4, 8),  # shorter
    (10_000.0, 6, 8),  # back
    (10_000.0, 6, 4),  # another head size
    (160_000.0, 500, 8),  # far positions
]


@check
def check_tables_for(fn) -> str:
    """`fn(cache, theta, length, K) -> (cos, sin)`: never stale, and not computed twice."""
    cache: dict = {}
    before: list[tuple[Tensor, Tensor]] = []
    for theta, length, K in CALLS:
        case = f"asked for theta {theta:,.0f}, length {length}, K {K}"
        want = tables_by_loops(theta, length, K)
        got = pair(fn(cache, theta, length, K), case, "cos and sin")
        for table, right, name in zip(got, want, ("cos", "sin"), strict=True):
            _compare_table(table, right, want, before, theta, length, K, f"{case}, {name}")
        before.append(want)
        again = pair(fn(cache, theta, length, K), f"{case} again", "cos and sin")
        if any(x.data_ptr() != y.data_ptr() for x, y in zip(got, again, strict=True)):
            raise NotYet(f"{case} twice: the numbers are right, but they were computed anew; keep them in cache")
    if not cache:
        raise NotYet("the numbers are right, but cache is empty: another model would get this one's tables")
    return f"is right after each of {len(CALLS) - 1} changes, and computes nothing twice"


def _compare_table(got, want, both, before, theta, length, K, case) -> None:
    positions, exponents = torch.arange(length)[:, None], torch.arange(0, K, 2) / K
    coarse = (positions.bfloat16() * (theta**-exponents).bfloat16()).float()
    mistakes = {
        "cos and sin are swapped": both[1] if torch.equal(want, both[0]) else both[0],
        "the exponent is -i / K; pair i has theta ** (-2 i / K)": _turned(positions * theta ** -(exponents / 2), case),
        "the exponent is positive; pair i has theta ** (-2 i / K)": _turned(positions * theta**exponents, case),
        "positions begin at 1 here; the first is 0": _turned((positions + 1) * theta**-exponents, case),
        "the angles were computed in bfloat16, which cannot hold far positions; use float32": _turned(coarse, case),
        "those are the angles; return their cos and sin": positions * theta**-exponents,
    }
    if isinstance(got, Tensor):
        for old in (table for tables in reversed(before) for table in tables):
            n = min(len(old), length)
            if got.shape == old.shape and close(got, old, 1e-5) and not close(old, want, 1e-5):
                raise NotYet(f"{case}: that is a table from an earlier call; what it depends on has changed since")
            if got.shape == want.shape and got.shape[1] == old.shape[1] and not close(got, want, 1e-4):
                if n > 1 and close(got[:n], old[:n], 1e-5) and not close(old[:n], want[:n], 1e-5):
                    raise NotYet(f"{case}: that is a table from an earlier call; what it depends on has changed since")
        known = recognise(got, mistakes, lambda a, b: close(a.float(), b, 1e-3))
        if got.shape == (length, K) and close(got[:, : K // 2], want, 1e-4):
            raise NotYet(f"{case}: each angle stands there twice; K/2 columns are enough")
        if known and not close(got.float(), want, 1e-4):
            raise NotYet(f"{case}: {known}")
    compare(got, want, case, tolerance=1e-4)


def _turned(angles: Tensor, case: str) -> Tensor:
    return angles.cos() if case.endswith("cos") else angles.sin()


@check
def check_loss_by_position(fn) -> str:
    """`fn(logits_TV, labels_T, width) -> (bins,)`: mean loss of the masked tokens in each stretch of positions."""
    cases = [(12, 5, 4, [0, 1, 5, 9, 10]), (10, 7, 4, [2, 3, 4, 8]), (9, 4, 3, [0, 7, 8]), (50, 11, 8, None)]
    for T, V, width, masked in cases:
        logits, labels = 3 * torch.randn(T, V), torch.full((T,), -100)
        places = torch.tensor(masked) if masked else torch.randperm(T)[: T // 3]
        labels[places] = torch.randint(V, (len(places),))
        bins = -(-T // width)
        want = torch.full((bins,), math.nan)
        for b in range(bins):
            here = [t for t in range(b * width, min(T, (b + 1) * width)) if labels[t] != -100]
            if here:
                want[b] = sum(-math.log(logits[t].softmax(0)[labels[t]]) for t in here) / len(here)
        case = f"with {T} tokens, {len(places)} masked, width {width}"
        got = fn(logits.clone(), labels.clone(), width)
        if isinstance(got, Tensor) and got.shape == want.shape and torch.equal(got.isnan(), want.isnan()):
            if close(got, want, 1e-4):
                continue
        _say_what_is_wrong(got, want, logits, labels, width, case)
    return f"agrees with the definition in {len(cases)} texts, empty stretches included"


def _say_what_is_wrong(got, want: Tensor, logits: Tensor, labels: Tensor, width: int, case: str) -> None:
    T, bins, masked = len(labels), len(want), labels != -100
    loss = F.cross_entropy(logits, labels, reduction="none")  # 0 where nothing is asked
    clamped = F.cross_entropy(logits, labels.clamp(min=0), reduction="none")
    sums, counts, everything = (
        torch.zeros(bins).index_add_(0, torch.arange(T) // width, x) for x in (loss, masked.float(), clamped)
    )
    size = torch.zeros(bins).index_add_(0, torch.arange(T) // width, torch.ones(T))
    order = torch.arange(int(masked.sum())) // width
    ranked = torch.full((bins,), math.nan)
    for b in order.unique().tolist():
        ranked[b] = loss[masked][order == b].mean()
    seen = torch.cat([want.nan_to_num(0).cumsum(0)[:1], want[1:]])
    mistakes = {
        "every token was counted; only those with a label are asked": sums / size,
        "every stretch was divided by the width; divide by how many were masked in it": sums / width,
        "those are sums; divide by how many were masked in each stretch": sums,
        "tokens without a label were counted too, as if their label were 0": everything / size,
        "a stretch without a masked token has no loss: nan, not 0": want.nan_to_num(0),
        "the masked tokens were counted off in stretches; their positions in the text decide": ranked,
        "the last stretch is missing: it may be shorter than the others": want[:-1] if T % width else seen,
        "that is base 2; nats have the natural logarithm": want / math.log(2),
        "that is one number for the whole text; give one for each stretch": loss[masked].mean(),
    }
    if isinstance(got, Tensor):
        known = recognise(got, mistakes, lambda a, b: close(a, b, 1e-4))
        if known:
            raise NotYet(f"{case}: {known}")
        if got.shape == want.shape and torch.equal(got.isnan(), want.isnan()) is False:
            there, wanted = got.isnan().nonzero().flatten().tolist(), want.isnan().nonzero().flatten().tolist()
            raise NotYet(f"{case}: the stretches without a masked token are {wanted}, and nan stands at {there}")
    compare(got, want, case, tolerance=1e-4)
