"""What `bench` prints: a table for each case, the cost against length, and the targets, all from the records alone."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import InputError
from .bench_cases import Case

# ---- slopes ----------------------------------------------------------------------------------------------------------


def slope(points: Sequence[tuple[float, float]]) -> float:
    """The power with which the second number grows with the first: the slope of a straight line through the logarithms.

    Raises `InputError` for fewer than two different places.
    """
    if len({x for x, _ in points}) < 2:
        raise InputError("a slope needs measurements at two lengths or more")
    return statistics.linear_regression([math.log(x) for x, _ in points], [math.log(y) for _, y in points]).slope


def slopes(records: Sequence[dict]) -> list[dict]:
    """The slopes of what was measured against length, as records."""
    curves = {
        "local attention": [r for r in records if r["what"] == "attention_seconds" and r["kind"] == "local"],
        "global attention": [r for r in records if r["what"] == "attention_seconds" and r["kind"] == "global"],
        "memory": [r for r in records if r.get("task") == "memory" and r["row"] == "ours"],
    }
    found = []
    for kind, curve in curves.items():
        points = [(r["length"], r["value"]) for r in curve if r["value"]]
        if len(points) > 1:
            reach = f"{points[0][0]:,} to {points[-1][0]:,}"
            found.append(dict(what="slope", value=slope(points), unit="power of the length", kind=kind, n=len(points),
                              row="ours", model=f"ours, {kind}", lengths=reach))  # fmt: skip
    return found


# ---- targets ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """`ours` must reach `factor` times `against` (None: `factor` itself) in a case; `at_most` turns it round."""

    device: str
    task: str
    batch: str
    length: int
    ours: str
    against: str | None
    factor: float
    what: str = "real_tokens_per_second"
    field: str = "value"
    at_most: bool = False

    @property
    def title(self) -> str:
        ours = "ours" if self.ours == "ours" else self.ours
        what = {"train_memory_bytes": "training memory per token, "}.get(self.what, "")
        what = "MFU, " if self.field == "mfu" else what
        against = f" / {self.against}" if self.against else ""
        return f"{what}{self.task}, {self.batch} {self.length:,}: {ours}{against}"


def _memory(device: str, task: str, batch: str, length: int, ours: str, against: str, factor: float) -> Target:
    return Target(device, task, batch, length, ours, against, factor, "train_memory_bytes", at_most=True)


TARGETS = (
    Target("cpu", "inference", "variable", 512, "ours", "modernbert", 2.5),
    Target("cpu", "inference", "fixed", 512, "ours", "modernbert", 1.05),
    Target("cpu", "inference", "fixed", 512, "ours compiled", "modernbert compiled", 1.1),
    Target("cpu", "inference", "fixed", 8192, "ours", "modernbert", 2.2),
    Target("cpu", "training", "variable", 512, "ours", "modernbert", 2.5),
    _memory("cpu", "memory", "fixed", 2048, "ours", "modernbert", 0.5),
    Target("cuda", "inference", "fixed", 512, "ours", "modernbert", 1.5),
    Target("cuda", "inference", "variable", 512, "ours", "modernbert", 3.0),
    Target("cuda", "inference", "fixed", 512, "ours compiled", "modernbert compiled", 1.1),
    Target("cuda", "inference", "variable", 512, "ours compiled", "modernbert compiled", 2.0),
    Target("cuda", "inference", "fixed", 8192, "ours", "modernbert", 3.0),
    Target("cuda", "inference", "variable", 8192, "ours", "modernbert", 5.0),
    Target("cuda", "inference", "fixed", 512, "ours", "deberta", 2.5),
    Target("cuda", "inference", "variable", 512, "ours", "deberta", 5.0),
    Target("cuda", "inference", "variable", 512, "ours", "bert", 1.8),
    Target("cuda", "training", "variable", 1024, "ours", "modernbert", 2.5),
    Target("cuda", "training", "variable", 1024, "ours compiled", "modernbert best", 1.3),
    Target("cuda", "training", "fixed", 1024, "ours compiled", None, 350e3),
    Target("cuda", "training", "fixed", 8192, "ours compiled", None, 260e3),
    Target("cuda", "training", "fixed", 1024, "ours compiled", None, 0.35, field="mfu"),
    _memory("cuda", "training", "fixed", 1024, "ours", "modernbert", 0.5),
    _memory("cuda", "training", "fixed", 512, "ours", "deberta", 0.2),
)
LINEAR = {"local attention": "local layers' time", "memory": "whole model's training memory"}


def check_targets(records: Sequence[dict], device_type: str) -> list[dict]:
    """The targets that these records can decide: [{target, value, needed, met}, ...]."""
    decided = []
    for target in TARGETS:
        value = _value(records, target, target.ours) if target.device == device_type else None
        if value is not None and target.against is not None:
            against = _value(records, target, target.against)
            value = value / against if against else None
        if value is not None:
            met = value <= target.factor if target.at_most else value >= target.factor
            decided.append(dict(target=target.title, value=value, met=met,
                                needed=f"{'at most' if target.at_most else 'at least'} {target.factor:,.3g}"
                                if target.factor < 1000 else f"at least {target.factor:,.0f}"))  # fmt: skip
    for record in records:
        if record["what"] == "slope" and record["kind"] in LINEAR:
            title = f"{LINEAR[record['kind']]} grows with length to the power of ({record['lengths']} tokens)"
            met = abs(record["value"] - 1) <= 0.15
            decided.append(dict(target=title, value=record["value"], needed="1 within 15 %", met=met))
    return decided


def _value(records: Sequence[dict], target: Target, row: str) -> float | None:
    """What a row reached in the target's case; memory by the real token, for batches of different rows may differ."""
    where = dict(what=target.what, task=target.task, batch=target.batch, length=target.length, row=row)
    found = [r for r in records if all(r.get(k) == v for k, v in where.items()) and r.get(target.field) is not None]
    if not found:
        return None
    value = found[-1][target.field]
    return value / found[-1]["tokens_in_batch"] if target.what == "train_memory_bytes" else value


