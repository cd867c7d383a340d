"""Claims: every verdict has records behind it, planted records flip it both ways, and a GPU's come first."""

import json
import math
from pathlib import Path

import pytest
import torch

from modernbert_edu.__main__ import main
from modernbert_edu.errors import InputError
from modernbert_edu.measure import claims_report, inference_memory, published
from modernbert_edu.measure.claims import CLAIMS, judge
from modernbert_edu.measure.evidence import Device, devices, over, select
from modernbert_edu.measure.inference_memory import allocated_at_peak, measure_inference_memory
from modernbert_edu.measure.verdicts import HOLDS, NOT, PARTLY, UNMEASURED, per_sequence
from modernbert_edu.training.recipe import Recipe

FIGURES = Path(__file__).resolve().parents[1] / "figures"
FACTS = dict(
    device="Some CPU", torch="2", transformers="5", dtype="float32", date="2026-01-02T00:00:00+00:00", spread=0
)
BY_ID = {claim.id: claim for claim in CLAIMS}
MEASURED = [claim.id for claim in CLAIMS if claim.basis == "measured" and claim.id != "glue-paper"]


def plant(figures, files, slug="cpu-some", **facts):
    """A device folder with these records: {file: records}."""
    folder = figures / "measurements" / slug
    folder.mkdir(parents=True, exist_ok=True)
    for name, records in files.items():
        (folder / name).write_text("".join(json.dumps(FACTS | facts | record) + "\n" for record in records))
    return Device(folder)


# ---- planted records: what each claim finds, from numbers that a test chooses ----------------------------------------


def timed(row, value, batch="fixed", length=512, task="inference", **more):
    case = dict(batch=batch, length=length, task=task, sequences=8, tokens_in_batch=8 * length, step="forward")
    kind = dict(backend="sdpa", compiled="compiled" in row)
    return dict(what="real_tokens_per_second", row=row, value=value, **case, **kind, **more)


def speeds(fixed, variable, **more):
    """bench-base.jsonl with {row: tokens/s} of both kinds of batch."""
    both = {"fixed": fixed, "variable": variable}
    return {
        "bench-base.jsonl": [timed(row, v, batch, **more) for batch, rows in both.items() for row, v in rows.items()]
    }


def peaks(**by_row):
    """claims-base.jsonl with row=(bytes of a further sequence, bytes of weights)."""
    records = []
    for row, (each, weights) in by_row.items():
        records += [dict(what="weight_bytes", row=row, value=weights)]
        records += [dict(what="inference_peak_bytes", row=row, sequences=n, value=1000 + n * each) for n in (2, 4)]
    return {"claims-base.jsonl": records}


def four(bert, roberta, deberta, ours):
    return dict(bert=bert, roberta=roberta, deberta=deberta, ours=ours)


def packed(packed, unpadded):
    ways = dict(padded=10, unpadded=unpadded, packed=packed)
    return {"07_unpadding-laptop.jsonl": [
        dict(what="train_tokens_per_second", model=way, spread_of_lengths="paper", value=value, tokens=100, pads=0.2)
        for way, value in ways.items()
    ]}  # fmt: skip


def full(greedy, longest_first):
    ways = {"best fit": greedy, "best fit, longest first": longest_first}
    return {"07_unpadding-laptop.jsonl": [
        dict(what="fullness", model=way, lengths="the paper's lengths", documents=9, budget=budget, multiple=1,
             value=value if budget == 1024 else 0.5) for budget in (512, 1024) for way, value in ways.items()
    ]}  # fmt: skip


def alternating(**faster_at):
    return {"06_alternating_attention-laptop.jsonl": [
        dict(what="forward_tokens_per_second", model=model, length=n, value=100 * (gain if model == "GLL" else 1),
             layers="GLLG", batch_tokens=4096)
        for n, gain in zip((128, 1024, 2048), faster_at.values(), strict=True) for model in ("G", "GLL")
    ]}  # fmt: skip


def decoder(odd, again=1.0):
    times = {-64: 1.0, -1: odd, 0: 1.0, 1: odd, 64: 1.0}
    rows = [dict(offset=o, again=False, value=t * (50_368 + o)) for o, t in times.items()]
    rows.append(dict(offset=0, again=True, value=again * 50_368))
    return {"02_tokenizer_and_data-laptop.jsonl": [
        dict(what="decoder_ms", vocab_size=50_368, rows=8, width=768, **row) for row in rows
    ]}  # fmt: skip


