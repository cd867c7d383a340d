"""Checks of 08_mlm_pretraining."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .machinery import NotYet, check, compare, compare_number, short

# (warm-up, all tokens, decay, final share), and where the multiplier is asked for, as shares of the run.
_PLANS = [(100, 1000, 400, 0.1), (0, 800, 200, 0.0), (3e9, 60e9, 10e9, 0.001), (50, 500, 0, 0.2), (10, 100, 90, 0.5)]
_SHARES = (0.0, 0.01, 0.05, 0.1, 0.3, 0.55, 0.62, 0.7, 0.76, 0.85, 0.9, 0.97, 1.0)


@check
def check_wsd(fn) -> str:
    """`fn(tokens, warmup, total, decay, final_share) -> float`: the multiplier with a 1-sqrt decay."""
    asked = 0
    for warmup, total, decay, final in _PLANS:
        for share in _SHARES:
            tokens = share * total
            part = "warm-up" if tokens < warmup else "stable part" if tokens <= total - decay else "decay"
            case = f"{part}, {tokens:,.0f} of {total:,.0f} tokens (warm-up {warmup:,.0f}, decay {decay:,.0f})"
            got = _number(fn(tokens, warmup, total, decay, final), case)
            want = _wsd(tokens, warmup, total, decay, final)
            compare_number(got, want, case, _wrong_plans(tokens, warmup, total, decay, final, want))
            asked += 1
    return f"agrees with the formula at {asked} places of {len(_PLANS)} plans"


def _number(got, case: str):
    """None and strange things said in words; a tensor with one element is a number."""
    if got is None:
        raise NotYet(f"{case}: your function returned None; does each branch end with a return?")
    if isinstance(got, Tensor) and got.numel() == 1:
        return got.item()
    if isinstance(got, complex):
        raise NotYet(f"{case}: the square root of a negative number; x is below 0 before the decay begins")
    return got


def _wsd(tokens: float, warmup: float, total: float, decay: float, final: float, shape=lambda x: 1 - math.sqrt(x)):
    if tokens < warmup:
        return tokens / warmup
    begin = total - decay
    if tokens <= begin or decay == 0:
        return 1.0
    return final + (1 - final) * shape((tokens - begin) / decay)


def _wrong_plans(tokens, warmup, total, decay, final, want: float) -> dict[str, float]:
    begin = total - decay
    if tokens < warmup:
        return {
            "the warm-up was measured against the whole run": tokens / total,
            "there is no warm-up: it rises from 0 to 1 over the warm-up's tokens": 1.0,
            "the warm-up is linear, tokens / warmup": math.sqrt(tokens / warmup),
            "the warm-up rises from the final share; it is to rise from 0": final + (1 - final) * tokens / warmup,
        }
    if tokens <= begin or decay == 0:
        found = {"the multiplier is to be 1 between warm-up and decay": final}
        if total > warmup:
            falling = (tokens - warmup) / (total - warmup)
            found["it decays from the end of the warm-up on; the decay is only the last `decay` tokens"] = _wsd(
                tokens, warmup, total, total - warmup, final
            )
            found["that is the linear decay from the end of the warm-up, which is BERT's plan"] = 1 - falling
        return found
    x = (tokens - begin) / decay
    return {
        "that is 1 - sqrt(x) without the final share a; a + (1 - a) * ... shrinks the whole decay, a floor does not": (
            1 - math.sqrt(x)
        ),
        "the final share was added without scaling the rest by 1 - a, so that the decay begins above 1": final
        + 1
        - math.sqrt(x),
        "that is the linear decay; here it is 1 - sqrt(x)": final + (1 - final) * (1 - x),
        "that is the cosine decay; here it is 1 - sqrt(x)": final + (1 - final) * (1 + math.cos(math.pi * x)) / 2,
        "that is sqrt(1 - x); the square root is of x alone": final + (1 - final) * math.sqrt(1 - x),
        "x runs the wrong way: it is 0 where the decay begins and 1 at the end": final
        + (1 - final) * (1 - math.sqrt(1 - x)),
        "x is the share of the decay that is over, not the share of the whole run": final
        + (1 - final) * (1 - math.sqrt(tokens / total)),
        "the decay never begins": 1.0 if want != 1 else math.nan,
    }


@check
def check_clipped_update(fn) -> str:
    """`fn(g, m, v, lr, eps) -> tensor like g`: what StableAdamW subtracts, m and v being those after g."""
    cases = {
        "a gradient as usual": (torch.randn(4, 3), 1.0, 1e-6),
        "a gradient far above its history": (30 * torch.randn(5), 0.04, 1e-6),
        "a spike in one element of the tensor": (torch.tensor([0.1, 0.2, 50.0, -0.1]), 1.0, 1e-6),
        "a gradient below its history": (0.01 * torch.randn(2, 2, 2), 1.0, 1e-6),
        "elements that never had a gradient": (torch.tensor([[0.0, 0.0], [2.0, -3.0]]), 0.02, 1e-6),
        "a large eps": (torch.randn(6), 0.3, 0.5),
    }
    lr = 0.25
    for case, (g, share, eps) in cases.items():
        history = torch.rand_like(g) + 0.5
        if "spike" in case:
            history = torch.full_like(g, 0.02)
        v = share * g**2 + (1 - share) * 0.01 * history if share < 1 else history
        if "never" in case:
            v = share * g**2  # exact zeros
        if "spike" in case:
            v = 0.02 * g**2 + 0.98 * history
        m = 0.3 * torch.randn_like(g) + 0.5 * g
        inputs = [x.clone() for x in (g, m, v)]
        got = fn(*inputs, lr, eps)
        want = _clipped(g, m, v, lr, eps)
        compare(got, want, f"with {case}", _wrong_updates(g, m, v, lr, eps))
        for name, mine, given in zip("gmv", inputs, (g, m, v), strict=True):
            if not torch.equal(mine, given):
                raise NotYet(f"with {case}: the update is right, but {name} was changed in place; leave it as it was")
    return f"agrees with the formula on {len(cases)} tensors"


def _clipped(g, m, v, lr, eps) -> Tensor:
    r = (g**2 / v.clamp(min=eps**2)).mean().sqrt()
    return lr / max(1.0, r.item()) * m / (v.sqrt() + eps)


def _wrong_updates(g, m, v, lr, eps) -> dict[str, Tensor]:
    each = g**2 / v.clamp(min=eps**2)
    r, step = each.mean().sqrt(), m / (v.sqrt() + eps)

    def at(rate) -> Tensor:
        return lr * rate * step

    return {
        "the sign: return what is subtracted, not what is added": -at(1 / r.clamp(min=1)),
        "nothing was clipped; that is AdamW's update": at(1.0),
        "r below 1 must not raise the rate: divide by max(1, r), neither by r nor by min(1, r)": at(1 / r),
        "the rate was multiplied by max(1, r); divide": at(r.clamp(min=1)),
        "each element was clipped by its own g**2 / v; r is one number for the tensor": at(
            1 / each.sqrt().clamp(min=1)
        ),
        "the square root is missing in r: it is a root mean square": at(1 / each.mean().clamp(min=1)),
        "the mean was taken of |g| / sqrt(v); r is the root of the mean square": at(
            1 / each.sqrt().mean().clamp(min=1)
        ),
        "r is the ratio of two means here; take the mean of the ratios g**2 / v": at(
            1 / (g.pow(2).mean() / v.mean()).sqrt().clamp(min=1)
        ),
        "the sum was taken where the mean belongs": at(1 / each.sum().sqrt().clamp(min=1)),
        "r was made from m; it compares the gradient with its history": at(
            1 / (m**2 / v.clamp(min=eps**2)).mean().sqrt().clamp(min=1)
        ),
        "v may be 0 where the gradient is: divide by max(v, eps**2) in r": at(
            1 / (g**2 / v).mean().sqrt().clamp(min=1)
        ),
        "in r it is max(v, eps**2); eps was not squared": at(1 / (g**2 / v.clamp(min=eps)).mean().sqrt().clamp(min=1)),
        "eps stands outside of the square root: sqrt(v) + eps": lr / r.clamp(min=1) * m / (v + eps).sqrt(),
        "m was divided by v; by its square root": lr / r.clamp(min=1) * m / (v + eps),
        "the gradient was used in the place of m": lr / r.clamp(min=1) * g / (v.sqrt() + eps),
        "the learning rate is missing": step / r.clamp(min=1),
    }


@check
def check_accumulate(fn) -> str:
    """`fn(mean_loss, microbatches) -> loss`, gradients left in `.grad`: as if all rows had been one batch."""
    cases = {
        "two microbatches with 1 and 7 masked tokens": ([1, 7], [8, 12]),
        "three microbatches with 3 each": ([3, 3, 3], None),
        "microbatches of 2, 5 and 1 masked tokens, the rows of unequal length": ([2, 5, 1], [9, 5, 3]),
        "a single microbatch": ([4], None),
    }
    for case, (counts, lengths) in cases.items():
        microbatches = [_microbatch(n, 8 if lengths is None else lengths[i]) for i, n in enumerate(counts)]
        lesson = _Model()
        got = fn(lesson.mean_loss, [(x.clone(), labels.clone()) for x, labels in microbatches])
        lesson.compare(got, microbatches, case)
    return f"gives the big batch's loss and gradients in {len(cases)} cases, one graph at a time"


def _microbatch(masked: int, length: int) -> tuple[Tensor, Tensor]:
    labels = torch.full((length,), -100)
    labels[torch.randperm(length)[:masked]] = torch.randint(0, 5, (masked,))
    return torch.randn(length, 3, dtype=torch.float64), labels


class _Model:
    """A linear classifier of 5 classes that notes in which order losses are asked for and backward passes are run."""

    def __init__(self):
        self.weight = nn.Parameter(torch.randn(5, 3, dtype=torch.float64))
        self.asked, self.waiting, self.most_waiting = 0, 0, 0

    def mean_loss(self, x: Tensor, labels: Tensor) -> Tensor:
        self.asked += 1
        self.waiting += 1
        self.most_waiting = max(self.most_waiting, self.waiting)
        logits = x @ self.weight.T
        logits.register_hook(self._backward)
        return F.cross_entropy(logits, labels)

    def _backward(self, grad: Tensor) -> None:
        self.waiting -= 1

    def gradient_of(self, loss: Callable[[Tensor], Tensor]) -> tuple[Tensor, float]:
        weight = self.weight.detach().clone().requires_grad_()
        value = loss(weight)
        return torch.autograd.grad(value, weight)[0], value.item()

    def compare(self, got, microbatches: list, case: str) -> None:
        def means(w: Tensor) -> list[Tensor]:
            return [F.cross_entropy(x @ w.T, labels) for x, labels in microbatches]

        def weighted(w: Tensor, shares) -> Tensor:
            return sum(share * mean for share, mean in zip(shares, means(w), strict=True))

        masked = [int((labels != -100).sum()) for _, labels in microbatches]
        lengths = [len(labels) for _, labels in microbatches]
        total, places, n = sum(masked), sum(lengths), len(microbatches)
        want, loss = self.gradient_of(lambda w: weighted(w, [m / total for m in masked]))
        wrong = {
            "that is the mean of the means: a token of a microbatch with few masked ones counts more": [1 / n] * n,
            "the means were summed and not divided": [1.0] * n,
            "that is a sum over tokens; divide by all masked tokens of the step": [float(m) for m in masked],
            "the weights are the rows' lengths; count the masked tokens (labels != -100)": [
                c / places for c in lengths
            ],
            "each microbatch was divided by its own masked tokens once more; mean_loss has done that": [
                1 / m / total for m in masked
            ],
            "the sum of the losses was divided by all tokens, masked or not": [m / places for m in masked],
            "only the last microbatch is in the gradient; let them add up": [0.0] * (n - 1) + [masked[-1] / total],
            "only the last microbatch is in the gradient, and unscaled": [0.0] * (n - 1) + [1.0],
        }
        if self.weight.grad is None:
            raise NotYet(f"{case}: there is no gradient; call backward() on each microbatch's share of the loss")
        mistakes = {words: self.gradient_of(lambda w, s=shares: weighted(w, s))[0] for words, shares in wrong.items()}
        compare(self.weight.grad, want, f"{case}: gradient", mistakes)
        if self.asked > n:
            raise NotYet(f"{case}: the gradient is right, but the loss was computed {self.asked} times for {n}")
        if self.most_waiting > 1:
            raise NotYet(
                f"{case}: the gradient is right, but {self.most_waiting} graphs were kept at once; call backward() "
                "before the next microbatch, or nothing is saved"
            )
        if got is None:
            raise NotYet(f"{case}: the gradient is right; return the loss too")
        if not isinstance(got, Tensor | int | float) or (isinstance(got, Tensor) and got.numel() != 1):
            raise NotYet(f"{case}: the gradient is right; return the loss as one number, not {short(got)}")
        value = got.item() if isinstance(got, Tensor) else got
        values = {f"the loss: {words}": sum(s * m.item() for s, m in zip(shares, means(self.weight), strict=True))
                  for words, shares in wrong.items()}  # fmt: skip
        compare_number(value, loss, case, values)
