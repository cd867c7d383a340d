"""What 13_head_to_head reads from the records of others: the base-size table, the claims, the losses, the choices.

A line that a record decides is computed from it, and says which; a quoted one names its source. Nothing measured stands
in this file. "Ours" is this package's ModernBERT.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from ..errors import InputError
from ..measure.evidence import Device, devices, over
from ..measure.published import CIRCULATING, PAPER, PAPER_TABLE
from ..measure.verdicts import LESSON_07, ROWS, in_one_run, per_sequence, speed
from ..tasks.glue_paper import TABLE_1
from . import finetuning, recorded, retrieval
from .head_to_head import Step, ladder_steps, verdict
from .shared import with_interval

MODERN, SEARCH, CLASSES = "ModernBERT", "12_retrieval", "11_finetuning"
HEADS = 12  # of all four at base size
NOT_RECORDED = "not recorded in this copy"

# Warner et al. 2024, table 1: nDCG@10 of retrieval of long texts after training on short ones (MLDR-OOD).
MLDR_ONE_VECTOR = {"ModernBERT": 27.4, "GTE-en-MLM": 34.3}
MLDR_LATE = {"ModernBERT": 80.2, "GTE-en-MLM": 69.3}
CONTROLLED = "Antoun et al. 2025, arXiv 2504.08716"


# ---- the four at base size -------------------------------------------------------------------------------------------


def measured_on(figures: str | Path, gpu: bool | None = None) -> Device | None:
    """The first device on which all four were timed at 512, a GPU before a CPU; with `gpu`, of that kind only."""
    try:
        found = devices(figures)
    except InputError:  # nothing is recorded at all
        return None
    for device in found:
        whole = all(
            in_one_run(*(speed(device, row, batch) for row in ROWS.values())) for batch in ("fixed", "variable")
        )
        if whole and gpu in (None, device.is_gpu):
            return device
    return None


def provenance_line(device: Device) -> str:
    r = speed(device, "ours", "fixed")
    return f"recorded on {r['device']}, {r['dtype']}, torch {r['torch']}, {r['date'][:10]}"


BASE_COLUMNS = ("base size, random weights", "full 512: tokens/s", "of BERT's", "mixed 512: tokens/s", "of BERT's",
                "MB a further text of 512", "MB of weights")  # fmt: skip


def base_rows(device: Device) -> list[tuple]:
    """The four: real tokens a second in both batches, over BERT's with what the spreads allow, and memory."""
    rows = []
    for model, row in ROWS.items():
        cells = [model + (" (ours)" if row == "ours" else "")]
        for batch in ("fixed", "variable"):
            r = speed(device, row, batch)
            cells += [f"{r['value']:,.0f}", "1" if row == "bert" else str(over(r, speed(device, "bert", batch)))]
        memory = per_sequence(device, row)
        rows.append((*cells, *(f"{x / 1e6:,.1f}" for x in memory[:2])) if memory else (*cells, "-", "-"))
    return rows


def fastest(device: Device, batch: str) -> list[str]:
    """The fastest of the four at 512, and those whose spreads do not tell them from it."""
    found = {model: speed(device, row, batch) for model, row in ROWS.items()}
    best = max(found.values(), key=lambda r: r["value"])
    return [model for model, r in found.items() if over(best, r).low <= 1]


def answers(device: Device) -> list[str]:
    """What the records answer to the three questions of the prediction."""
    batches = {"fixed": "full batches of 512", "variable": "mixed lengths up to 512"}
    lines = [f"fastest on {words}: {' or '.join(fastest(device, batch))}" for batch, words in batches.items()]
    memory = {model: per_sequence(device, row) for model, row in ROWS.items()}
    if all(memory.values()):
        heaviest = max(memory, key=lambda model: memory[model][0])
        lightest = min(memory, key=lambda model: memory[model][0])
        ratio = memory[heaviest][0] / memory[lightest][0]
        lines.append(
            f"most memory for a further text: {heaviest}, {ratio:.1f} times that of {lightest}, which has least"
        )
    return lines


def score_matrices(device: Device) -> tuple[float, dict[str, float]]:
    """(bytes of one score matrix of 512 x 512 in 12 heads, {model: how many of it a further text adds to the peak})."""
    dtype = getattr(torch, speed(device, "ours", "fixed")["dtype"])
    one = HEADS * 512 * 512 * dtype.itemsize
    found = {model: per_sequence(device, row) for model, row in ROWS.items()}
    return one, {model: memory[0] / one for model, memory in found.items() if memory}


# ---- claims ----------------------------------------------------------------------------------------------------------

CIRCULATING_COLUMNS = ("base size", "in circulation: tokens/s", "GB", "paper: k tokens/s, full 512", "mixed 512",
                       "largest batch")  # fmt: skip


def circulating_rows() -> list[tuple]:
    """The numbers that are passed on, beside the paper's own of its tables 2, 10 and 11."""
    return [(model, f"{claimed['tokens']:,}", str(claimed["gb"]), str(PAPER_TABLE[model]["fixed"]),
             str(PAPER_TABLE[model]["variable"]), f"{PAPER_TABLE[model]['batch']:,}")
            for model, claimed in CIRCULATING.items()]  # fmt: skip