def masked(*gaps):
    models = {"ModernBERT's recipe": [0.0] * len(gaps), "15 % masked": gaps}
    return {"08_mlm_pretraining-laptop.jsonl": [
        dict(what="held_out_loss", model=model, seed=seed, value=3.0 + gap, step=n, tokens=n * 10, purpose="final")
        for model, of_seeds in models.items() for n in (1, 2) for seed, gap in enumerate(of_seeds)
    ]}  # fmt: skip


def once(inference, training, backend="varlen"):
    gains = {("inference", 512): inference, ("training", 1024): training}
    records = []
    for (task, length), gain in gains.items():
        ours = timed("ours compiled", 100 * gain, "variable", length, task)
        best = timed("modernbert best", 100, "variable", length, task) | dict(backend=backend, compiled=True)
        records += [ours, best]
    return {"bench-base.jsonl": records}


def long_text(at_8192):
    return {"bench-base.jsonl": [timed("ours", 100), timed("ours", at_8192, length=8192)]}


CASES = {
    "speed-deberta": [
        (HOLDS, speeds(dict(ours=200, deberta=100), dict(ours=410, deberta=100))),
        (PARTLY, speeds(dict(ours=199, deberta=100), dict(ours=410, deberta=100))),
        (NOT, speeds(dict(ours=150, deberta=100), dict(ours=150, deberta=100))),
    ],
    "speed-bert": [
        (HOLDS, speeds(dict(ours=80, bert=100), dict(ours=160, bert=100))),
        (PARTLY, speeds(dict(ours=120, bert=100), dict(ours=160, bert=100))),
        (NOT, speeds(dict(ours=120, bert=100), dict(ours=90, bert=100))),
    ],
    "memory-deberta": [
        (HOLDS, peaks(ours=(10, 5000), deberta=(50, 5000))),
        (PARTLY, peaks(ours=(10, 5000), deberta=(50, 5000)) | {"bench-base.jsonl": [
            timed(row, n) | dict(what="largest_batch") for row, n in (("ours", 400), ("deberta", 100))]}),
        (NOT, peaks(ours=(10, 5000), deberta=(49, 5000))),
    ],
    "context-8192": [(HOLDS, long_text(76)), (PARTLY, long_text(74))],
    "circulating-speed": [
        (HOLDS, speeds(four(1, 1, 1, 1), four(1420, 1630, 980, 2400))),
        (PARTLY, speeds(four(100, 100, 70, 60), four(100, 101, 40, 160))),
        (NOT, speeds(four(100, 100, 70, 60), four(100, 90, 40, 160))),
    ],
    "circulating-memory": [
        (HOLDS, peaks(**{row: (int(x["gb"] * 1e8), int(x["gb"] * 2e8)) for row, x in zip(
            ("bert", "roberta", "deberta", "ours"), published.CIRCULATING.values(), strict=True)})),
        (PARTLY, peaks(**four((10**8, 10**8), (10**8, 10**8), (10**8, 10**8), (10**8, 10**8)))),
        (NOT, peaks(**four((10**8, 10**8), (10**9, 10**8), (10**8, 10**8), (10**7, 10**7)))),
        (NOT, peaks(**four((10**8, 2 * 10**9), (10**8, 10**8), (10**8, 10**8), (10**8, 10**8)))),  # BERT never fits
    ],
    "packing-gain": [(HOLDS, packed(23.0, 20.0)), (PARTLY, packed(21.5, 20.0)), (NOT, packed(20.4, 20.0))],
    "packing-full": [(HOLDS, full(0.991, 0.99)), (PARTLY, full(0.98, 0.991)), (NOT, full(0.98, 0.99))],
    "unpadding-once": [(HOLDS, once(1.2, 1.1)), (PARTLY, once(1.2, 1.0)), (NOT, once(1.0, 1.0))],
    "compile-gain": [
        (HOLDS, speeds({"ours": 100, "ours compiled": 110}, {"ours": 100, "ours compiled": 108})),
        (PARTLY, speeds({"ours": 100, "ours compiled": 110}, {"ours": 100, "ours compiled": 101})),
        (NOT, speeds({"ours": 100, "ours compiled": 99}, {"ours": 100, "ours compiled": 101})),
    ],
    "alternating": [
        (HOLDS, alternating(short=0.8, long=1.1, longer=1.5)),
        (PARTLY, alternating(short=0.8, long=0.9, longer=1.5)),
        (NOT, alternating(short=2.0, long=0.9, longer=0.9)),
    ],
    "vocabulary": [
        (HOLDS, decoder(1.06, 1.02)), (PARTLY, decoder(1.04, 1.02)), (NOT, decoder(1.01, 1.02)), (NOT, decoder(0.9)),
    ],
    "masking": [(HOLDS, masked(0.1, 0.2)), (NOT, masked(-0.1, 0.2)), (NOT, masked(-0.1, -0.2))],
}  # fmt: skip
FLIPS = [(name, verdict, files) for name, cases in CASES.items() for verdict, files in cases]


