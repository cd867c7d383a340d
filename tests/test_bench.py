"""The benchmark: its cases, its plan, rows that cannot run, targets from records, the records' fields, the picture."""

import itertools
import json
from dataclasses import replace

import pytest
import torch

from modernbert_edu import InputError
from modernbert_edu.__main__ import main
from modernbert_edu.measure import bench, bench_cases, bench_plots, bench_report
from modernbert_edu.measure.bench_cases import Case, Row, Setup
from modernbert_edu.measure.plots import png_bytes

CPU = torch.device("cpu")
QUICK = Setup(size="tiny", lengths=(64,), compile=False)


# ---- cases and rows --------------------------------------------------------------------------------------------------


def test_lengths_are_the_papers():
    case = Case("inference", "variable", 512, 8192)
    lengths = torch.tensor(case.lengths, dtype=torch.float)
    assert lengths.mean().item() == pytest.approx(256, abs=3) and lengths.std().item() == pytest.approx(64, abs=2)
    assert lengths.min() >= 16 and lengths.max() <= 512
    long = torch.tensor(Case("inference", "variable", 8192, 8192).lengths, dtype=torch.float)
    assert long.mean().item() == pytest.approx(4096, abs=45) and long.std().item() == pytest.approx(1024, abs=30)
    assert Case("inference", "fixed", 512, 3).lengths == [512] * 3


def test_a_batch_is_padded_to_the_length_and_masks_30_percent_of_what_is_real():
    case = Case("training", "variable", 512, 8, seed=1)
    input_ids, mask, labels = bench.make_batch(case, 4096, CPU)
    assert input_ids.shape == mask.shape == labels.shape == (8, 512)
    assert mask.sum(dim=1).tolist() == case.lengths and case.tokens == int(mask.sum())
    chosen = labels != -100
    assert int(chosen.sum()) == round(0.3 * case.tokens) and bool(mask[chosen].all())
    assert torch.equal(labels[chosen], input_ids[chosen])
    assert all(
        torch.equal(a, b) for a, b in zip(bench.make_batch(case, 4096, CPU), (input_ids, mask, labels), strict=True)
    )


def test_who_takes_part():
    setup = Setup()
    keys = {case: [row.key for row in bench_cases.rows_for(case, setup)] for case in bench_cases.all_cases(setup)}
    short, long = Case("inference", "fixed", 512, 8), Case("inference", "fixed", 8192, 1)
    assert keys[short] == ["ours", "ours compiled", "modernbert", "modernbert compiled", "bert", "roberta", "deberta"]
    assert keys[long] == ["ours", "ours compiled", "modernbert", "modernbert compiled"]  # where positions end
    assert "modernbert best" in keys[Case("training", "variable", 512, 8)]
    without = [row.key for row in bench_cases.rows_for(short, Setup(compile=False))]
    assert not any("compiled" in key for key in without)


def test_peers_compute_more_than_ours_and_the_useful_work_is_the_same():
    case = Case("training", "variable", 512, 8)
    rows = {row.key: row for row in bench_cases.rows_for(case, Setup())}
    ours, theirs = rows["ours"], rows["modernbert"]
    assert bench_cases.useful_flops(ours, case, "base") == bench_cases.useful_flops(theirs, case, "base")
    assert bench_cases.computed_flops(theirs, case, "base") > 2 * bench_cases.computed_flops(ours, case, "base")
    assert bench_cases.computed_flops(rows["modernbert best"], case, "base") < bench_cases.computed_flops(
        theirs, case, "base"
    )
    assert bench_cases.useful_flops(rows["deberta"], case, "base") is None


# ---- the plan --------------------------------------------------------------------------------------------------------

A, B = Case("inference", "fixed", 512, 8), Case("training", "variable", 512, 8)
OURS, THEIRS, EXTRA = (
    Row("ours", "ours", "ours", 0),
    Row("modernbert", "T", "modernbert", 0),
    Row("bert", "BERT", "bert", 2),
)