def judged_claims(figures: str | Path) -> dict[str, dict]:
    """The published claims with their verdicts, as kept in claims.json: {id: claim}. `InputError` without that file."""
    path = Path(figures) / "claims.json"
    if not path.exists():
        raise InputError(f"{path} is not there; `python -m modernbert_edu claims` writes it from the records")
    return {claim["id"]: claim for claim in json.loads(path.read_text())}


def claim_rows(claims: dict[str, dict]) -> list[tuple]:
    """A line a claim: its title, the first ratio measured and on what, the verdict."""
    rows = []
    for claim in claims.values():
        here = "-"
        for finding in claim["findings"][:1]:
            name, ratio = next(iter(finding["ratios"].items()))
            number = f"{ratio['value']:.3f}" if ratio["value"] < 0.1 else f"{ratio['value']:.2f}"
            here = f"{name}: {number}" + (f" ({finding['device']})" if finding["device"] else "")
        kind = {"arithmetic": " (arithmetic)", "quoted": " (quoted)"}.get(claim["basis"], "")
        rows.append((claim["title"], here, claim["verdict"] + kind))
    return rows


# ---- where ModernBERT loses ------------------------------------------------------------------------------------------

LOSS_COLUMNS = ("where", "ModernBERT", "against", "evidence", "behind here?")


def loss_rows(figures: str | Path) -> list[tuple]:
    """Places where ModernBERT may be behind: what it has, what the other has, the evidence, and whether it is."""
    return [*_base_losses(figures), *_quoted_losses(), *_lesson_losses(figures)]


def _base_losses(figures) -> list[tuple]:
    device = measured_on(figures)
    if device is None:
        return [("full batches of 512, bytes of weights", "-", "-", NOT_RECORDED, "-")]
    ours, bert = (speed(device, row, "fixed") for row in ("ours", "bert"))
    ratio, where = over(ours, bert), f"bench-base, {ours['device']}"
    rows = [("full batches of 512", f"{ours['value']:,.0f} tokens/s", f"BERT {bert['value']:,.0f}", where,
             "yes" if ratio.high < 1 else "no" if ratio.low > 1 else "not told apart")]  # fmt: skip
    sizes = [per_sequence(device, row) for row in ("ours", "bert")]
    if all(sizes):
        mine, theirs = (found[1] / 1e6 for found in sizes)
        rows.append(("weights to store and to load", f"{mine:,.0f} MB", f"BERT {theirs:,.0f} MB",
                     f"claims-base, {ours['device']}", _behind(mine > theirs)))  # fmt: skip
    return rows


def _behind(yes: bool) -> str:
    return "yes" if yes else "no"


BEHIND = {"lower": "yes", "fewer right": "yes", "higher": "no", "more right": "no"}  # of a score, by its verdict


def _behind_by(verdict: str, less_is_better: bool = False) -> str:
    """From the words of an interval's verdict; what it cannot tell is told so."""
    answer = BEHIND.get(verdict, "not told apart")
    return {"yes": "no", "no": "yes"}.get(answer, answer) if less_is_better else answer


def _quoted_losses() -> list[tuple]:
    large, table = TABLE_1["large"], f"{PAPER}, table 1"
    return [
        ("long texts, one vector, trained on short ones (MLDR-OOD, base)", f"{MLDR_ONE_VECTOR['ModernBERT']} nDCG@10",
         f"GTE-en-MLM {MLDR_ONE_VECTOR['GTE-en-MLM']}", table,
         _behind(MLDR_ONE_VECTOR["ModernBERT"] < MLDR_ONE_VECTOR["GTE-en-MLM"])),
        ("GLUE, large size", str(large["ModernBERT"]), f"DeBERTaV3 {large['DeBERTaV3']}", table,
         _behind(large["ModernBERT"] < large["DeBERTaV3"])),
        ("the same pretraining data for both, in French", "faster to train and to use",
         "DeBERTaV3: better scores, from fewer examples", CONTROLLED, "yes, in scores"),
    ]  # fmt: skip


def _lesson_losses(figures) -> list[tuple]:
    rows = []
    for name, what, line in (
        (SEARCH, "code search, trained for seconds", search_line(figures)),
        (CLASSES, "which package a text is from", class_line(figures)),
    ):
        if line is None:
            rows.append((what, "-", "-", NOT_RECORDED, "-"))
            continue
        pair, numbers = line.split(": ", 1)
        number, words = numbers.rsplit(", ", 1)
        rows.append((what, number, pair.rsplit("against ", 1)[1], name, _behind_by(words)))
    found = worst_step(figures)
    if found is not None:
        step, seeds = found
        number = f"{with_interval(step.mean, step.low, step.high)} nats"
        words = verdict(step.low, step.high, seeds)
        rows.append((f"the ladder's least useful step for the loss: {step.name}", number, "the step before it",
                     "ablation-ladder", _behind_by(words, less_is_better=True)))  # fmt: skip
    return rows


