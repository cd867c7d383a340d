"""The claims as they are shown: a brief table at the shell, claims.md to read, claims.json for programs."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path

from ..runtime import write_text_atomic
from .claims import CLAIMS, judge
from .evidence import Device, devices
from .published import CIRCULATING, PAPER_TABLE
from .verdicts import ROWS, UNMEASURED, per_sequence, speed

BASIS = {"arithmetic": " (by arithmetic)", "quoted": " (quoted, not re-run)"}


def judge_all(figures: str | Path = "figures") -> list[dict]:
    """Every claim, judged by the records that are kept in `figures`, in the order of CLAIMS."""
    found = devices(figures)
    return [judge(claim, found) for claim in CLAIMS]


def write(judged: Sequence[dict], figures: str | Path) -> list[Path]:
    """claims.md and claims.json, each replaced at once."""
    text = {"claims.md": as_markdown(judged, devices(figures)), "claims.json": json.dumps(judged, indent=1) + "\n"}
    for name, content in text.items():
        write_text_atomic(Path(figures) / name, content)
    return [Path(figures) / name for name in text]


# ---- words -----------------------------------------------------------------------------------------------------------


def verdict(row: dict) -> str:
    return row["verdict"] + BASIS.get(row["basis"], "")


def in_digits(value: float) -> str:
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def ratios(finding: dict, most: int = 3) -> str:
    """The first few ratios by name."""
    shown = [f"{name}: {in_digits(ratio['value'])}" for name, ratio in list(finding["ratios"].items())[:most]]
    return "; ".join(shown) + ("; ..." if len(finding["ratios"]) > most else "")


def in_brief(judged: Sequence[dict]) -> str:
    """One claim a line: title, ratio, device, verdict; then the count of verdicts and what is missing."""
    lines = [f"{'claim':<58}{'verdict':<38}measured on"]
    for row in judged:
        lines.append(f"{row['title']:<58}{verdict(row):<38}{row['device'] or '-'}")
        lines += [f"    {ratios(finding)}" for finding in row["findings"][:1]]
    counts = [row["verdict"] for row in judged]
    lines.append(", ".join(f"{counts.count(name)} {name}" for name in dict.fromkeys(counts)))
    missing = [
        f"  {row['id']}: {row['command']}" + (" (on a GPU)" if row["gpu_only"] else "")
        for row in judged
        if row["verdict"] == UNMEASURED
    ]
    return "\n".join(lines + (["what would measure the rest:", *missing] if missing else []))


# ---- the page --------------------------------------------------------------------------------------------------------

INTRODUCTION = """\
# Published claims beside what was measured

`python -m modernbert_edu claims` writes this page from the records in [`measurements/`](measurements). A verdict is
computed by the rule that stands with its claim. Where a GPU and a CPU are recorded, the GPU decides and both are shown.
"Ours" is this package's ModernBERT, with random weights where speed and memory are measured: they do not depend on what
a model has learnt. Ratios are of medians, with what the spreads of the repeats allow in brackets. Every number that is
measured here comes from a line of a record; `claims.json` names file and line.
"""


def as_markdown(judged: Sequence[dict], found: Sequence[Device]) -> str:
    parts = [INTRODUCTION, _overview(judged), _encoders(found), *map(_section, judged)]
    return "\n".join(parts)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """A Markdown table; the columns in `right` are set to the right."""
    rule = ["---:" if i in right else "---" for i in range(len(head))]
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in (head, rule, *rows)]
    return "\n".join("| " + " | ".join(row) + " |" for row in cells) + "\n"


def _overview(judged: Sequence[dict]) -> str:
    rows = []
    for row in judged:
        measured = "<br>".join(
            (f"{f['device']}: " if f["device"] else "") + ratios(f)
            + (f" ({f['verdict']})" if len(row["findings"]) > 1 else "")
            for f in row["findings"]
        )  # fmt: skip
        rows.append([f"[{row['title']}](#{row['id']})", row["source"], measured or "-", f"**{verdict(row)}**"])
    return table(["claim", "source", "here", "verdict"], rows)


def _encoders(found: Sequence[Device]) -> str:
    """Tokens/s and memory of the four: in circulation, in the paper, and here."""
    head = ["base size", "in circulation: tokens/s", "GB", "paper, RTX 4090: k tokens/s, fixed 512", "variable 512",
            "largest batch"]  # fmt: skip
    measured = [d for d in found if any(speed(d, row, "fixed") or per_sequence(d, row) for row in ROWS.values())]
    notes = []
    for device in measured:
        record = next(r for row in ROWS.values() for r in (speed(device, row, "fixed"), *(per_sequence(device, row) or
                      ((), (), [None]))[2]) if r)  # fmt: skip
        head += [f"{record['device']}: tokens/s, fixed 512", "variable 512", "MB a further sequence", "MB of weights"]
        notes.append(f"{record['device']}: {record['dtype']}, torch {record['torch']}, {record['date'][:10]}")
    rows = []
    for model, row in ROWS.items():
        claimed, paper = CIRCULATING[model], PAPER_TABLE[model]
        cells = [f"{model}{' (ours)' if row == 'ours' else ''}", f"{claimed['tokens']:,}", f"{claimed['gb']}",
                 f"{paper['fixed']}", f"{paper['variable']}", f"{paper['batch']:,}"]  # fmt: skip
        for device in measured:
            for batch in ("fixed", "variable"):
                r = speed(device, row, batch)
                cells.append(f"{r['value']:,.0f}" if r else "-")
            memory = per_sequence(device, row)
            cells += [f"{memory[0] / 1e6:,.1f}", f"{memory[1] / 1e6:,.0f}"] if memory else ["-", "-"]
        rows.append(cells)
    words = (
        "The first two columns are in circulation without a device, length, batch or dtype. The paper's own are its "
        "tables 2, 10 and 11; for BERT, RoBERTa and DeBERTaV3 it did not run mixed lengths and took half of the fixed "
        "speed. It gives no bytes. Ours: real tokens only, the encoder without its "
        "head; memory is the peak of a forward pass.\n"
    )
    measured_on = "Measured on " + "; ".join(notes) + ".\n" if notes else ""
    return "\n".join(["## The four encoders\n", textwrap.fill(words, 120) + "\n", measured_on,
                      table(head, rows, range(1, len(head)))])  # fmt: skip


def _section(row: dict) -> str:
    lines = [f'<a id="{row["id"]}"></a>\n', f"## {row['title']}\n"]
    facts = {"Published": f"{row['published']} ({row['source']})", "Published workload": row["workload"],
             "The paper": row["paper"], "Rule": row["rule"]}  # fmt: skip
    lines += [f"- {name}: {text}." for name, text in facts.items()]
    for finding in row["findings"]:
        place = ", ".join(filter(None, [finding["device"], " to ".join(finding["dates"])]))
        lines.append(f"- **{finding['verdict']}**{BASIS.get(row['basis'], '')}{' on ' + place if place else ''}: "
                     f"{finding['said']}.")  # fmt: skip
        if row["basis"] == "measured":
            files = sorted({m["place"].rsplit(":", 1)[0] for m in finding["measurements"]})
            links = ", ".join(f"[`{file}`](measurements/{file})" for file in files)
            lines.append(f"  Workload here: {finding['workload']}. Records: {len(finding['measurements'])} of {links}.")
    if not row["findings"]:
        where = ", on a GPU" if row["gpu_only"] else ""
        lines.append(f"- **{UNMEASURED}**. `{row['command']}` would measure it{where}.")
    return "\n".join(lines) + "\n"
