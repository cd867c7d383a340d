"""Ablations: variants of one encoder that differ in a switch or two, trained alike.

    changes   parse_change, ladder          what differs: switches of `EncoderConfig`
    variants  make_variants                 their configurations, equally large where asked for
    run       run_ablation                  each at its own best learning rate, from several seeds; resumable
    time      time_steps                    a training step of each, in turns
    verdict   paired_differences            variant minus baseline, seed by seed, with a bootstrap interval

From which end? Added to BERT, an idea may look useless because BERT is still on its first plateau, at the unigram
entropy, when training ends. Taken away from ModernBERT, the same idea may show. So both ends are there, and the road
between them, and the figure says which curves have left the plateau.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from ..attention import choose_backend
from ..classroom.scale import AblationScale
from ..config import MODERNBERT_CHANGES, SWITCHES, EncoderConfig
from ..data.prepared import TextData
from ..errors import InputError, Paused
from ..intervals import bootstrap_interval
from ..model import MaskedLM
from ..runtime import progress, provenance, write_text_atomic
from ..training.pretrain import autocast, masked_batch, train_mlm
from .finished import WHERE, finished_runs, keep_run
from .memory import training_memory
from .speed import real_tokens, time_rounds, training_call

FORMAT = 1  # of the records; those of another format are kept and not used
ENDS = ("bert", "modernbert")
ROUNDS = 25  # in which the variants' training steps are timed
print_now = partial(print, flush=True)  # a log file should not lag minutes behind
FILE = "ablation.jsonl"
ANEW = "ablation.anew"  # beside it while a grid is trained anew: the runs that have been, one a line


# ---- what differs ----------------------------------------------------------------------------------------------------


def list_switches() -> list[dict]:
    """One dict a switch: name, its values, BERT's and ModernBERT's, and the lesson that teaches it."""
    bert = EncoderConfig()
    return [
        dict(switch=name, values=facts["values"], bert=getattr(bert, name),
             modernbert=MODERNBERT_CHANGES.get(name, getattr(bert, name)), lesson=facts["lesson"])
        for name, facts in SWITCHES.items()
    ]  # fmt: skip


def parse_change(text: str, end: str) -> dict:
    """ "mlp=geglu" or "positions=rope,bias=false" -> {field: value}; without a value, the other end's is meant.

    Raises `InputError` for a switch or a value that there is not, with those that there are.
    """
    other = {row["switch"]: row["modernbert" if end == "bert" else "bert"] for row in list_switches()}
    change = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, given, word = (x.strip() for x in part.partition("="))
        if name not in SWITCHES:
            raise InputError(f"there is no switch {name!r}; the switches are: {', '.join(SWITCHES)}")
        change[name] = _value(name, word) if given else other[name]
    if not change:
        raise InputError(f"--switch {text!r} names nothing; write NAME or NAME=VALUE, `ablate --list` shows them")
    return change


def _value(name: str, word: str):
    """The value that a word names: one of the switch's, or another of the same type (a window of 32, say)."""
    values = SWITCHES[name]["values"]
    for value in values:
        if word.lower() == str(value).lower():
            return value
    kind = type(values[0])
    if kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            pass
    raise InputError(f"{name} cannot be {word!r}; it can be: {', '.join(map(str, values))}")


def ladder() -> list[tuple[str, dict]]:
    """BERT -> ModernBERT, one lesson's switches at a time: [(name of the step, all changes up to it), ...].

    No lesson is about the segment embeddings, which BERT has for its next-sentence task: they go in a step of their
    own. The last, ModernBERT, adds unpadding and what else no lesson teaches (the norms' epsilon, the length meant).
    """
    steps: dict[str, dict] = {}
    for name, value in MODERNBERT_CHANGES.items():
        if name in SWITCHES:
            steps.setdefault(SWITCHES[name]["lesson"], {})[name] = value
    rungs, so_far = [("BERT", {})], {}
    for lesson in sorted(steps):
        so_far = so_far | steps[lesson]
        rungs.append((f"+ {lesson[3:].replace('_', ' ')}", so_far))
    last_but_one = rungs[-2][1] | dict(type_vocab_size=0)
    return [*rungs[:-1], ("no segments", last_but_one), ("ModernBERT", dict(MODERNBERT_CHANGES))]


