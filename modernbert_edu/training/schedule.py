"""Learning rate and batch size as functions of the tokens seen so far.

    multiplier                  of the peak learning rate: warm-up, stable, decay; or BERT's warm-up and linear decay
    batch_size_at, step_sizes   a batch that grows, an equal number of steps at each size

Nothing here has a state, so a run that was stopped goes on at the value it would have had. "Tokens" are places of the
budget, pads and empty ends of rows among them: so the whole plan is known before the run.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate

from ..errors import InputError


def multiplier(recipe, tokens: float) -> float:
    """What the peak learning rate is multiplied by once `tokens` of the budget are used: a share of it, 0 to 1.

    `recipe` is a `Recipe` or anything with its fields of that part.
    """
    if recipe.schedule == "linear":
        return linear(tokens, warmup=recipe.warmup_tokens, total=recipe.tokens)
    if recipe.schedule != "wsd":
        raise InputError(f"there is no schedule {recipe.schedule!r}; there are: 'wsd', 'linear'")
    return warmup_stable_decay(
        tokens,
        warmup=recipe.warmup_tokens,
        total=recipe.tokens,
        decay=recipe.decay_tokens,
        shape=recipe.decay_shape,
        final_share=recipe.final_share,
    )


def warmup_stable_decay(
    tokens: float, *, warmup: float, total: float, decay: float, shape: str = "1-sqrt", final_share: float = 0.001
) -> float:
    """Linear from 0 to 1 over `warmup` tokens, 1 until `decay` tokens before `total`, then down to `final_share`.

    With x, 0 to 1, the share of the decay that is over and a = `final_share`: a + (1 - a)(1 - sqrt(x)) for "1-sqrt",
    a + (1 - a)(1 - x) for "linear", a + (1 - a)(1 + cos(pi x)) / 2 for "cosine". `decay` 0 stays at 1 for ever.
    Hu et al. 2024 (MiniCPM, arXiv 2404.06395), section 4, for the plan; Haegele et al. 2024 (arXiv 2405.18392) for
    1-sqrt; ModernBERT uses both (Warner et al. 2024, section 2.2.2).
    """
    _check(warmup, total, decay)
    if shape not in SHAPES:
        raise InputError(f"a decay has no shape {shape!r}; there are: {', '.join(map(repr, SHAPES))}")
    if not 0 <= final_share <= 1:
        raise InputError(f"final_share is a share of the learning rate, in [0, 1], not {final_share!r}")
    if tokens < warmup:
        return tokens / warmup
    begin = total - decay
    if decay == 0 or tokens <= begin:
        return 1.0
    x = min(1.0, (tokens - begin) / decay)
    return final_share + (1 - final_share) * SHAPES[shape](x)


SHAPES = {
    "1-sqrt": lambda x: 1 - math.sqrt(x),
    "linear": lambda x: 1 - x,
    "cosine": lambda x: (1 + math.cos(math.pi * x)) / 2,
}


def linear(tokens: float, *, warmup: float, total: float) -> float:
    """Linear from 0 to 1 over `warmup` tokens, then straight down to 0 at `total` (Devlin et al. 2019, A.2)."""
    _check(warmup, total)
    if tokens < warmup:
        return tokens / warmup
    return max(0.0, (total - tokens) / (total - warmup)) if warmup < total else 1.0


def _check(warmup: float, total: float, decay: float = 0) -> None:
    if not (warmup >= 0 and decay >= 0 and total > 0):
        raise InputError(f"a schedule needs tokens: warm-up {warmup!r}, decay {decay!r}, all {total!r}; none below 0")
    if warmup + decay > total:
        raise InputError(
            f"warm-up and decay ({warmup:,} + {decay:,} tokens) are longer than the run ({total:,}); shorten one"
        )


# ---- the batch -------------------------------------------------------------------------------------------------------


def batch_sizes(start: int, end: int, unit: int) -> list[int]:
    """The sizes a batch goes through: `start`, one `unit` more, ... and at last `end`. All in tokens."""
    if not (0 < start <= end and unit > 0):
        raise InputError(f"a batch grows from {start!r} to {end!r} in steps of {unit!r} tokens: none may be below 1, "
                         "and the start not above the end")  # fmt: skip
    return [*range(start, end, unit), end]


def batch_size_at(tokens: int, *, start: int, end: int, unit: int, warmup: int) -> int:
    """Tokens of the next step, once `tokens` are used. It is `end` from `warmup` tokens on.

    Size b is left after ceil(warmup / (sum of all sizes but `end`) * (sum of the sizes up to b)) tokens. So each size
    gets a share of the warm-up in proportion to itself, which is the same number of steps. ModernBERT's published
    training code does this; the paper (section 2.2.2) says only how long the warm-up lasts.
    """
    if warmup < 0:
        raise InputError(f"a batch's warm-up must last 0 tokens or more, not {warmup!r}")
    sizes = batch_sizes(start, end, unit)
    whole = sum(sizes[:-1])
    leave = [-(-warmup * up_to // whole) for up_to in accumulate(sizes[:-1])]  # whole numbers only: exact
    return sizes[bisect_right(leave, tokens)]


def step_sizes(recipe) -> Iterator[int]:
    """Tokens of each step until `recipe.tokens` are used; the last step may go over.

    Sizes are multiples of `recipe.batch_warmup_start`, as in the published runs (768, 1,536, ... 4,608 sequences), so
    that processes which divide the first step divide all.
    """
    tokens = 0
    while tokens < recipe.tokens:
        size = batch_size_at(
            tokens,
            start=recipe.batch_warmup_start,
            end=recipe.tokens_per_step,
            unit=recipe.batch_warmup_start,
            warmup=recipe.batch_warmup_tokens,
        )
        yield size
        tokens += size