# ---- tables ----------------------------------------------------------------------------------------------------------


def case_table(case: Case, records: Sequence[dict]) -> str:
    """Speed, spread, time, ratio to transformers' ModernBERT, MFU, memory and largest batch of each row."""
    pads = 1 - case.tokens / (case.sequences * case.length)
    lines = [
        f"{case.title}: {case.sequences} sequence{'s' * (case.sequences > 1)}, {case.tokens:,} real tokens, padded to "
        f"{case.length:,} ({pads:.0%} pads); {records[0]['step']}",
        f"  {'':<37}{'tokens/s':>10}{'spread':>9}{'ms':>10}{'ratio':>7}{'MFU':>6}{'MiB':>9}{'max batch':>11}",
    ]
    speeds = {r["row"]: r for r in records if r["what"] == "real_tokens_per_second"}
    memory = {r["row"]: r["value"] / 2**20 for r in records if r["what"] == "train_memory_bytes"}
    largest = {r["row"]: r["value"] for r in records if r["what"] == "largest_batch"}
    base = speeds.get("modernbert", {}).get("value")
    for key, r in speeds.items():
        if r["value"] is None:
            lines.append(f"  {r['model']:<37}{r['failed']}")
            continue
        cells = [
            f"{r['value']:,.0f}", f"{r['spread']:,.0f}", f"{r['milliseconds']:,.1f}",
            f"{r['value'] / base:.2f}x" if base else "-", f"{r['mfu']:.0%}" if r["mfu"] else "-",
            f"{memory[key]:,.0f}" if key in memory else "-", f"{largest[key]:,}" if key in largest else "-",
        ]  # fmt: skip
        widths = (10, 9, 10, 7, 6, 9, 11)
        lines.append(f"  {r['model']:<37}" + "".join(f"{c:>{w}}" for c, w in zip(cells, widths, strict=True)))
    return "\n".join(lines)


def cost_table(records: Sequence[dict]) -> str:
    """Milliseconds of a local and a global layer's attention and memory of a step at each length, and the slopes."""
    cells: dict[int, dict[str, str]] = {}
    for r in records:
        if r["what"] == "attention_seconds":
            cells.setdefault(r["length"], {})[r["kind"]] = f"{1000 * r['value']:,.2f}"
        elif r.get("task") == "memory" and r["row"] == "ours" and r["value"]:
            cells.setdefault(r["length"], {})["memory"] = f"{r['value'] / 2**20:,.0f}"
    lines = ["cost against length: attention of one layer, forward (ms); memory of a training step (MiB)",
             f"  {'tokens':>8}{'local':>12}{'global':>12}{'memory':>12}"]  # fmt: skip
    for length, row in sorted(cells.items()):
        lines.append(f"  {length:>8,}" + "".join(f"{row.get(k, '-'):>12}" for k in ("local", "global", "memory")))
    powers = {r["kind"].split()[0]: f"{r['value']:.2f}" for r in records if r["what"] == "slope"}
    lines.append(f"  {'power':>8}" + "".join(f"{powers.get(k, '-'):>12}" for k in ("local", "global", "memory")))
    return "\n".join(lines)


def target_table(records: Sequence[dict], device_type: str) -> str:
    decided = check_targets(records, device_type)
    if not decided:
        return "targets: none that this run could decide"
    width = max(len(row["target"]) for row in decided)
    lines = ["targets that this run could decide"]
    for row in decided:
        value = f"{row['value']:,.0f}" if row["value"] >= 1000 else f"{row['value']:.2f}"
        lines.append(f"  {'met   ' if row['met'] else 'missed'}  {row['target']:<{width}}  {value}, {row['needed']}")
    return "\n".join(lines)