def test_every_measured_claim_has_planted_records_that_flip_it_both_ways():
    assert set(CASES) == set(MEASURED)
    assert all(len({verdict for verdict, _ in cases}) >= 2 for cases in CASES.values())


@pytest.mark.parametrize(("name", "verdict", "files"), FLIPS, ids=[f"{n}-{i}" for i, (n, _, _) in enumerate(FLIPS)])
def test_planted_records_decide(name, verdict, files, tmp_path):
    row = judge(BY_ID[name], [plant(tmp_path, files)])
    assert (row["verdict"], row["device"]) == (verdict, "Some CPU")
    assert row["findings"][0]["measurements"] and row["findings"][0]["ratios"]
    assert ("this is none" in row["findings"][0]["said"]) == BY_ID[name].gpu_only


@pytest.mark.parametrize("name", MEASURED)
def test_without_its_records_a_claim_is_not_measured(name, tmp_path):
    """The last record of each file taken away, or all of it, or values that are no numbers: never a verdict."""
    files = CASES[name][-1][1]
    no_numbers = {f: [r | dict(value=None) for r in records] for f, records in files.items()}
    for place, left in enumerate(({}, no_numbers, {"other.jsonl": [dict(what="x", value=1)]})):
        row = judge(BY_ID[name], [plant(tmp_path / str(place), left)])
        assert (row["verdict"], row["findings"], row["device"]) == (UNMEASURED, [], None)
        assert row["command"]


def test_rows_of_two_runs_are_not_compared(tmp_path):
    files = speeds(dict(ours=200, deberta=100), dict(ours=400, deberta=100))
    files["bench-base.jsonl"][1]["date"] = "2026-01-03T00:00:00+00:00"
    assert judge(BY_ID["speed-deberta"], [plant(tmp_path, files)])["verdict"] == UNMEASURED


def test_one_seed_decides_nothing(tmp_path):
    assert judge(BY_ID["masking"], [plant(tmp_path, masked(0.3))])["verdict"] == UNMEASURED


def test_unpadding_inside_needs_the_kernels(tmp_path):
    assert judge(BY_ID["unpadding-once"], [plant(tmp_path, once(2.0, 2.0, "sdpa"))])["verdict"] == UNMEASURED


# ---- a GPU's records -------------------------------------------------------------------------------------------------


def test_a_gpu_decides_and_both_are_shown(tmp_path):
    slow, fast = dict(ours=150, deberta=100), dict(ours=300, deberta=100)
    plant(tmp_path, speeds(slow, slow))
    plant(tmp_path, speeds(fast, fast), slug="nvidia-h200", device="NVIDIA H200, 139 GiB")
    assert [device.is_gpu for device in devices(tmp_path)] == [True, False]
    judged = {row["id"]: row for row in claims_report.judge_all(tmp_path)}
    row = judged["speed-deberta"]
    assert (row["verdict"], row["device"]) == (HOLDS, "NVIDIA H200, 139 GiB")
    assert [(f["gpu"], f["verdict"]) for f in row["findings"]] == [(True, HOLDS), (False, NOT)]
    page = claims_report.as_markdown(list(judged.values()), devices(tmp_path))
    section = page[page.index('<a id="speed-deberta">') :].split("<a id=")[1]
    assert f"**{HOLDS}** on NVIDIA H200, 139 GiB" in section and f"**{NOT}** on Some CPU" in section
    (head,) = [line for line in page.splitlines() if "in circulation: tokens/s" in line]
    assert head.count("tokens/s, fixed 512") == 3  # the paper's, and both devices'
    (line,) = [line for line in page.splitlines() if line.startswith("| DeBERTaV3 ")]
    assert line.count("|") == head.count("|")


def test_a_gpus_lessons_come_before_a_laptops(tmp_path):
    (name,) = files = masked(-0.1, -0.2)
    device = plant(tmp_path, files | {name.replace("laptop", "gpu"): masked(0.1, 0.2)[name]})
    assert judge(BY_ID["masking"], [device])["verdict"] == HOLDS
    assert all("-gpu.jsonl:" in r["place"] for r in device.records("08_mlm_pretraining"))