def plan(budget, level=lambda case: 0):
    """Every row costs a second for each sequence."""
    rows = [OURS, THEIRS, EXTRA]
    return bench_cases.make_plan([A, B], lambda case: rows, level, lambda row, case: case.sequences, budget)


def test_with_time_enough_nothing_is_reduced():
    assert plan(48) == ([(A, [OURS, THEIRS, EXTRA]), (B, [OURS, THEIRS, EXTRA])], [])


def test_what_a_case_is_about_goes_before_the_others():
    chosen, said = plan(40)
    assert chosen == [(A, [OURS, THEIRS, EXTRA]), (B, [OURS, THEIRS])]
    assert said == ["training, variable 512: left out BERT, 8 s and 0 s left"]


def test_a_batch_shrinks_before_a_case_is_left_out():
    chosen, said = plan(25)
    assert [(case.sequences, rows) for case, rows in chosen] == [(8, [OURS, THEIRS]), (4, [OURS, THEIRS])]
    assert said[0] == "training, variable 512: 4 sequences instead of 8"
    chosen, said = plan(16)
    assert [case for case, _ in chosen] == [A]
    assert said[0] == "training, variable 512: left out altogether, 8 s and 0 s left"


def test_cases_that_matter_come_first():
    chosen, _ = plan(16, level=lambda case: 0 if case == B else 1)
    assert [case for case, _ in chosen] == [B]


def test_the_plan_never_exceeds_the_budget():
    for budget in range(0, 50):
        chosen, said = plan(budget)
        assert sum(case.sequences for case, rows in chosen for _ in rows) <= budget
        kept = sum(len(rows) for _, rows in chosen)
        assert said or kept == 6


def test_slow_rows_are_dropped_but_never_those_a_case_is_about():
    first = {OURS: 5.0, THEIRS: 9.0, EXTRA: 2.0}
    assert bench.too_slow(first, 48) == []
    assert bench.too_slow(first, 47) == [EXTRA]
    assert bench.too_slow(first, 1) == [EXTRA]


# ---- running ---------------------------------------------------------------------------------------------------------


def run(case, rows, said=None, setup=QUICK):
    models = bench.Models(setup, case.task)
    return bench.run_case(case, rows, models, setup, 1e11, say=(said if said is not None else []).append)


def test_records_of_a_training_case_have_all_fields():
    case = Case("training", "variable", 64, 2)
    records = run(case, bench_cases.rows_for(case, QUICK))
    speeds = {r["row"]: r for r in records if r["what"] == "real_tokens_per_second"}
    memory = {r["row"]: r for r in records if r["what"] == "train_memory_bytes"}
    assert set(speeds) == set(memory) == {"ours", "modernbert", "modernbert best", "bert", "roberta", "deberta"}
    for key, r in speeds.items():
        assert r["failed"] is None and r["value"] > 0 and r["spread"] >= 0 and r["n"] == bench.REPEATS
        assert r["value"] == pytest.approx(case.tokens / r["milliseconds"] * 1000)
        assert (r["mfu"] is None) == (key == "deberta") and (r["mfu"] is None or 0 < r["mfu"])
        assert (r["task"], r["batch"], r["length"], r["sequences"]) == ("training", "variable", 64, 2)
        assert r["tokens_in_batch"] == case.tokens and r["step"] == "forward and backward, without optimizer"
        assert r["package"] == ("modernbert_edu" if key == "ours" else "transformers")
    assert memory["ours"]["value"] < memory["modernbert best"]["value"] < memory["modernbert"]["value"]
    json.dumps(records)


