"""The README's numbers, held to the records that they come from."""

import json
import re
import statistics
from collections import Counter
from pathlib import Path

import pytest

from modernbert_edu.lessons import MINUTES, head_to_head, recorded
from modernbert_edu.measure import ablation, headline, retrieval_curve
from modernbert_edu.measure.evidence import devices, select
from modernbert_edu.measure.verdicts import per_sequence

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
FIGURES = ROOT / "figures"


def section(title):
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def table(text):
    """The rows of the first table, as lists of cells."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@pytest.fixture(scope="module")
def cpu():
    return next(device for device in devices(FIGURES) if not device.is_gpu)


def speed(cpu, row, batch, length):
    return cpu.find("bench-base", what="real_tokens_per_second", task="inference", row=row, batch=batch, length=length)[
        "value"
    ]


def test_the_minutes_of_the_lessons_are_recorded():
    shown = {re.search(r"notebooks/(\w+)\.ipynb", row[0])[1]: row[2:] for row in table(section("The lessons"))}
    assert set(shown) == {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    for place, is_gpu in enumerate((False, True)):
        device = next((device for device in devices(FIGURES) if device.is_gpu == is_gpu), None)
        recorded = {r["lesson"]: f"{r['value'] / 60:.1f}" for r in select(device.records(MINUTES))} if device else {}
        assert {lesson: cells[place] for lesson, cells in shown.items() if cells[place] != "-"} == recorded


def test_the_headline_is_recorded():
    found = headline.summary(headline.kept(FIGURES))
    tokens, seconds = (found[axis]["ratio"] for axis in ("tokens", "seconds"))
    assert f"{tokens:.1f} times fewer tokens, {seconds:.1f} times less time" in section("What came out")
    assert f"BERT took {tokens:.1f} times as many" in section("Pretraining")


THREE = dict(bert="BERT's speed", deberta="DeBERTaV3's", modernbert="that of `transformers`' ModernBERT")


def test_the_shares_of_the_ladder_are_recorded():
    steps = head_to_head.ladder_steps(recorded("ablation-ladder", FIGURES))
    shares = {s.name.strip("+ "): f"{s.share:.0%}" for s in steps if s.what == "held_out_loss"}
    said = section("What came out")
    assert f"RoPE makes {shares['rope']}" in said and f"GeGLU {shares['geglu']}" in said
    assert f"pre-norm without biases {shares['prenorm and biases']}" in said
    assert f"windows' {shares['alternating attention']} is within chance" in said
    assert f"segment embeddings gives {shares['no segments'].strip('-')} back" in said


def test_what_is_said_of_the_ladder_is_recorded():
    records, said = recorded("ablation-ladder", FIGURES), " ".join(section("Ablations").split())
    steps = [r for r in records if r["what"] == "step_seconds"]
    bert, modern = (statistics.median(1e6 * r["value"] / r["tokens"] for r in steps if r["model"] == model)
                    for model in ("BERT", "ModernBERT"))  # fmt: skip
    assert f"take {modern:.0f} microseconds a token with all changes and {bert:.0f} in BERT" in said
    final = [r for r in records if r.get("purpose") == "final"]

    def by_seed(model, base):
        return next(d.by_seed.values() for d in ablation.paired_differences(final, base) if d.model == model)

    segments = by_seed("no segments", "+ alternating attention")
    assert f"end higher, by {min(segments):.2f} to {max(segments):.2f} nats" in said
    assert f"its seeds end up to {max(map(abs, by_seed('ModernBERT', 'no segments'))):.2f} nats apart" in said


@pytest.mark.parametrize(("batch", "length", "rows"), [
    ("variable", 512, THREE),
    ("fixed", 512, THREE),
    ("fixed", 8192, dict(modernbert="the speed of `transformers`' ModernBERT")),
])  # fmt: skip
def test_ratios_of_speed_are_recorded(cpu, batch, length, rows):
    ours = speed(cpu, "ours", batch, length)
    for row, words in rows.items():
        ratio = ours / speed(cpu, row, batch, length)
        assert re.search(rf"{ratio:.2f} times {re.escape(words)}", section("What came out")), (row, ratio)


def test_the_memory_of_a_further_text_is_recorded(cpu):
    ours, deberta, bert = (per_sequence(cpu, row)[0] / 1e6 for row in ("ours", "deberta", "bert"))
    assert f"{ours:.1f} MB, DeBERTaV3 {deberta:.1f} MB, BERT {bert:.1f} MB" in section("What came out")


def test_the_road_past_bm25_is_recorded():
    records = retrieval_curve.kept(FIGURES)
    ends = {model: [points[-1][1] for points in retrieval_curve.curve(records, model, "code")]
            for model in retrieval_curve.MODELS}  # fmt: skip
    said = section("What came out")
    assert f"BM25 {retrieval_curve.words(records, 'code'):.2f}" in said
    goal = retrieval_curve.words(records, "code")
    for model, words in (
        ("ModernBERT", "ModernBERT passes BM25 after {} thousand pairs"),
        ("BERT", "BERT after {} (["),
    ):
        passed = [retrieval_curve.passed(points, goal) for points in retrieval_curve.curve(records, model, "code")]
        assert words.format(f"{sum(passed) / len(passed) / 1000:.0f}") in said
    assert "to end only {:.3f} and {:.3f} above it".format(*(end - goal for end in ends["BERT"])) in said
    for model, values in ends.items():
        assert f"{model} {sum(values) / len(values):.2f}" in said


def test_the_claims_in_brief_are_those_of_the_page():
    claims = json.loads((FIGURES / "claims.json").read_text())
    rows = table(section("The claims in brief"))
    assert [(re.search(r"#([\w-]+)\)", row[0])[1], row[2].strip("*")) for row in rows] == [
        (claim["id"], claim["verdict"]) for claim in claims
    ]
    for claim, row in zip(claims, rows, strict=True):
        ratios = [ratio["value"] for finding in claim["findings"] for ratio in finding["ratios"].values()]
        for number in re.findall(r": ([\d.]*\d)", row[1]):
            places = len(number.partition(".")[2])
            assert number in [f"{ratio:.{places}f}" for ratio in ratios], (claim["id"], number)
    count = Counter(claim["verdict"] for claim in claims)
    assert (
        f"of {len(claims)} claims {count['holds']} hold, {count['holds in part']} hold in part, "
        f"{count['does not hold']} do not, {count['not measured here']} wait for a GPU"
    ) in section("What came out")