def test_quick_runs_are_no_evidence(tmp_path):
    ((name, records),) = masked(0.1, 0.2).items()
    device = plant(tmp_path, {name.replace("laptop", "quick"): records})
    assert judge(BY_ID["masking"], [device])["verdict"] == UNMEASURED


# ---- what is kept in this repository ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def judged():
    return claims_report.judge_all(FIGURES)


def test_no_verdict_without_a_measurement_behind_it(judged):
    """Each number that a verdict rests on is read again from the file and the line that it names."""
    assert len(judged) == len(BY_ID) == len(CLAIMS)
    lines = {}
    for row in judged:
        assert row["verdict"] in (HOLDS, PARTLY, NOT, UNMEASURED)
        assert (row["verdict"] == UNMEASURED) == (not row["findings"])
        for finding in row["findings"]:
            assert finding["measurements"] and finding["said"] and finding["ratios"]
            for used in finding["measurements"]:
                if row["basis"] != "measured":
                    assert used["source"].startswith(published.PAPER) and used["value"] > 0
                    continue
                file, line = used["place"].rsplit(":", 1)
                if file not in lines:
                    lines[file] = (FIGURES / "measurements" / file).read_text(encoding="utf-8").splitlines()
                record = json.loads(lines[file][int(line) - 1])
                assert (record["what"], record["value"]) == (used["what"], used["value"])
                assert record["device"] == finding["device"]


def test_only_what_a_cpu_cannot_measure_is_open(judged):
    open_claims = {row["id"] for row in judged if row["verdict"] == UNMEASURED}
    assert open_claims <= {"unpadding-once", "glue-paper"} | ({"memory-deberta", "circulating-memory"} if not list(
        (FIGURES / "measurements").glob("*/claims-base.jsonl")) else set())  # fmt: skip


def test_each_claim_says_all_that_it_must():
    for claim in CLAIMS:
        for name in ("id", "title", "published", "source", "workload", "paper", "rule"):
            assert getattr(claim, name).strip(), (claim.id, name)
        assert claim.command or claim.basis != "measured"


def test_the_page_that_is_kept_is_what_the_records_say(judged):
    page = (FIGURES / "claims.md").read_text(encoding="utf-8")
    assert page == claims_report.as_markdown(judged, devices(FIGURES)), "run `python -m modernbert_edu claims`"
    assert json.loads((FIGURES / "claims.json").read_text(encoding="utf-8")) == judged
    assert all(f'<a id="{row["id"]}"></a>' in page for row in judged)


# ---- quoted numbers and arithmetic -----------------------------------------------------------------------------------


def test_the_papers_numbers_fit_together():
    assert published.paper_ratio("fixed", "DeBERTaV3") == pytest.approx(2.11, abs=0.005)
    assert published.paper_ratio("variable", "DeBERTaV3") == pytest.approx(4.20, abs=0.005)
    assert published.paper_ratio("batch", "DeBERTaV3") == pytest.approx(6.8, abs=0.05)
    assert sum(tokens for tokens, _ in published.PHASES.values()) == Recipe.preset("modernbert-context").tokens


def test_arithmetic_and_quotation_decide_by_the_numbers(monkeypatch):
    assert [judge(BY_ID[name], [])["verdict"] for name in ("tokens-first", "tokens-second")] == [HOLDS, NOT]
    assert "64 steps" in judge(BY_ID["tokens-second"], [])["findings"][0]["said"]
    monkeypatch.setattr("modernbert_edu.measure.verdicts.CIRCULATING_EXTENSION", 299_000_000_000)
    assert judge(BY_ID["tokens-second"], [])["verdict"] == HOLDS
    quoted = judge(BY_ID["glue-circulating"], [])
    assert quoted["verdict"] == NOT and quoted["basis"] == "quoted" and "QQP" in quoted["findings"][0]["said"]
    real = {model: dict(glue=score) for model, score in zip(published.CIRCULATING, (84.7, 1, 2, 3), strict=True)}
    monkeypatch.setattr("modernbert_edu.measure.verdicts.CIRCULATING", real)
    assert judge(BY_ID["glue-circulating"], [])["verdict"] == PARTLY


def test_what_glue_would_take():
    """Six operations for each of the 110.3 M weights in the layers, and a little for attention, by hand."""
    once = sum(count * epochs for count, epochs in (
        (8_551, 5), (67_349, 2), (3_668, 5), (5_749, 5), (363_846, 5), (392_702, 1), (104_743, 2), (2_490, 3)
    ))  # fmt: skip
    hours = once * 128 * 6 * 110.3e6 / (989e12 * 0.3) / 3600
    found = published.glue_hours()
    assert hours < found["once"] < 1.05 * hours
    assert published.glue_hours(utilisation=0.6)["sweep"] == pytest.approx(found["sweep"] / 2)
    assert found["sweep"] > 48 * found["once"]
    assert "30%" in published.glue_cost_in_words() and "assumed" in published.glue_cost_in_words()