def test_a_training_call_trains_and_leaves_no_gradient():
    case = Case("training", "fixed", 32, 2)
    models = bench.Models(QUICK, "training")
    model = models.model(bench_cases.rows_for(case, QUICK)[0], case.tokens)
    seen = []
    next(model.parameters()).register_hook(lambda gradient: seen.append(float(gradient.abs().sum())))
    bench.make_call(model, "training", bench.make_batch(case, 4096, CPU), torch.float32)()
    assert model.training and seen and seen[0] > 0
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB\nmore"),
            "out of memory: CUDA out of memory",
        ),
        (MemoryError(), "out of memory: MemoryError"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9"), "out of memory: "),
        (RuntimeError("no compiler here\ndetails"), "failed: no compiler here"),
    ],
)
def test_a_row_that_cannot_run_says_so_and_the_others_run(error, words, monkeypatch):
    case = Case("inference", "fixed", 64, 2)
    real = bench.make_call

    def make_call(model, *rest):
        if type(model).__name__ != "BertModel":
            return real(model, *rest)

        def fail():
            raise error

        return fail

    monkeypatch.setattr(bench, "make_call", make_call)
    records = run(case, bench_cases.rows_for(case, QUICK))
    values = {r["row"]: r["value"] for r in records}
    failed = next(r["failed"] for r in records if r["row"] == "bert")
    assert values.pop("bert") is None and all(values.values()) and len(values) == 4
    assert failed.startswith(words) and "\n" not in failed
    assert failed in bench_report.case_table(case, records)


def test_a_row_that_needs_more_memory_than_is_free_is_not_tried(monkeypatch):
    case = Case("inference", "fixed", 64, 2)
    need = {row.key: bench.bytes_needed(row, case, "tiny") for row in bench_cases.rows_for(case, QUICK)}
    assert need["deberta"] > max(need["ours"], need["bert"])
    monkeypatch.setattr(bench, "free_bytes", lambda: (need["deberta"] - 1) / 0.9)
    records = {r["row"]: r for r in run(case, bench_cases.rows_for(case, QUICK))}
    assert records["deberta"]["failed"].startswith("out of memory: it needs")
    assert records["ours"]["value"] and records["bert"]["value"]


def test_memory_needed_is_a_lower_bound_of_the_right_size():
    """Held to what autograd keeps: within it, and at least a quarter of it."""
    case = Case("training", "fixed", 128, 2)
    records = run(case, bench_cases.rows_for(case, QUICK))
    kept = {r["row"]: r["value"] for r in records if r["what"] == "train_memory_bytes"}
    for row in bench_cases.rows_for(case, QUICK):
        estimate = bench.bytes_needed(row, case, "tiny") - 4 * bench_cases.config_of(row, "tiny").num_parameters()
        assert kept[row.key] / 4 < estimate < 3 * kept[row.key], (row.key, estimate, kept[row.key])


def test_when_time_is_short_repeats_and_rows_are_reduced_aloud():
    case, said = Case("inference", "fixed", 64, 2), []
    models = bench.Models(QUICK, "inference")
    records = bench.run_case(
        case, bench_cases.rows_for(case, QUICK), models, QUICK, 1e11, allowance=0.0, say=said.append
    )
    assert {r["row"] for r in records if r["value"]} == {"ours", "modernbert"}
    assert all(r["n"] == 3 for r in records if r["value"])
    assert any("too long for the time that is left" in line for line in said)
    assert said[-1] == "reduced: inference, fixed 64: 3 repeats instead of 7"


def test_a_backend_that_cannot_train_says_so_in_its_row():
    setup = bench_cases.make_setup(CPU, size="tiny", lengths=[64], backend="flex", compile=False)
    case = Case("training", "fixed", 64, 1)
    records = run(case, bench_cases.rows_for(case, setup)[:2], setup=setup)
    assert "forward pass only" in records[0]["failed"] and records[1]["value"]


