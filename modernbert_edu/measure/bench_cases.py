"""What `bench` measures: the cases, who takes part in them, and what fits into the time.

cases    inference and a training step, x sequences of one length or of mixed lengths, x that length
rows     ours on each attention backend, and compiled; transformers' models (peers.py)
plan     by an estimate of each row's arithmetic, the important rows first; every reduction is said in words
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import psutil
import torch
from torch import Tensor

from ..attention import BACKENDS, choose_backend
from ..config import EncoderConfig
from ..errors import InputError
from ..kernels import KERNELS, why_not
from ..runtime import default_dtype
from .flops import forward_flops
from .peers import check_size, transformers_module

TASKS = ("inference", "training")
MASKED = 0.3
THEIRS = "transformers' ModernBERT"


@dataclass(frozen=True)
class Setup:
    """What is asked for. `dtype` is that of the arithmetic; `lengths` and `backend` None mean the device's defaults."""

    size: str = "base"
    device: torch.device = torch.device("cpu")
    dtype: torch.dtype = torch.float32
    only: tuple[str, ...] = TASKS
    lengths: tuple[int, ...] = (512, 8192)
    backend: str | None = None
    compile: bool = True
    minutes: float = 9.0
    seed: int = 0

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"


def make_setup(
    device: torch.device,
    *,
    size: str = "base",
    only: Sequence[str] | None = None,
    lengths: Sequence[int] | None = None,
    backend: str | None = None,
    compile: bool = True,
    minutes: float = 9.0,
    seed: int = 0,
) -> Setup:
    """What is asked for, checked before anything is built. Raises `InputError` for what cannot be had here."""
    check_size(size)
    transformers_module()
    lengths = tuple(lengths or ((512, 1024, 8192) if device.type == "cuda" else (512, 8192)))
    if min(lengths) < 32:
        raise InputError(f"lengths must be at least 32 tokens, not {min(lengths)}")
    if max(lengths) > 8192:
        raise InputError(f"ModernBERT is meant for 8192 tokens at most, not {max(lengths)}; ask for shorter --lengths")
    if not 0 < minutes < math.inf:
        raise InputError(f"--minutes must be above 0, not {minutes}")
    dtype = default_dtype(device)[0] if device.type == "cuda" else torch.float32
    if backend == "auto":
        backend = None
    if backend is not None and backend not in BACKENDS:
        raise InputError(f"no attention backend is called {backend!r}; there are: auto, {', '.join(BACKENDS)}")
    if backend in KERNELS and (reason := why_not(backend, device, dtype)):
        raise InputError(f"attention backend {backend!r} cannot be used here: {reason}")
    tasks = tuple(task for task in TASKS if task in (only or TASKS))
    return Setup(size, device, dtype, tasks, lengths, backend, compile, minutes, seed)


# ---- cases and rows --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """One batch and what is done with it."""

    task: str  # inference | training
    batch: str  # fixed | variable
    length: int  # every sequence's, or the longest there can be; the rectangle is padded to it
    sequences: int
    seed: int = 0

    @property
    def title(self) -> str:
        return f"{self.task}, {self.batch} {self.length:,}"

    @property
    def lengths(self) -> list[int]:
        """Real tokens of each sequence."""
        n = self.length
        if self.batch == "fixed":
            return [n] * self.sequences
        drawn = n / 2 + n / 8 * torch.randn(self.sequences, generator=torch.Generator().manual_seed(self.seed))
        return drawn.round().clamp(16, n).int().tolist()

    @property
    def tokens(self) -> int:
        return sum(self.lengths)