# ---- records, ratios, memory -----------------------------------------------------------------------------------------


def test_a_ratio_reaches_as_far_as_the_spreads_of_both():
    ratio = over(dict(value=100, spread=20), dict(value=50, spread=10))
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((2.0, 90 / 55, 110 / 45))
    assert str(ratio) == "2.00 (1.64 to 2.44)"
    assert str(over(dict(value=3), dict(value=2, spread=None))) == "1.50"
    assert over(dict(value=3), dict(value=2, spread=5)).high == math.inf


def test_records_know_their_line_and_the_last_with_a_number_is_found(tmp_path):
    rows = [dict(what="a", value=1), dict(what="a", value=2), dict(what="a", value=None), dict(what="b", value=True)]
    device = plant(tmp_path, {"bench-base.jsonl": rows})
    assert device.find("bench-base", what="a")["place"] == "cpu-some/bench-base.jsonl:2"
    assert device.find("bench-base", what="c") is None and device.records("nothing") == []
    assert select([dict(value=math.inf), dict(value=math.nan)]) == []


def test_no_records_at_all_is_bad_input(tmp_path, capsys):
    with pytest.raises(InputError, match="no measurements are kept"):
        devices(tmp_path)
    assert main(["claims", "--figures", str(tmp_path)]) == 2
    assert "`record` measures them" in capsys.readouterr().err


def test_the_peak_is_counted_to_the_byte():
    def call():
        first = torch.zeros(1_000_000)
        del first
        second, third = torch.zeros(300_000), torch.zeros(500_000)
        return second.sum() + third.sum()

    assert allocated_at_peak(call, torch.device("cpu")) == 4_000_000

    def both_at_once():
        return torch.zeros(1_000_000), torch.zeros(500_000)

    assert allocated_at_peak(both_at_once, torch.device("cpu")) == 6_000_000
    with pytest.raises(InputError, match="does not say what it allocates"):
        allocated_at_peak(call, torch.device("meta"))


def test_memory_of_the_encoders_grows_by_the_sequence(tmp_path):
    records = measure_inference_memory(torch.device("cpu"), "tiny", batches=(1, 3))
    assert [r["row"] for r in records if r["what"] == "weight_bytes"] == list(inference_memory.ROWS)
    device = plant(tmp_path, {"claims-base.jsonl": records})
    sizes = {row: per_sequence(device, row) for row in inference_memory.ROWS}
    assert sizes["deberta"][0] > 3 * sizes["ours"][0] > 0  # its scores are written out
    assert sizes["ours"][1] == sizes["modernbert"][1]  # the same weights
    assert judge(BY_ID["memory-deberta"], [device])["verdict"] in (HOLDS, PARTLY, NOT)


def test_the_command_writes_page_and_json(tmp_path, capsys):
    plant(tmp_path, masked(0.1, 0.2) | long_text(90))
    assert main(["claims", "--figures", str(tmp_path), "--json", str(tmp_path / "rows.jsonl")]) == 0
    said = capsys.readouterr().out
    assert "masking 30 % beats masking 15 %" in said and "Some CPU" in said and "record --part claims" in said
    judged = json.loads((tmp_path / "claims.json").read_text())
    assert [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()] == judged
    assert {row["id"]: row["verdict"] for row in judged if row["basis"] == "measured"} == {
        "masking": HOLDS, "context-8192": HOLDS
    }  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "claims.json",
        "claims.md",
        "measurements",
        "rows.jsonl",
    ]


def test_measuring_keeps_the_records_where_record_looks_for_them(tmp_path, monkeypatch):
    from modernbert_edu.measure.record import PARTS

    kept = [dict(dtype="float32", **r) for r in peaks(ours=(10, 5000), deberta=(60, 5000))["claims-base.jsonl"]]
    monkeypatch.setattr(inference_memory, "measure_inference_memory", lambda device, seed: kept)
    part = PARTS["claims"]
    assert main([*part.command, "--figures", str(tmp_path), "--device", "cpu", "--scale", "quick"]) == 0
    assert part.path(tmp_path, torch.device("cpu"), "quick").exists()
    rows = json.loads((tmp_path / "claims.json").read_text())
    assert next(row for row in rows if row["id"] == "memory-deberta")["verdict"] == HOLDS
