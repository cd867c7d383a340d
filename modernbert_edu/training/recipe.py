"""Pretraining recipes as values: what BERT was trained with, what ModernBERT was, and why.

Every number of a recipe stands beside the reason for it, so `reasons("modernbert")` can print both. The published
values are for a cluster; `Recipe.preset("modernbert", tokens=1_000_000, ...)` replaces what a smaller machine needs
replaced, and each replacement is checked anew.

"Tokens" of a budget are places: a microbatch of 1,024 places counts 1,024, whether 1,019 of them are filled or all.
So the whole plan of a run (how many steps, how large, at which learning rate) is known before it begins.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from dataclasses import dataclass, fields

from ..errors import InputError


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how a masked language model is trained, but not what is trained, on what, or where.

    Raises `InputError` at construction when the values cannot go together.
    """

    # How long, how much at once. All in tokens.
    tokens: int
    length: int  # the longest sequence
    tokens_per_step: int  # the batch
    microbatch_tokens: int  # what one forward pass takes; several are accumulated to a batch
    batch_warmup_tokens: int  # over so many tokens the batch grows from ...
    batch_warmup_start: int  # ... so many tokens a step; equal to tokens_per_step: no growth
    packing: bool  # rows packed full, or a rectangle with pads

    # What is to be learnt.
    mask_rate: float
    eval_mask_rate: float  # one rate for every model, or their losses could not be compared
    next_sentence: bool

    # The optimizer.
    optimizer: str
    learning_rate: float
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    decoupled: bool  # from the learning rate, too
    clip_norm: float | None  # of the whole gradient

    # The learning rate over time.
    schedule: str
    warmup_tokens: int
    decay_tokens: int
    decay_shape: str
    final_share: float  # of the learning rate, at the end of the decay

    average_last: int  # checkpoints averaged at the end, the last one among them; 1: none
    global_rope_theta: float  # of a model with RoPE, in this phase

    def __post_init__(self):
        _check_budget(self)
        _check_kinds(self)
        _check_numbers(self)

    @classmethod
    def preset(cls, name: str, **changes) -> Recipe:
        """A published recipe with `changes` applied. Raises `InputError` for a name or a field that there is not."""
        if name not in RECIPES:
            raise InputError(f"there is no recipe {name!r}; there are: {', '.join(RECIPES)}")
        return cls.from_dict({**{field: value for field, (value, _) in RECIPES[name].items()}, **changes})

    @classmethod
    def from_dict(cls, values: dict) -> Recipe:
        known = [f.name for f in fields(cls)]
        for name in values:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"the fields are: {', '.join(known)}"
                raise InputError(f"a recipe has no field {name!r}; {hint}")
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})

    def replace(self, **changes) -> Recipe:
        return self.from_dict({**self.to_dict(), **changes})

    def to_dict(self) -> dict:
        return dataclasses.asdict(self)

    def shrunk(
        self, *, tokens: int, length: int, tokens_per_step: int, microbatch_tokens: int, learning_rate: float,
        warmup_share: float = 0.1, decay_share: float = 0.3,
    ) -> Recipe:  # fmt: skip
        """The same ideas for a run of minutes: budget and learning rate are replaced, warm-up and decay become shares.

        The published shares would leave a short run two steps of warm-up. A batch that grows begins at a sixth of its
        full size as the paper's does, over the same share of the tokens. A phase that ends in a decay keeps it.
        """
        constant = self.schedule == "wsd"
        unit = microbatch_tokens
        grows = self.batch_warmup_start < self.tokens_per_step
        start = max(unit, tokens_per_step // 6 // unit * unit) if grows else tokens_per_step
        return self.replace(
            tokens=tokens,
            length=length,
            tokens_per_step=tokens_per_step,
            microbatch_tokens=microbatch_tokens,
            learning_rate=learning_rate,
            batch_warmup_start=start,
            batch_warmup_tokens=round(tokens * self.batch_warmup_tokens / self.tokens)
            if start < tokens_per_step
            else 0,
            warmup_tokens=round(warmup_share * tokens) if self.warmup_tokens else 0,
            decay_tokens=round(decay_share * tokens) if constant else 0,
        )


def _check_budget(r: Recipe) -> None:
    for name in ("tokens", "length", "tokens_per_step", "microbatch_tokens", "batch_warmup_start", "average_last"):
        if not isinstance(getattr(r, name), int) or isinstance(getattr(r, name), bool) or getattr(r, name) < 1:
            raise InputError(f"{name} must be a whole number of at least 1, not {getattr(r, name)!r}")
    if r.length < 16:
        raise InputError(f"length {r.length} leaves a sequence no context to guess from; give at least 16 tokens")
    if r.length > LONGEST:
        raise InputError(f"length {r.length:,} is more than can be trained here; the longest is {LONGEST:,}")
    if r.microbatch_tokens < r.length:
        raise InputError(
            f"microbatch_tokens ({r.microbatch_tokens:,}) is below one document of length {r.length:,}; raise it, or "
            "shorten length"
        )
    for name in ("tokens_per_step", "batch_warmup_start"):
        if getattr(r, name) % r.microbatch_tokens:
            raise InputError(
                f"{name} ({getattr(r, name):,}) must be a multiple of microbatch_tokens ({r.microbatch_tokens:,}): "
                "a step is a whole number of forward passes"
            )
    if r.batch_warmup_start > r.tokens_per_step:
        raise InputError(f"batch_warmup_start ({r.batch_warmup_start:,}) is above tokens_per_step: a batch only grows")
    if r.tokens < r.tokens_per_step:
        raise InputError(f"tokens ({r.tokens:,}) is less than one step of {r.tokens_per_step:,}; train longer")


def _check_kinds(r: Recipe) -> None:
    for f in fields(r):
        value = getattr(r, f.name)
        if not _is_a(f.type, value):
            raise InputError(f"{f.name} must be {KINDS[f.type]}, not {value!r}")


def _is_a(kind: str, value) -> bool:
    if kind in ("bool", "str"):
        return type(value).__name__ == kind
    if kind == "tuple[float, float]":
        return isinstance(value, tuple | list) and len(value) == 2 and all(_is_a("float", one) for one in value)
    if kind == "float | None" and value is None:
        return True
    number = isinstance(value, int if kind == "int" else int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)


def _check_numbers(r: Recipe) -> None:
    for name in ("mask_rate", "eval_mask_rate"):
        if not 0 < getattr(r, name) < 1:
            raise InputError(f"{name} is a share of the tokens, above 0 and below 1, not {getattr(r, name)!r}")
    if not 0 < r.learning_rate <= 1:
        raise InputError(f"learning_rate must be above 0 and at most 1, not {r.learning_rate!r}; 1e-4 to 5e-3 is usual")
    for name, allowed in CHOICES.items():
        if getattr(r, name) not in allowed:
            raise InputError(f"{name} must be one of {', '.join(map(repr, allowed))}, not {getattr(r, name)!r}")
    if len(r.betas) != 2 or not all(0 <= beta < 1 for beta in r.betas):
        raise InputError(f"betas must be two numbers in [0, 1), not {r.betas!r}")
    if not r.eps > 0 or not r.weight_decay >= 0 or not r.global_rope_theta > 0:
        raise InputError("eps and global_rope_theta must be above 0, weight_decay 0 or more")
    if r.clip_norm is not None and not r.clip_norm > 0:
        raise InputError(f"clip_norm must be above 0, or None for no clipping, not {r.clip_norm!r}")
    for name in ("warmup_tokens", "decay_tokens", "batch_warmup_tokens"):
        if getattr(r, name) < 0:
            raise InputError(f"{name} must be 0 or more, not {getattr(r, name)!r}")
    if r.warmup_tokens + r.decay_tokens > r.tokens:
        raise InputError(
            f"warmup_tokens and decay_tokens ({r.warmup_tokens:,} + {r.decay_tokens:,}) are more than tokens "
            f"({r.tokens:,}); shorten one of them"
        )
    if not 0 <= r.final_share <= 1:
        raise InputError(f"final_share is a share of the learning rate, in [0, 1], not {r.final_share!r}")
    if r.next_sentence and r.packing:
        raise InputError("next_sentence needs packing=False: BERT's pairs come as a padded rectangle")


LONGEST = 2**20
KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a name",
    "tuple[float, float]": "two numbers",
    "float | None": "a number, or None for no clipping",
}
CHOICES = {
    "optimizer": ("stable_adamw", "adamw"),
    "schedule": ("wsd", "linear"),
    "decay_shape": ("1-sqrt", "linear", "cosine"),
}