@dataclass(frozen=True)
class Variant:
    """A configuration to train; `changes` says how it differs from the end that the ablation starts from."""

    name: str
    changes: dict
    config: EncoderConfig


def end_config(end: str, sizes: AblationScale, tokenizer) -> EncoderConfig:
    """BERT, or ModernBERT with its MLP sized so that both have equally many parameters."""
    if end not in ENDS:
        raise InputError(f"an ablation starts from {' or '.join(ENDS)}, not {end!r}")
    vocabulary = dict(vocab_size=tokenizer.vocab_size, pad_token_id=tokenizer.pad_id)
    bert = EncoderConfig.preset(sizes.bert_preset, **vocabulary)
    if end == "bert":
        return bert
    return EncoderConfig.preset(sizes.modernbert_preset, **vocabulary).matched_to(bert)


def make_variants(
    changes: Sequence[dict] | None, end: str, sizes: AblationScale, tokenizer, matched: bool = True
) -> list[Variant]:
    """The end itself and one variant for each change; with None the whole ladder from BERT.

    `matched` adapts the MLP's width so that each variant has as many parameters as the end (within 0.5 %).
    Raises `InputError` for a change that changes nothing or gives an impossible configuration.
    """
    base = end_config(end, sizes, tokenizer)
    if changes is None:
        named = ladder()
    else:
        sign = "+" if end == "bert" else "with"
        title = "BERT" if end == "bert" else "ModernBERT"
        spelled = [", ".join(f"{k}={v}" for k, v in change.items()) for change in changes]
        named = [(title, {}), *((f"{title} {sign} {words}", c) for words, c in zip(spelled, changes, strict=True))]
    variants = []
    for name, change in named:
        config = base.replace(**change)
        if change and config == base:
            raise InputError(f"{name}: that is what {end} has already; choose another value")
        # A gated MLP has three matrices for two: unmatched, it keeps the width and is larger.
        variants.append(Variant(name, change, config.matched_to(base) if matched else config))
    return variants


# ---- training the grid -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """One training of the grid."""

    variant: Variant
    learning_rate: float
    seed: int
    steps: int

    def key(self, sizes: AblationScale, fingerprint: str) -> str:
        """What the result depends on, in short: records with the same key are of the same run."""
        text = replace(sizes, rates=(), seeds=(), steps=0)
        facts = [
            FORMAT,
            self.variant.config.identity(),
            self.learning_rate,
            self.seed,
            self.steps,
            str(text),
            fingerprint,
        ]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def run_ablation(
    variants: Sequence[Variant],
    data: TextData,
    sizes: AblationScale,
    device: torch.device,
    *,
    rates: dict[str, float] | None = None,
    out: Path | None = None,
    minutes: float | None = None,
    deadline: float | None = None,
    anew: bool = False,
    say: Callable[[str], None] = print_now,
) -> list[dict]:
    """Train all variants; same sequences, order and masks for the same seed: -> records.

    With the first seed each variant is trained at every one of `sizes.rates`; the best of these runs counts ("final"),
    the others are its sweep ("sweep"), and the other seeds train at its rate. `rates` gives the rates by name instead.
    With `out`, each finished run is kept in its `ablation.jsonl`, and a run found there, of this device and version of
    torch, is not done again unless `anew`; a second ablation on the same folder is refused. `minutes` refuses a grid
    that is estimated to take longer. Raises `Paused` where another run would last beyond `deadline` (time.monotonic):
    the same call goes on, `anew` or not.
    """
    first, *others = sizes.seeds
    tried = {v.name: [Run(v, rate, first, sizes.steps) for rate in ([rates[v.name]] if rates else sizes.rates)]
             for v in variants}  # fmt: skip
    with _Store(out, sizes, data.corpus.fingerprint, device, anew, deadline) as store:
        missing = sum(run not in store for runs in tried.values() for run in runs)
        for seed in others:  # which rate will be the best is not known yet
            missing += sum(not any(replace(run, seed=seed) in store for run in runs) for runs in tried.values())
        _refuse_if_long(missing * sizes.steps, variants[0], data, sizes, device, minutes, say)
        bar = progress(total=missing * sizes.steps, desc="ablation", unit="step")
        entropy = dict(what="unigram_entropy", value=data.unigram_entropy, unit="nats", model="unigram", seed=None)
        records = [entropy | store.facts]
        for variant in variants:
            done = [(run, store.rows_of(run, data, bar)) for run in tried[variant.name]]
            best, _ = min(done, key=lambda pair: _final_loss(pair[1]))
            for run, rows in done:
                records += [row | dict(purpose="final" if run == best else "sweep") for row in rows]
            for seed in others:
                rows = store.rows_of(replace(best, seed=seed), data, bar)
                records += [row | dict(purpose="final") for row in rows]
        bar.close()
        store.forget_anew(records)
    return records


