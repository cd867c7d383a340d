"""`python -m modernbert_edu bench`: this package and its peers on the same batches, side by side in one run.

    bench_cases.py    the cases, who takes part in them, and what fits into the time
    peers.py          transformers' models
    here              models are built and timed: one call of each, so that a row that cannot run says so; then all of
                      a case in turns (speed.time_interleaved)
    bench_report.py   tables, and the targets that this project promises, computed from the records
    bench_plots.py    the picture

All rows get one padded batch, (sequences, length), through the public call `model(input_ids, attention_mask)`: for ours
the gather of the real tokens and the scatter back are in the time. Only real tokens count. Inference is the encoder
without its head; a training step is the masked language model forward and backward, 30 % of the real tokens masked, on
CUDA with AdamW's step. Variable lengths are N(n / 2, n / 8) clamped to 16 ... n (ModernBERT paper, section 4.2).
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..attention import attention, choose_backend
from ..errors import InputError
from ..runtime import progress
from ..training.pretrain import autocast
from ..unpadding import Layout
from .bench_cases import (
    THEIRS,
    Case,
    Row,
    Setup,
    all_cases,
    bytes_needed,
    computed_flops,
    free_bytes,
    importance,
    make_batch,
    make_plan,
    rows_for,
    seconds_needed,
    useful_flops,
    varlen_here,
)
from .bench_report import case_table, cost_table, slopes, target_table
from .memory import peak_memory, training_memory
from .peers import at_its_best, build_peer, ours_as, ours_like
from .speed import forward_call, synchronise, time_interleaved, tokens_per_second, tokens_per_second_spread

REPEATS = 7
GIB = 2**30


# ---- models ----------------------------------------------------------------------------------------------------------


class Models:
    """The models of one task, each built when first asked for. Rows of the same model share its weights."""

    def __init__(self, setup: Setup, task: str):
        self.setup, self.task, self.made = setup, task, {}
        # Inference in half precision has half weights; training keeps them in float32 and casts (autocast).
        self.dtype = setup.dtype if task == "inference" else torch.float32

    def base(self, peer: str) -> nn.Module:
        if peer not in self.made:
            if peer == "ours":
                self.made[peer] = ours_like(self.base("modernbert"))
            else:
                self.made[peer] = build_peer(peer, self.setup.size, self.setup.seed).to(self.setup.device, self.dtype)
        return self.made[peer]

    def model(self, row: Row, tokens: int) -> nn.Module:
        """What is called: the encoder for inference, the masked language model for training."""
        model, varlen = self.base(row.peer), varlen_here(self.setup)
        if row.peer == "ours":
            # Filled up to a round number of tokens, as batches of one budget are.
            model = ours_as(model, row.backend, -(-tokens // 128) * 128 if row.compiled else None)
        elif row.best:
            model = at_its_best(model, varlen)
        training = self.task == "training"
        model.train(training)
        if not training:
            model = model.encoder if row.peer == "ours" else model.base_model
        if row.compiled and row.peer != "ours":
            model = torch.compile(model, dynamic=False)
        return model


def make_call(model: nn.Module, task: str, batch: tuple[Tensor, Tensor, Tensor], dtype: torch.dtype) -> Callable:
    """The thing that is timed."""
    input_ids, mask, labels = batch
    if task == "inference":
        return forward_call(model, input_ids, mask)
    device = input_ids.device
    optimizer = None
    if device.type == "cuda":  # a learning rate of 0 is the same work, and the weights stay equal
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, fused=True)

    def step() -> None:
        model.zero_grad(set_to_none=True)
        with autocast(device, dtype):
            loss = model(input_ids, mask, labels=labels).loss
        loss.backward()
        if optimizer is not None:
            optimizer.step()
        model.zero_grad(set_to_none=True)

    return step


def step_in_words(task: str, device: torch.device) -> str:
    if task == "inference":
        return "encoder forward, without head"
    return "forward and backward" + (" and AdamW step" if device.type == "cuda" else ", without optimizer")


# ---- one case --------------------------------------------------------------------------------------------------------


def run_case(
    case: Case,
    rows: Sequence[Row],
    models: Models,
    setup: Setup,
    peak: float,
    allowance: float = math.inf,
    say: Callable[[str], None] = print,
) -> list[dict]:
    """Time the rows of a case in turns: -> records. A row that cannot run says why in its record, the others run."""
    begun = time.perf_counter()
    torch.compiler.reset()  # graphs of the case before; else this one's would count as recompilations
    vocabulary = 4096 if setup.size == "tiny" else 30_522  # ids that all of them have
    batch = make_batch(case, vocabulary, setup.device)
    calls, first, failed, memory = {}, {}, {}, {}
    for row in progress(rows, desc=case.title, unit="model", leave=False):
        try:
            refuse_too_large(row, case, setup)
            model = models.model(row, case.tokens)
            calls[row] = make_call(model, case.task, batch, setup.dtype)
            first[row] = seconds_of(calls[row], setup.device, twice=row.compiled)
            if case.task == "training":
                memory[row] = memory_of(calls[row], model, batch, setup.device)
        except (RuntimeError, MemoryError, InputError) as error:
            calls.pop(row, None)
            first.pop(row, None)
            failed[row] = reason(error)
            free_memory(setup.device)
    allowance = max(0.0, allowance - (time.perf_counter() - begun))
    for row in too_slow(first, allowance):
        failed[row] = f"left out: a call takes {first.pop(row):,.1f} s, too long for the time that is left"
        say(f"reduced: {case.title}: {row.title} {failed[row]}")
        del calls[row]

    timings = {}
    if calls:
        # Each has run once, which was the warm-up; the first turn is not repeated.
        by_key = {row.key: already_warm(call) for row, call in calls.items()}
        timings = time_interleaved(by_key, device=setup.device, repeats=REPEATS, warmup=1, budget_seconds=allowance)
        n = min(timing.n for timing in timings.values())
        if n < REPEATS:
            say(f"reduced: {case.title}: {n} repeats instead of {REPEATS}")
    largest = {}
    if setup.cuda and case.task == "inference":
        largest = {row: largest_batch(trial(models.model(row, case.tokens), case, vocabulary, setup), case.sequences)
                   for row in calls if not row.compiled}  # fmt: skip

    records = []
    for row in rows:
        records += row_records(case, row, timings.get(row.key), failed.get(row), memory.get(row), setup, peak)
        if row in largest:
            records.append(dict(what="largest_batch", value=largest[row], unit="sequences", spread=None, n=1,
                                **about(case, row, setup)))  # fmt: skip
    return records


def refuse_too_large(row: Row, case: Case, setup: Setup) -> None:
    """On a CPU the system would end the whole program; a GPU says by itself when its memory is full."""
    need, free = bytes_needed(row, case, setup.size), free_bytes()
    if setup.device.type != "cuda" and need > 0.9 * free:
        raise MemoryError(f"it needs {need / GIB:,.1f} GiB, {free / GIB:,.1f} GiB are free")


def reason(error: BaseException) -> str:
    """Why a row did not run, on one line."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    no_memory = isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
    return f"out of memory: {text}" if no_memory else f"failed: {text}"