# field: (value, why). Devlin et al. 2019, section 3.1 and A.2, and the published code of that paper.
_BERT_2018: dict[str, tuple[object, str]] = {
    "tokens": (1_000_000 * 131_072, "1,000,000 steps, about 40 passes over 3.3 billion words (A.2)"),
    "length": (512, "the position table ends there; nine tenths of the steps ran at 128 to save time (A.2)"),
    "tokens_per_step": (131_072, "256 sequences of 512 tokens (A.2)"),
    "microbatch_tokens": (16_384, "what a GPU takes at once; 8 of them make a step"),
    "batch_warmup_tokens": (0, "the batch never grows"),
    "batch_warmup_start": (131_072, "the whole batch from the first step"),
    "packing": (False, "a rectangle, its pads computed like tokens"),
    "mask_rate": (0.15, "chosen without an ablation (3.1); Wettig et al. 2023 found it too low"),
    "eval_mask_rate": (0.15, "held-out losses compare only at one rate, and this is the easier one"),
    "next_sentence": (True, "to learn relations between sentences (3.1, task 2); RoBERTa found it useless"),
    "optimizer": ("adamw", "Adam with weight decay (A.2)"),
    "learning_rate": (1e-4, "A.2"),
    "betas": ((0.9, 0.999), "A.2"),
    "eps": (1e-6, "the published code"),
    "weight_decay": (0.01, "A.2; none on norms and biases"),
    "decoupled": (False, "the decay shrinks with the learning rate"),
    "clip_norm": (1.0, "the published code: no step follows a gradient longer than this"),
    "schedule": ("linear", "down to zero from the end of the warm-up on (A.2)"),
    "warmup_tokens": (10_000 * 131_072, "10,000 steps (A.2): post-norm layers do not survive full steps at first"),
    "decay_tokens": (0, "all after the warm-up is decay, so none is apart"),
    "decay_shape": ("linear", "A.2"),
    "final_share": (0.0, "the last step is almost nothing"),
    "average_last": (1, "the last weights are taken as they are"),
    "global_rope_theta": (10_000.0, "unused: positions are a learned table"),
}