@pytest.mark.parametrize("capacity", [0, 1, 7, 8, 100, 1604])
def test_the_largest_batch_is_found_by_doubling_and_bisecting(capacity):
    tried = []

    def fits(n):
        tried.append(n)
        return n <= capacity

    found = bench.largest_batch(fits, 8)
    assert found <= capacity and capacity - found <= max(1, capacity // 20) and len(tried) < 20
    assert found == 0 or found in tried
    assert capacity > 1 or found == capacity


def test_the_search_for_the_largest_batch_ends_in_time(monkeypatch):
    clock = itertools.count(step=4)
    monkeypatch.setattr(bench.time, "perf_counter", lambda: next(clock))
    assert bench.largest_batch(lambda n: True, 1, limit_seconds=15) == 4  # three tries, then the time is over


# ---- cost against length ---------------------------------------------------------------------------------------------


def test_slope():
    assert bench_report.slope([(n, 3 * n**1.5) for n in (2, 8, 32)]) == pytest.approx(1.5)
    with pytest.raises(InputError, match="two lengths"):
        bench_report.slope([(8, 1.0), (8, 2.0)])


def test_cost_against_length_is_recorded_with_its_slopes():
    lengths = (64, 128, 256)
    records = bench.attention_against_length(CPU, torch.float32, lengths=lengths, longest_global=128, heads=2,
                                             head_size=8, window=8, repeats=3)  # fmt: skip
    assert [(r["kind"], r["length"]) for r in records] == [
        ("local", 64), ("global", 64), ("local", 128), ("global", 128), ("local", 256)]  # fmt: skip
    records += bench.memory_against_length(bench.Models(QUICK, "training"), QUICK, (256, 512, 2048))
    memory = {(r["row"], r["length"]): r["value"] for r in records if r.get("task") == "memory"}
    assert set(memory) == {("ours", 256), ("ours", 512), ("ours", 2048), ("modernbert", 2048)}
    assert memory["ours", 2048] <= 0.5 * memory["modernbert", 2048]  # the target, which no machine's speed decides
    found = {r["kind"]: r["value"] for r in bench.slopes(records)}
    assert set(found) == {"local attention", "global attention", "memory"}
    assert found["memory"] == pytest.approx(1, abs=0.15)


# ---- targets ---------------------------------------------------------------------------------------------------------


def speed(row, value, task="inference", batch="variable", length=512, **more):
    package = "modernbert_edu" if row.startswith("ours") else "transformers"
    return dict(
        what="real_tokens_per_second", row=row, value=value, task=task, batch=batch, length=length, unit="tokens/s",
        model=row, package=package, spread=1.0, tokens_in_batch=100, sequences=2, device="a CPU", torch="2.13",
        dtype="float32", failed=None, size="tiny", device_slug="a-cpu", **more,
    )  # fmt: skip


def memory(row, value, tokens=100):
    return {**speed(row, value, "memory", "fixed", 2048), "what": "train_memory_bytes", "tokens_in_batch": tokens}


def test_targets_are_computed_from_the_records_alone():
    records = [speed("ours", 260.0), speed("modernbert", 100.0), memory("ours", 30.0), memory("modernbert", 50.0)]
    ratio, kept = bench_report.check_targets(records, "cpu")
    assert (ratio["value"], ratio["met"], ratio["needed"]) == (pytest.approx(2.6), True, "at least 2.5")
    assert (kept["value"], kept["met"], kept["needed"]) == (pytest.approx(0.6), False, "at most 0.5")
    assert not bench_report.check_targets([speed("ours", 249.0), speed("modernbert", 100.0)], "cpu")[0]["met"]
    assert bench_report.check_targets([speed("ours", 260.0), speed("modernbert", None)], "cpu") == []
    assert bench_report.check_targets([], "cpu") == []
    text = bench_report.target_table(records, "cpu")
    assert text.count("  met ") == 1 and text.count("  missed ") == 1


def test_targets_on_a_gpu_include_absolute_ones_and_memory_by_the_token():
    fixed = dict(task="training", batch="fixed")
    records = [speed("ours compiled", 400e3, **fixed, length=1024, mfu=0.3)]
    absolute, mfu = bench_report.check_targets(records, "cuda")
    assert absolute["met"] and absolute["needed"] == "at least 350,000"
    assert not mfu["met"] and mfu["value"] == 0.3
    records = [{**speed("ours", 10.0, **fixed), "what": "train_memory_bytes"},
               {**speed("deberta", 40.0, **fixed), "what": "train_memory_bytes", "tokens_in_batch": 50}]  # fmt: skip
    assert bench_report.check_targets(records, "cuda")[0]["value"] == pytest.approx(1 / 8)


@pytest.mark.parametrize(("value", "met"), [(0.86, True), (1.14, True), (0.84, False), (1.16, False)])
def test_linear_means_within_15_percent(value, met):
    record = dict(what="slope", kind="local attention", value=value, lengths="512 to 32,768")
    assert [row["met"] for row in bench_report.check_targets([record], "cpu")] == [met]


# ---- the picture, the command, bad input -----------------------------------------------------------------------------


def test_the_picture_shows_every_row_and_what_failed():
    records = [speed("ours", 260.0), speed("modernbert", 100.0), speed("bert", None) | dict(failed="out of memory: x")]
    records += [
        dict(what="attention_seconds", kind="local", length=n, value=n / 1e5, device="a CPU") for n in (64, 128)
    ]
    records += [dict(what="slope", kind="local attention", value=1.0, n=2)]
    figure = bench_plots.plot_bench(records)
    texts = [text.get_text() for ax in figure.axes for text in ax.texts]
    assert "260  2.60x" in texts and "100  1.00x" in texts and "out of memory: x" in texts
    legends = [text.get_text() for ax in figure.axes if ax.get_legend() for text in ax.get_legend().get_texts()]
    assert "local layer: length$^{1.00}$" in legends
    assert "a CPU | torch 2.13 | float32" in figure.texts[-1].get_text()
    assert len({tuple(look.values()) for look in bench_plots.LOOKS.values()}) == len(bench_plots.LOOKS)
    assert png_bytes(figure) == png_bytes(bench_plots.plot_bench(records))
    with pytest.raises(InputError, match="run `bench`"):
        bench_plots.plot_bench([dict(what="reduced", note="x")])


def test_the_command_from_end_to_end(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench, "matmul_peak", lambda *_: 1e11)
    monkeypatch.setattr(bench, "REPEATS", 3)
    cases = bench.all_cases
    monkeypatch.setattr(bench, "all_cases", lambda setup: [replace(case, sequences=2) for case in cases(setup)])
    attention = bench.attention_against_length
    memory = bench.memory_against_length
    monkeypatch.setattr(bench, "attention_against_length", lambda *a: attention(*a, lengths=(64, 128), repeats=3))
    monkeypatch.setattr(bench, "memory_against_length", lambda *a: memory(*a, lengths=(64, 128)))
    out, lines = tmp_path / "out", tmp_path / "all.jsonl"
    arguments = ["bench", "--size", "tiny", "--lengths", "64", "--only", "inference", "--no-compile", "--device", "cpu",
                 "--seed", "3", "--out", str(out), "--json", str(lines)]  # fmt: skip
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "inference, variable 64" in printed and "ours (sdpa)" in printed and "cost against length" in printed
    records = [json.loads(line) for line in lines.read_text().splitlines()]
    (kept,) = out.glob("measurements/*/bench-tiny.jsonl")
    assert kept.read_text() == lines.read_text()
    assert (out / "bench-tiny.png").read_bytes().startswith(b"\x89PNG")
    for record in records:
        assert {"what", "value", "unit", "device", "torch", "dtype", "date", "git_commit", "size"} <= set(record)
    speeds = [r for r in records if r["what"] == "real_tokens_per_second"]
    assert {r["batch"] for r in speeds} == {"fixed", "variable"} and all(r["value"] and r["seed"] == 3 for r in speeds)
    assert {"matmul_peak", "attention_seconds", "slope", "train_memory_bytes"} <= {r["what"] for r in records}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--size", "huge"], "base, large, tiny"),
        (["--backend", "fast"], "eager, sdpa, varlen, flash, flex"),
        (["--backend", "varlen", "--device", "cpu"], "NVIDIA GPU"),
        (["--lengths", "5"], "at least 32"),
        (["--lengths", "9000"], "8192"),
        (["--minutes", "0"], "above 0"),
        (["--minutes", "nan"], "above 0"),
        (["--only", "sleep"], "inference"),
        (["--device", "tpu"], "cpu"),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, words, capsys, in_tmp_cwd):
    assert main(["bench", "--size", "tiny", *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error and error.startswith("modernbert-edu: ") and error.count("\n") == 1
    assert not list(in_tmp_cwd.iterdir()), "nothing is written before the input is checked"