def free_memory(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def seconds_of(call: Callable, device: torch.device, twice: bool = False) -> float:
    """Seconds of the first call, or of the second where the first compiles."""
    for _ in range(1 + twice):
        synchronise(device)
        start = time.perf_counter()
        call()
        synchronise(device)
    return time.perf_counter() - start


def already_warm(call: Callable) -> Callable:
    """The call, but its first turn does nothing."""
    warm = [False]

    def again() -> None:
        if warm[0]:
            call()
        warm[0] = True

    return again


def too_slow(first: dict[Row, float], allowance: float) -> list[Row]:
    """Rows to leave out so that three turns of the others fit; never those the case is about."""
    out = []
    for row in sorted(first, key=lambda row: (-row.level, -first[row])):
        if row.level == 0 or 3 * sum(s for r, s in first.items() if r not in out) <= allowance:
            break
        out.append(row)
    return out


def memory_of(call: Callable, model: nn.Module, batch: tuple[Tensor, Tensor, Tensor], device: torch.device):
    """(bytes, in words how they were counted) of a training step."""
    if device.type == "cuda":
        peak = peak_memory(call, device)
        return peak.added, "peak allocated during the step, above weights and optimizer state"
    memory = training_memory(model, *batch)
    return memory.bytes, memory.how


def row_records(case: Case, row: Row, timing, failed: str | None, memory, setup: Setup, peak: float) -> list[dict]:
    """The row's speed (value None where it failed, and `failed` says why), and its memory in training."""
    common = about(case, row, setup)
    speed = dict(what="real_tokens_per_second", value=None, unit="tokens/s", spread=None, n=0, failed=failed, **common)
    if timing is None:
        return [speed]
    flops = useful_flops(row, case, setup.size)
    speed |= dict(
        value=tokens_per_second(timing, case.tokens), spread=tokens_per_second_spread(timing, case.tokens),
        n=timing.n, milliseconds=1000 * timing.median, flops=flops, peak_flops=peak,
        mfu=flops / timing.median / peak if flops else None,
    )  # fmt: skip
    if memory is None:
        return [speed]
    count, how = memory
    return [speed, dict(what="train_memory_bytes", value=count, unit="bytes", spread=None, n=1, how=how, **common)]


def about(case: Case, row: Row, setup: Setup) -> dict:
    """What is recorded with every number of a row."""
    return dict(
        task=case.task, batch=case.batch, length=case.length, sequences=case.sequences, tokens_in_batch=case.tokens,
        row=row.key, model=row.title, backend=row.backend, compiled=row.compiled,
        package="modernbert_edu" if row.peer == "ours" else "transformers",
        step=step_in_words(case.task, setup.device), seed=setup.seed,
    )  # fmt: skip


# ---- the largest batch -----------------------------------------------------------------------------------------------


def largest_batch(fits: Callable[[int], bool], start: int, limit_seconds: float = 15.0) -> int:
    """The largest batch that fits: doubling, then bisecting to within a twentieth. `fits(n)` tries n sequences.

    After `limit_seconds` it answers with the largest that did fit. 0 where not even one sequence does.
    """
    begun = time.perf_counter()
    low, high = 0, None
    size = start
    while time.perf_counter() - begun < limit_seconds:
        if fits(size):
            low = size
        else:
            high = size
        if high is not None and high - low <= max(1, low // 20):
            break
        size = 2 * low if high is None else (low + high) // 2
    return low


def trial(model: nn.Module, case: Case, vocabulary: int, setup: Setup) -> Callable[[int], bool]:
    """fits(n) for `largest_batch`: one forward pass over n sequences."""

    def fits(sequences: int) -> bool:
        with suppress(RuntimeError, MemoryError):
            input_ids, mask, _ = make_batch(replace(case, sequences=sequences), vocabulary, setup.device)
            seconds_of(forward_call(model, input_ids, mask), setup.device)
            return True
        free_memory(setup.device)
        return False

    return fits


# ---- cost against length ---------------------------------------------------------------------------------------------


def attention_against_length(
    device: torch.device,
    dtype: torch.dtype,
    *,
    lengths: Sequence[int] = (512, 1024, 2048, 4096, 8192, 16_384, 32_768),
    longest_global: int = 8192,
    heads: int = 12,
    head_size: int = 64,
    window: int = 64,
    repeats: int = 5,
) -> list[dict]:
    """Seconds of the attention of one local and one global layer, forward, over one document of each length.

    Heads and window are ModernBERT-base's; the global layer stops at `longest_global`, for its cost is quadratic.
    """
    backend, records = choose_backend(device, dtype)[0], []
    for n in lengths:
        q, k, v = torch.randn(3, n, heads, head_size, generator=torch.Generator().manual_seed(0)).to(device, dtype)
        layout, calls = Layout.from_lengths([n], device), {}
        for kind, w in (("local", window), ("global", None)):
            if kind == "local" or n <= longest_global:
                calls[kind] = lambda q=q, k=k, v=v, layout=layout, w=w: attention(q, k, v, layout, window=w)
        with torch.inference_mode():
            timings = time_interleaved(calls, device=device, repeats=repeats, budget_seconds=4)
        for kind, timing in timings.items():
            records.append(dict(what="attention_seconds", value=timing.median, unit="s", spread=timing.spread,
                                n=timing.n, kind=kind, length=n, model=f"{kind} layer", row="ours", backend=backend,
                                heads=heads, head_size=head_size))  # fmt: skip
    return records


MEMORY_ROWS = (Row("ours", "ours", "ours", 0, "auto"), Row("modernbert", THEIRS, "modernbert", 0, "sdpa"))


def memory_against_length(models: Models, setup: Setup, lengths: Sequence[int] = (512, 1024, 2048, 4096)) -> list[dict]:
    """Memory of a training step on one sequence: ours at each length, transformers' ModernBERT at 2,048."""
    records = []
    for n in lengths:
        case = Case("training", "fixed", n, 1, setup.seed)
        batch = make_batch(case, 4096, setup.device)
        for row in MEMORY_ROWS if n == 2048 else MEMORY_ROWS[:1]:
            common = {**about(case, row, setup), "task": "memory"}
            try:
                refuse_too_large(row, case, setup)
                model = models.model(row, n)
                with autocast(setup.device, setup.dtype):
                    memory = training_memory(model, *batch)
            except (RuntimeError, MemoryError) as error:
                records.append(
                    dict(what="train_memory_bytes", value=None, unit="bytes", failed=reason(error), **common)
                )
                free_memory(setup.device)
                continue
            records.append(dict(what="train_memory_bytes", value=memory.bytes, unit="bytes", spread=None, n=1,
                                how=memory.how, **common))  # fmt: skip
    return records


# ---- the whole -------------------------------------------------------------------------------------------------------


def matmul_peak(device: torch.device, dtype: torch.dtype, sizes: Sequence[int] | None = None) -> float:
    """Operations per second of the fastest of a few square matrix products, at its best: what MFU is a share of."""
    rates = []
    for n in sizes or ((4096, 8192) if device.type == "cuda" else (1024, 2048)):
        a, b = (torch.randn(n, n).to(device, dtype) for _ in range(2))
        with torch.inference_mode():
            calls = {"matmul": lambda a=a, b=b: a @ b}
            timing = time_interleaved(calls, device=device, repeats=15, budget_seconds=5)["matmul"]
        rates.append(2 * n**3 / timing.minimum)
    return max(rates)


def probe_rates(models: Models, setup: Setup) -> dict[str, float]:
    """Operations per second that ours and transformers' ModernBERT really reach, from one short batch each."""
    case = Case("inference", "fixed", 256, 128 if setup.cuda else 2, setup.seed)
    rates = {}
    for name, row in zip(("ours", "theirs"), MEMORY_ROWS, strict=True):
        batch = make_batch(case, 4096, setup.device)
        model = models.base(row.peer)
        call = forward_call(model.encoder if row.peer == "ours" else model.base_model, *batch[:2])
        rates[name] = computed_flops(row, case, setup.size) / seconds_of(call, setup.device, twice=True)
    return rates


def run_bench(setup: Setup, say: Callable[[str], None] = print) -> list[dict]:
    """All cases that the time allows, then the cost against length: -> records, without provenance."""
    begun = time.perf_counter()
    peak = matmul_peak(setup.device, setup.dtype)
    kind = str(setup.dtype).removeprefix("torch.")
    say(f"peak: {peak / 1e12:,.3f} TFLOP/s, measured with a large matrix product in {kind}; MFU is a share of it")
    records = [dict(what="matmul_peak", value=peak, unit="FLOP/s", n=15, seed=setup.seed, model="matrix product")]
    models = Models(setup, setup.only[0])
    rates = probe_rates(models, setup)

    def seconds(row: Row, case: Case) -> float:
        return seconds_needed(row, case, setup, rates)

    # Cost against length comes last: 20 s of attention, forward passes over 8,192 tokens of ours and 2,048 of theirs.
    forward = Case("inference", "fixed", 2048, 4, setup.seed)
    last = 20 + seconds(MEMORY_ROWS[0], forward) / 4 + seconds(MEMORY_ROWS[1], forward) / 16
    budget = 0.92 * 60 * setup.minutes - last
    cases = all_cases(setup)
    plan, said = make_plan(cases, lambda c: rows_for(c, setup), lambda c: importance(c, setup), seconds, 0.95 * budget)
    if not setup.cuda:  # the long sequences take the most time and go last, with the repeats that then fit
        plan.sort(key=lambda entry: (importance(entry[0], setup), entry[0].length))
    for place, (case, rows) in enumerate(plan):
        later = sum(seconds(row, c) for c, rs in plan[place + 1 :] for row in rs if row.level == 0)
        left = budget - (time.perf_counter() - begun)
        if left <= 0:
            said.append(f"{case.title}: left out altogether, the {setup.minutes:g} minutes are over")
            continue
        if case.task != models.task:
            models = None  # the old ones go before the new ones come
            free_memory(setup.device)
            models = Models(setup, case.task)
        done = run_case(case, rows, models, setup, peak, max(left - later, left / 4), said.append)
        say("\n" + case_table(case, done))
        records += done
    if models.task != "training":
        models = None
        free_memory(setup.device)
        models = Models(setup, "training")
    records += attention_against_length(setup.device, setup.dtype)
    records += memory_against_length(models, setup)
    records += slopes(records)
    records += [dict(what="reduced", value=None, unit="", model="", note=note) for note in said]
    say("\n" + cost_table(records))
    for note in said:
        say(f"reduced: {note.removeprefix('reduced: ')}")
    say("\n" + target_table(records, setup.device.type))
    return records