# Warner et al. 2024, section 2.2 and table 3; the batch in sequences is the published configuration's.
_MODERNBERT: dict[str, tuple[object, str]] = {
    "tokens": (1_719_000_000_000, "1.719 trillion (table 3)"),
    "length": (1024, "attention is quadratic: most is learnt where it is cheap, and length comes after"),
    "tokens_per_step": (4608 * 1024, "4,608 sequences"),
    "microbatch_tokens": (96 * 1024, "96 sequences on each GPU, packed into one row"),
    "batch_warmup_tokens": (50_000_000_000, "while the loss falls fast, small batches do"),
    "batch_warmup_start": (768 * 1024, "768 sequences, a sixth of the full batch"),
    "packing": (True, "rows more than 99 % full, so that every step costs the same (2.2.1)"),
    "mask_rate": (0.3, "more to learn from each pass (2.2.2, after Wettig et al. 2023)"),
    "eval_mask_rate": (0.15, "held-out losses compare only at one rate"),
    "next_sentence": (False, "it costs time and RoBERTa found that it does not help (2.2.2)"),
    "optimizer": ("stable_adamw", "clips each tensor's update instead of the whole gradient (2.2.2)"),
    "learning_rate": (8e-4, "table 3, base; large: 5e-4"),
    "betas": ((0.90, 0.98), "table 3: a second moment that forgets faster follows sudden changes"),
    "eps": (1e-6, "table 3"),
    "weight_decay": (1e-5, "table 3: a share of the weight itself each step, whatever the learning rate"),
    "decoupled": (True, "from the learning rate: at its peak like AdamW with 0.0125"),
    "clip_norm": (None, "the optimizer's own clipping is enough (2.2.2)"),
    "schedule": ("wsd", "warm-up, constant, decay: a run can be prolonged or decayed from any point (2.2.2)"),
    "warmup_tokens": (3_000_000_000, "table 3"),
    "decay_tokens": (0, "phase one stays constant; the decay is phase three"),
    "decay_shape": ("1-sqrt", "better than linear and cosine (2.2.2)"),
    "final_share": (0.001, "the published configuration"),
    "average_last": (1, "phase one ends in a checkpoint to go on from"),
    "global_rope_theta": (10_000.0, "short sequences need no slow rotations"),
}

_MODERNBERT_CONTEXT: dict[str, tuple[object, str]] = _MODERNBERT | {
    "tokens": (300_000_000_000, "250 billion constant and 50 billion of decay (2.2.2); not million, as often quoted"),
    "length": (8192, "what retrieval and code need"),
    "tokens_per_step": (576 * 8192, "576 sequences: as many tokens as before, so the learning rate keeps its meaning"),
    "microbatch_tokens": (12 * 8192, "12 sequences on each GPU: as many tokens as before"),
    "batch_warmup_tokens": (0, "the batch is warm already"),
    "batch_warmup_start": (576 * 8192, "the whole batch"),
    "learning_rate": (3e-4, "table 3, base: lower, not to undo what is learnt"),
    "warmup_tokens": (0, "the optimizer's state is kept"),
    "decay_tokens": (50_000_000_000, "phase three: the decay, on the best data"),
    "average_last": (4, "the base model is the mean of four checkpoints of the decay"),
    "global_rope_theta": (160_000.0, "global layers must tell 8,192 positions apart; changed at once, not by and by"),
}

RECIPES = {"modernbert": _MODERNBERT, "bert-2018": _BERT_2018, "modernbert-context": _MODERNBERT_CONTEXT}


def reasons(name: str) -> dict[str, tuple[object, str]]:
    """{field: (published value, why)} of a recipe."""
    if name not in RECIPES:
        raise InputError(f"there is no recipe {name!r}; there are: {', '.join(RECIPES)}")
    return dict(RECIPES[name])