def all_cases(setup: Setup) -> list[Case]:
    """Tokens of a rectangle: 4,096 (at least one sequence) on a CPU, 65,536 on a GPU."""
    room = 65_536 if setup.cuda else 4096
    return [
        Case(task, batch, n, max(1, room // n), setup.seed)
        for task in setup.only
        for n in setup.lengths
        for batch in ("variable", "fixed")
    ]


def importance(case: Case, setup: Setup) -> int:
    """0 for the cases that have a target on this device; more where time is better spent elsewhere."""
    if setup.cuda:
        return 0
    if case.task == "inference":
        return 4 if case.length > 512 and case.batch == "variable" else 0
    return 0 if case.length <= 512 and case.batch == "variable" else 4 if case.length <= 512 else 6


def make_batch(case: Case, vocabulary: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """(input_ids, attention_mask, labels), all (sequences, length): random ids, 30 % of the real ones masked."""
    generator = torch.Generator().manual_seed(case.seed)
    mask = (torch.arange(case.length) < torch.tensor(case.lengths)[:, None]).long()
    input_ids = torch.randint(5, vocabulary, mask.shape, generator=generator) * mask
    real = mask.flatten().nonzero().flatten()
    chosen = real[torch.randperm(len(real), generator=generator)[: masked_tokens(case)]]
    labels = torch.full((mask.numel(),), -100)
    labels[chosen] = input_ids.flatten()[chosen]
    return input_ids.to(device), mask.to(device), labels.view_as(mask).to(device)


def masked_tokens(case: Case) -> int:
    return max(1, round(MASKED * case.tokens))


@dataclass(frozen=True)
class Row:
    """Who runs. Rows of level 0 are what a case is about; the others are left out first when time is short."""

    key: str
    title: str
    peer: str  # whose weights: bert, roberta, deberta, modernbert; "ours" has modernbert's
    level: int
    backend: str = ""
    compiled: bool = False
    best: bool = False


def rows_for(case: Case, setup: Setup) -> list[Row]:
    """Everyone who can take part in a case. BERT and RoBERTa have 512 positions; DeBERTaV3's are relative."""
    default = setup.backend or choose_backend(setup.device, setup.dtype)[0]
    rows = [Row("ours", f"ours ({default})", "ours", 0, default)]
    if setup.backend is None and setup.cuda:
        others = [b for b in ("varlen", "flash", "sdpa", "flex")
                  if b != default and (b not in KERNELS or why_not(b, setup.device, setup.dtype) is None)]  # fmt: skip
        rows += [Row(f"ours {b}", f"ours ({b})", "ours", 5, b) for b in others]
    compiled_level = 1 if case.task == "inference" and case.batch == "fixed" and case.length <= 512 else 5
    if setup.compile and default in ("sdpa", "varlen", "flash"):
        rows.append(Row("ours compiled", f"ours compiled ({default})", "ours", compiled_level, default, True))
    rows.append(Row("modernbert", THEIRS, "modernbert", 0, "sdpa"))
    if setup.compile:
        rows.append(Row("modernbert compiled", f"{THEIRS} compiled", "modernbert", compiled_level, "sdpa", True))
    if setup.cuda or case.task == "training":  # on a CPU there is nothing better for inference than the row above
        backend = "varlen" if varlen_here(setup) else "sdpa"
        name = f"{THEIRS} at its best"
        rows.append(Row("modernbert best", name, "modernbert", 5, backend, setup.compile, best=True))
    if case.length <= 512:
        rows += [Row("bert", "BERT", "bert", 2, "sdpa"), Row("roberta", "RoBERTa", "roberta", 4, "sdpa")]
    if case.length <= 512 or setup.cuda:
        rows.append(Row("deberta", "DeBERTaV3", "deberta", 3, "eager"))
    return rows


def varlen_here(setup: Setup) -> bool:
    return why_not("varlen", setup.device, setup.dtype) is None


# ---- arithmetic, time and memory, estimated --------------------------------------------------------------------------


def config_of(row: Row, size: str) -> EncoderConfig:
    """The row's architecture in our words; DeBERTaV3's relative positions have none, so it passes for a BERT."""
    if row.peer in ("ours", "modernbert"):
        return EncoderConfig.preset(f"modernbert-{size}")
    vocabulary = {} if size == "tiny" else {"roberta": dict(vocab_size=50_265), "deberta": dict(vocab_size=128_100)}
    return EncoderConfig.preset(f"bert-{size}", **vocabulary.get(row.peer, {}))


def useful_flops(row: Row, case: Case, size: str) -> int | None:
    """Operations that the real tokens need, whoever computes them; None for DeBERTaV3, which no formula here covers."""
    if row.peer == "deberta":
        return None
    training = case.task == "training"
    config = config_of(row, size).replace(unpad=True)
    return forward_flops(config, case.lengths, masked=masked_tokens(case) if training else None).total * (
        3 if training else 1
    )


def computed_flops(row: Row, case: Case, size: str) -> float:
    """Operations that the row really does, as far as known: for estimates of time only."""
    training, config = case.task == "training", config_of(row, size)
    if row.peer == "ours":
        return float(useful_flops(row, case, size))
    # The peers compute the pads, under sdpa all pairs in local layers too, and logits for every token.
    masked = masked_tokens(case) if row.best else case.sequences * case.length
    config = config.replace(unpad=False, attention_pattern="G")
    flops = forward_flops(config, case.lengths, masked=masked if training else None, padded_to=case.length).total
    return flops * (3 if training else 1) * (2 if row.peer == "deberta" else 1)


COMPILE_SECONDS = {"tiny": 20, "base": 60, "large": 80}


def seconds_needed(row: Row, case: Case, setup: Setup, rates: dict[str, float]) -> float:
    """What a row will take: a first call, the fewest repeats, its memory, the compiler."""
    one = computed_flops(row, case, setup.size) / rates["ours" if row.peer == "ours" else "theirs"]
    calls = 4 + (2.0 if setup.cuda else 0.4) * (case.task == "training")
    compiling = COMPILE_SECONDS[setup.size] * (2 if case.task == "training" else 1) if row.compiled else 0
    return one * calls + compiling


def bytes_needed(row: Row, case: Case, size: str) -> int:
    """A rough lower bound of what one call allocates, in float32: hidden states, masks or scores, logits, gradients."""
    config, training = config_of(row, size), case.task == "training"
    padded = case.sequences * case.length
    tokens = case.tokens if row.peer == "ours" else padded
    kept = config.num_hidden_layers if training else 1
    total = tokens * kept * (8 * config.hidden_size + 3 * config.intermediate_size)
    pairs = case.sequences * case.length**2
    if row.peer == "deberta":
        total += 3 * pairs * config.num_attention_heads * kept
    if row.peer == "modernbert":
        total += 2 * pairs
    if training:
        logits = masked_tokens(case) if row.best or row.peer == "ours" else padded
        total += 2 * logits * config.vocab_size + config.num_parameters()
    return 4 * total


def free_bytes() -> int:
    return psutil.virtual_memory().available


# ---- the plan --------------------------------------------------------------------------------------------------------

Plan = list[tuple[Case, list[Row]]]


def make_plan(
    cases: Sequence[Case],
    rows: Callable[[Case], list[Row]],
    level: Callable[[Case], int],
    seconds: Callable[[Row, Case], float],
    budget: float,
) -> tuple[Plan, list[str]]:
    """Which rows of which cases fit into `budget` seconds, the important first: -> (plan, what was reduced, in words).

    Rows of one level of one case stay or go together, for one alone compares with nothing. A case of which nothing
    fits is tried with half the sequences, and half of that.
    """
    chosen: dict[int, Case] = dict(enumerate(cases))
    kept: dict[int, set[int]] = {i: set() for i in chosen}
    groups = sorted((level(case) + row.level, row.level, i) for i, case in chosen.items() for row in rows(case))
    said, spent = [], 0.0
    for _, row_level, i in dict.fromkeys(groups):
        if row_level and 0 not in kept[i]:
            continue  # the case itself was left out
        found = None
        for case in [chosen[i]] if row_level else smaller_batches(chosen[i]):
            cost = sum(seconds(row, case) for row in rows(case) if row.level == row_level)
            if spent + cost <= budget:
                found = case
                break
        if found is None:
            names = ", ".join(row.title for row in rows(chosen[i]) if row.level == row_level)
            left_out = f"{chosen[i].title}: left out" + (f" {names}" if row_level else " altogether")
            said.append(f"{left_out}, {cost:,.0f} s and {max(0, budget - spent):,.0f} s left")
            continue
        if found != chosen[i]:
            said.append(f"{found.title}: {found.sequences} sequences instead of {chosen[i].sequences}")
        chosen[i] = found
        kept[i].add(row_level)
        spent += cost
    plan = [(chosen[i], [row for row in rows(chosen[i]) if row.level in kept[i]]) for i in chosen if kept[i]]
    return plan, said


def smaller_batches(case: Case) -> list[Case]:
    """The case, with half its sequences, a quarter ...; mixed lengths need a few sequences to be mixed."""
    found, fewest = [case], 4 if case.batch == "variable" and case.sequences > 1 else 1
    while found[-1].sequences // 2 >= fewest:
        found.append(replace(case, sequences=found[-1].sequences // 2))
    return found