def _final_loss(rows: Sequence[dict]) -> float:
    loss = [row["value"] for row in rows if row["what"] == "held_out_loss"][-1]
    return loss if math.isfinite(loss) else math.inf


def _refuse_if_long(steps, variant, data, sizes, device, minutes, say) -> None:
    """Say how long the grid will take; with a limit, refuse more than that."""
    if not steps or minutes is None:
        return
    trial = replace(sizes, held_out_sequences=1)
    _train(Run(variant, sizes.rates[0], 0, 2), data, trial, device)  # warm-up
    result, _ = _train(Run(variant, sizes.rates[0], 0, 6), data, trial, device)
    estimate = steps * result.seconds / 6 / 60
    say(f"estimate: {steps:,} training steps, about {estimate:,.0f} minutes on this machine")
    if estimate > minutes:
        raise InputError(
            f"that would take about {estimate / 60:.1f} hours here; add --yes, or choose fewer switches, seeds or steps"
        )


def _train(run: Run, data: TextData, sizes: AblationScale, device: torch.device, bar=None):
    torch.manual_seed(run.seed)
    model = MaskedLM(run.variant.config)
    every = max(1, run.steps // sizes.evaluations)
    held_out = data.held_out[: sizes.held_out_sequences]
    result = train_mlm(
        model, data.train, held_out, data.tokenizer, steps=run.steps, batch_size=sizes.batch_size,
        learning_rate=run.learning_rate, warmup_steps=max(1, round(sizes.warmup_share * run.steps)),
        mask_rate=sizes.mask_rate, seed=run.seed, eval_every=every, device=device,
        dtype=getattr(torch, sizes.dtype), label=run.variant.name, bar=bar,
    )  # fmt: skip
    return result, model


def _memory(model: MaskedLM, data: TextData, sizes: AblationScale, device: torch.device):
    """Bytes that one training batch keeps for its backward pass."""
    with autocast(device, getattr(torch, sizes.dtype)):
        return training_memory(model, *_batch(data, sizes, device))


def _batch(data: TextData, sizes: AblationScale, device: torch.device):
    """The first training batch, masked: ids, attention mask, labels, (B, S) each."""
    first, generator = data.train[: sizes.batch_size], torch.Generator().manual_seed(0)
    ids, labels, mask = masked_batch(first, data.tokenizer, sizes.mask_rate, generator)
    return ids.to(device), mask.to(device), labels.to(device)


def time_steps(variants: Sequence[Variant], data: TextData, sizes: AblationScale, device: torch.device) -> list[dict]:
    """Forward and backward of each variant over the same batch, in turns: -> a record a variant and round, in seconds.

    The tokens a second of the trainings themselves, minutes apart, also say how busy the machine was at the time.
    """
    dtype, batch = getattr(torch, sizes.dtype), _batch(data, sizes, device)
    steps = {v.name: training_call(MaskedLM(v.config).to(device), *batch) for v in variants}

    def timed(step):
        with autocast(device, dtype):  # one for each step, as in training: it keeps the weights that it casts
            step()

    rounds = time_rounds({name: partial(timed, step) for name, step in steps.items()}, device=device, repeats=ROUNDS)
    facts = provenance(device, dtype=sizes.dtype, backend=choose_backend(device, dtype)[0])
    facts |= dict(what="step_seconds", unit="seconds", tokens=real_tokens(batch[1]))
    return [
        facts | dict(value=seconds, model=name, round=i)
        for name, found in rounds.items()
        for i, seconds in enumerate(found)
    ]


def _whose(record: dict) -> str:
    """A run in a line: its key, and where it was trained."""
    return json.dumps([record[name] for name in ("run", *WHERE)])


class _Store:
    """The records of finished runs, in memory, and in a folder where one is given."""

    def __init__(
        self, out: Path | None, sizes: AblationScale, fingerprint: str, device: torch.device, anew: bool = False,
        deadline: float | None = None,
    ):  # fmt: skip
        self.out, self.sizes, self.fingerprint, self.device, self.anew = out, sizes, fingerprint, device, anew
        self.deadline, self.longest = deadline, 0.0  # the first run is always trained, or nothing would go on
        backend, _ = choose_backend(device, getattr(torch, sizes.dtype))
        self.facts = provenance(device, dtype=sizes.dtype, backend=backend, fingerprint=fingerprint)
        self.known: dict[str, list[dict]] = {}
        self.lock = None

    def __enter__(self):
        if self.out is not None:
            self.out.mkdir(parents=True, exist_ok=True)
            self.lock = FileLock(self.out / "ablation.lock", timeout=0)
            try:
                self.lock.acquire()
            except Timeout:
                raise InputError(
                    f"another ablation is writing to {self.out}; wait for it, or give another --out"
                ) from None
            here, again = [self.facts[name] for name in WHERE], self._trained_anew()
            for record in finished_runs(self.out / FILE):
                ours = record.get("format") == FORMAT and [record.get(name) for name in WHERE] == here
                if ours and (not self.anew or _whose(record) in again):
                    self.known.setdefault(record["run"], []).append(record)
        return self

    def _trained_anew(self) -> set[str]:
        """The runs trained since a call first said `anew`, of grids that are not whole yet."""
        path = self.out / ANEW
        return set(path.read_text().splitlines()) if path.exists() else set()

    def forget_anew(self, records: Sequence[dict]) -> None:
        """This grid is whole: the next `anew` begins it again. What is kept of another, paused one stays."""
        if self.anew and self.out is not None:
            left = self._trained_anew() - {_whose(record) for record in records if "run" in record}
            write_text_atomic(self.out / ANEW, "".join(line + "\n" for line in sorted(left)))

    def __exit__(self, *_):
        if self.lock is not None:
            self.lock.release()

    def __contains__(self, run: Run) -> bool:
        return run.key(self.sizes, self.fingerprint) in self.known

    def rows_of(self, run: Run, data: TextData, bar) -> list[dict]:
        """The run's records; it is trained unless it has been. A loss that stops being a number is infinitely bad."""
        key = run.key(self.sizes, self.fingerprint)
        if key not in self.known:
            begun = time.monotonic()
            if self.longest and self.deadline is not None and begun + self.longest > self.deadline:
                bar.close()
                raise Paused(f"the ablation paused before {run.variant.name}, seed {run.seed}")
            rows = [row | dict(run=key, format=FORMAT) for row in self._records(run, data, bar)]
            self.longest = max(self.longest, time.monotonic() - begun)
            self.known[key] = rows if self.out is None else keep_run(self.out / FILE, rows)
            if self.anew and self.out is not None:
                with open(self.out / ANEW, "a") as file:
                    file.write(_whose(rows[0]) + "\n")
        return self.known[key]

    def _records(self, run: Run, data: TextData, bar) -> list[dict]:
        config = run.variant.config
        facts = self.facts | dict(
            model=run.variant.name, changes=run.variant.changes, learning_rate=run.learning_rate,
            seed=run.seed, steps=run.steps, parameters=config.num_parameters(), corpus=data.corpus.name,
        )  # fmt: skip
        try:
            result, model = _train(run, data, self.sizes, self.device, bar)
        except InputError as broken:  # the loss is not a number: at this rate the variant does not train
            return [facts | dict(what="held_out_loss", value=math.inf, unit="nats", tokens=None, error=str(broken))]
        rows = [facts | row for row in result.history if row["what"] != "train_loss"]
        memory = _memory(model, data, self.sizes, self.device)
        rows.append(facts | dict(what="train_tokens_per_second", value=result.tokens_per_second, unit="tokens/s"))
        rows.append(facts | dict(what="train_memory_bytes", value=memory.bytes, unit="bytes", how=memory.how))
        return rows


# ---- verdict ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Difference:
    """Variant minus baseline in the final held-out loss, in nats: mean over seeds, 95 % bootstrap interval, points."""

    model: str
    mean: float
    low: float
    high: float
    by_seed: dict[int, float]


def paired_differences(records: Sequence[dict], baseline: str, what: str = "held_out_loss") -> list[Difference]:
    """Seed by seed, for runs with the same seed saw the same batches and masks: what they share cancels out.

    The interval is the percentile bootstrap of the mean over seeds (Efron 1979), 10,000 draws. With two seeds it spans
    from one to the other: it says how far seeds scatter, not more.
    """
    last: dict[str, dict[int, float]] = {}
    for record in records:
        if record["what"] == what and record.get("purpose") == "final":
            last.setdefault(record["model"], {})[record["seed"]] = record["value"]
    if baseline not in last:
        raise InputError(f"no final run of {baseline!r} is among the records; there are: {', '.join(last) or 'none'}")
    found = []
    for model, values in last.items():
        shared = sorted(set(values) & set(last[baseline]))
        if model == baseline or not shared:
            continue
        by_seed = {seed: values[seed] - last[baseline][seed] for seed in shared}
        low, high = bootstrap_interval(list(by_seed.values()))
        found.append(Difference(model, sum(by_seed.values()) / len(by_seed), low, high, by_seed))
    return found


def past_plateau(records: Sequence[dict], margin: float = 0.1) -> dict[str, bool]:
    """Whether every final run of a model ended at least `margin` nats under the unigram entropy."""
    return {model: not stuck for model, (stuck, _) in stuck_seeds(records, margin).items()}


def stuck_seeds(records: Sequence[dict], margin: float = 0.1) -> dict[str, tuple[int, int]]:
    """How many final runs of a model did not end at least `margin` nats under the unigram entropy, and of how many."""
    entropy = next(r["value"] for r in records if r["what"] == "unigram_entropy")
    ends: dict[tuple, float] = {}
    for record in records:
        if record["what"] == "held_out_loss" and record.get("purpose") == "final":
            ends[record["model"], record["seed"]] = record["value"]
    stuck: dict[str, list[bool]] = {}
    for (model, _), loss in ends.items():
        stuck.setdefault(model, []).append(not loss < entropy - margin)
    return {model: (sum(found), len(found)) for model, found in stuck.items()}


def table(records: Sequence[dict], baseline: str) -> str:
    """One line a variant: final loss, accuracy, difference with its interval, speed, memory, rate, parameters."""
    past, differences = past_plateau(records), {d.model: d for d in paired_differences(records, baseline)}

    def mean(what: str, model: str) -> float:
        by_seed = {r["seed"]: r["value"] for r in records
                   if r["what"] == what and r["model"] == model and r.get("purpose") == "final"}  # fmt: skip
        return sum(by_seed.values()) / len(by_seed)

    seeds = max((len(d.by_seed) for d in differences.values()), default=1)
    interval_of = "difference (95 %)" if seeds > 2 else "difference [by seed]"  # of two, the interval is their range
    lines = [f"{'':<34}{'loss':>8}{'acc.':>7}{interval_of:>26}{'tokens/s':>10}{'MiB':>7}{'rate':>8}{'parameters':>12}"]
    for model in past:
        d = differences.get(model)
        interval = f" [{d.low:+.3f}, {d.high:+.3f}]" if d and len(d.by_seed) > 1 else ""  # one seed has none
        words = f"{d.mean:+.3f}{interval}" if d else "-"
        one = next(r for r in records if r["model"] == model and r.get("purpose") == "final")
        lines.append(
            f"{model[:33]:<34}{mean('held_out_loss', model):>8.3f}{mean('masked_accuracy', model):>7.1%}{words:>26}"
            f"{mean('train_tokens_per_second', model):>10,.0f}{mean('train_memory_bytes', model) / 2**20:>7.1f}"
            f"{one['learning_rate']:>8g}{one['parameters']:>12,}" + ("" if past[model] else "  still on the plateau")
        )
    return "\n".join(lines)