def search_line(figures: str | Path) -> str | None:
    """Lesson 12's verdict on ModernBERT against BM25 in code search; None where the lesson is not recorded."""
    records = recorded(SEARCH, figures)
    return _line(retrieval.verdicts(records, "code"), "ModernBERT against BM25:") if records else None


def class_line(figures: str | Path) -> str | None:
    """Lesson 11's verdict on ModernBERT against a bag of words; None where the lesson is not recorded."""
    records = recorded(CLASSES, figures)
    lines = finetuning.verdicts(records, "package") if records else []
    against = "ModernBERT, pretrained, against bag of words"
    return _line(lines, f"{against}, cut:") or _line(lines, f"{against}:")  # the fair one: both read the same tokens


def _line(lines: Sequence[str], beginning: str) -> str | None:
    return next((line for line in lines if line.startswith(beginning)), None)


def worst_step(figures: str | Path) -> tuple[Step, int] | None:
    """The step of the recorded ladder whose loss rises most, or falls least, and the number of seeds behind it."""
    final = [r for r in recorded("ablation-ladder", figures) if r.get("purpose") == "final"]
    if len({r["model"] for r in final}) < 2:
        return None
    steps = [s for s in ladder_steps(final) if s.what == "held_out_loss" and s.name != "the whole way"]
    return max(steps, key=lambda step: step.mean), len({r["seed"] for r in final})


# ---- what to choose when ---------------------------------------------------------------------------------------------

CHOICE_COLUMNS = ("situation", "choice", "evidence")


def choice_rows(figures: str | Path) -> list[tuple]:
    """Situations, what to choose, and what says so; computed where a record decides, else quoted."""
    device, table = measured_on(figures), f"{PAPER}, table 1"
    rows = []
    if device is None:
        rows.append(("texts of one length or of mixed lengths, memory", "-", NOT_RECORDED))
    else:
        where = speed(device, "ours", "fixed")["device"]
        rows += [("speed, all texts about 512 tokens", " or ".join(fastest(device, "fixed")), f"bench-base, {where}"),
                 ("speed, texts of mixed lengths up to 512", " or ".join(fastest(device, "variable")),
                  f"bench-base, {where}; pads computed by the others")]  # fmt: skip
        rows += _by_memory(device, where) + _by_length(device)
    return [*rows, *_by_lesson_07(figures), *_by_quality(figures, table)]


def _by_memory(device: Device, where: str) -> list[tuple]:
    found = {model: per_sequence(device, row) for model, row in ROWS.items()}
    if not all(found.values()):
        return []
    batch = min(found, key=lambda model: found[model][0])
    weights = min(found, key=lambda model: found[model][1])
    return [
        ("large batches in little memory", f"{batch}: {found[batch][0] / 1e6:,.1f} MB a text of 512",
         f"claims-base, {where}"),
        ("a tiny machine, one text at a time", f"{weights}: {found[weights][1] / 1e6:,.0f} MB of weights at base size",
         f"claims-base, {where}"),
    ]  # fmt: skip


def _by_length(device: Device) -> list[tuple]:
    long = speed(device, "ours", "fixed", 8192)
    said = f"bench-base, {long['device']}: {long['value']:,.0f} tokens/s at 8,192" if long else NOT_RECORDED
    return [("documents of more than 512 tokens", f"{MODERN}; BERT and RoBERTa have no positions there",
             f"{said}; lesson 09 on whether it helps")]  # fmt: skip


def _by_lesson_07(figures) -> list[tuple]:
    records = [r for r in recorded(LESSON_07, figures) if r["what"] == "train_tokens_per_second"]
    by = {(r["model"], r.get("spread_of_lengths")): r for r in records}
    pair = by.get(("sorted", "paragraphs")), by.get(("unpadded", "paragraphs"))
    if None in pair:
        return []
    return [("mixed lengths, and the model must stay a padded one", "sort by length, batch neighbours",
             f"lesson 07, {pair[0]['device']}: {over(*pair)} of unpadding's speed")]  # fmt: skip


def _by_quality(figures, table: str) -> list[tuple]:
    base, large = TABLE_1["base"], TABLE_1["large"]
    best = {size: max(scores, key=scores.get) for size, scores in TABLE_1.items()}
    glue = (f"{table}: base {base['ModernBERT']} against DeBERTaV3's {base['DeBERTaV3']}, which lesson 11 takes apart; "
            f"large {large['ModernBERT']} against {large['DeBERTaV3']}")  # fmt: skip
    search = search_line(figures)
    undecided = "-" if search is None else "BM25 or a model trained on pairs: no difference can be told"
    first = {"lower": "BM25", "higher": "a model trained on pairs"}.get((search or "").rsplit(", ", 1)[-1], undecided)
    late = max(MLDR_LATE, key=MLDR_LATE.get)
    return [
        ("best scores on short classification", f"large: {best['large']}; base: {best['base']}", glue),
        ("search, with few pairs to train on", first, f"lesson 12: {search or NOT_RECORDED}"),
        ("search over long texts", f"{late} with late interaction: {MLDR_LATE[late]} nDCG@10", f"{table}, MLDR-OOD"),
    ]
