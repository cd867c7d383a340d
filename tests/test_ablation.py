"""The ablation engine: what can be varied, a grid that resumes, and a verdict that is arithmetic."""

import json
import math
import multiprocessing
from dataclasses import dataclass, replace

import pytest
import torch

from modernbert_edu import config as config_module
from modernbert_edu.__main__ import main
from modernbert_edu.classroom.scale import AblationScale
from modernbert_edu.config import MODERNBERT_CHANGES, SWITCHES, EncoderConfig
from modernbert_edu.data import prepare
from modernbert_edu.errors import InputError, Paused
from modernbert_edu.measure import ablation
from modernbert_edu.measure.ablation_plots import keep_and_draw, plot_ablation

CPU = torch.device("cpu")
TINY = AblationScale(
    vocab_size=512,
    tokenizer_characters=30_000,
    sequence_length=32,
    held_out_sequences=8,
    batch_size=4,
    steps=6,
    rates=(1e-3, 4e-3),
    evaluations=2,
)
TEXT = "def add(a, b):\n    '''Return the sum of a and b.'''\n    return a + b  # as numbers are added\n\n"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    for i in range(20):
        (folder / f"{i}.py").write_text(TEXT.replace("add", f"add_{i}") * 30)
    return str(folder)


@pytest.fixture(scope="module")
def data(corpus):
    return prepare(TINY, corpus)


@pytest.fixture(scope="module")
def records(data):
    variants = ablation.make_variants([{"positions": "rope"}], "bert", TINY, data.tokenizer)
    return ablation.run_ablation(variants, data, TINY, CPU)


# ---- what can be varied ----------------------------------------------------------------------------------------------


def test_every_switch_is_listed_with_both_ends(capsys):
    assert main(["ablate", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(SWITCHES)
    assert "BERT gelu" in next(line for line in lines if line.startswith("mlp"))


def test_a_new_switch_appears_by_itself(monkeypatch):
    @dataclass(frozen=True)
    class Wider(EncoderConfig):
        soft_cap: float = config_module.switch(0.0, (0.0, 30.0), "14_soft_cap")

    metadata = {f.name: f.metadata for f in Wider.__dataclass_fields__.values() if f.metadata.get("switch")}
    monkeypatch.setattr(ablation, "SWITCHES", metadata)
    monkeypatch.setattr(ablation, "EncoderConfig", Wider)
    assert ablation.list_switches()[-1] | {} == dict(
        switch="soft_cap", values=(0.0, 30.0), bert=0.0, modernbert=0.0, lesson="14_soft_cap"
    )
    assert ablation.parse_change("soft_cap=30", "bert") == {"soft_cap": 30.0}


@pytest.mark.parametrize(
    ("text", "end", "change"),
    [
        ("mlp", "bert", {"mlp": "geglu"}),
        ("mlp", "modernbert", {"mlp": "gelu"}),
        ("bias=false", "bert", {"bias": False}),
        ("local_window=32", "modernbert", {"local_window": 32}),
        ("positions=rope, bias = False", "bert", {"positions": "rope", "bias": False}),
    ],
)
def test_a_change_is_read(text, end, change):
    assert ablation.parse_change(text, end) == change


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("posiitons", "the switches are: positions, norm_placement"),
        ("mlp=swiglu", "mlp cannot be 'swiglu'; it can be: gelu, geglu"),
        ("local_window=wide", "it can be: 64, 128, 256"),
        (",", "names nothing"),
    ],
)
def test_an_unknown_switch_or_value_is_refused_with_what_there_is(text, words):
    with pytest.raises(InputError, match=".*") as refusal:
        ablation.parse_change(text, "bert")
    assert words in str(refusal.value) and "\n" not in str(refusal.value)


def test_the_ladder_goes_from_bert_to_modernbert():
    rungs = ablation.ladder()
    assert rungs[0] == ("BERT", {}) and rungs[-1] == ("ModernBERT", MODERNBERT_CHANGES)
    for (_, before), (_, after) in zip(rungs, rungs[1:], strict=False):
        assert before.items() < after.items()  # each rung adds, and takes nothing back
    assert "+ rope" in [name for name, _ in rungs]
    (_, whole), (name, segments), (_, before) = rungs[-1], rungs[-2], rungs[-3]
    assert name == "no segments" and segments.items() - before.items() == {("type_vocab_size", 0)}
    assert "unpad" in whole.keys() - segments.keys()


def test_variants_have_equally_many_parameters_unless_asked_otherwise(data):
    change = [{"mlp": "geglu"}, {"positions": "rope"}]
    matched = ablation.make_variants(change, "bert", TINY, data.tokenizer)
    counts = [v.config.num_parameters() for v in matched]
    assert max(counts) / min(counts) < 1.005
    raw = ablation.make_variants(change, "bert", TINY, data.tokenizer, matched=False)
    assert raw[1].config.intermediate_size == raw[0].config.intermediate_size
    assert raw[1].config.num_parameters() > 1.05 * raw[0].config.num_parameters()
    assert ablation.make_variants(None, "bert", TINY, data.tokenizer)[-1].config.attention_pattern == "GLL"


def test_a_change_that_changes_nothing_is_refused(data):
    with pytest.raises(InputError, match="what bert has already"):
        ablation.make_variants([{"mlp": "gelu"}], "bert", TINY, data.tokenizer)


# ---- the grid --------------------------------------------------------------------------------------------------------


def test_every_variant_tries_all_rates_and_keeps_the_best(records):
    last = {(r["model"], r["purpose"], r["learning_rate"], r["seed"]): r["value"]
            for r in records if r["what"] == "held_out_loss"}  # fmt: skip
    for model in ("BERT", "BERT + positions=rope"):
        first = {rate: value for (m, _, rate, seed), value in last.items() if m == model and seed == TINY.seeds[0]}
        assert set(first) == set(TINY.rates)
        final = {(rate, seed) for m, purpose, rate, seed in last if m == model and purpose == "final"}
        assert final == {(min(first, key=first.get), seed) for seed in TINY.seeds}
    assert {r["what"] for r in records} >= {"masked_accuracy", "train_tokens_per_second", "train_memory_bytes"}


def test_both_sides_see_the_same_tokens_in_the_same_order(records):
    seen = {}
    for r in records:
        if r["what"] == "held_out_loss" and r["purpose"] == "final":
            seen.setdefault((r["seed"], r["step"]), set()).add(r["tokens"])
    assert seen and all(len(tokens) == 1 for tokens in seen.values())


def test_a_stopped_grid_goes_on_run_by_run(data, tmp_path, monkeypatch):
    variants = ablation.make_variants([{"positions": "rope"}], "bert", TINY, data.tokenizer)
    trained, real = [], ablation._train

    def train_three(run, *args):
        if len(trained) == 3:
            raise KeyboardInterrupt
        trained.append(run)
        return real(run, *args)

    monkeypatch.setattr(ablation, "_train", train_three)
    with pytest.raises(KeyboardInterrupt):
        ablation.run_ablation(variants, data, TINY, CPU, out=tmp_path)
    # A crash in the middle of a line, and records of another version of this package.
    with open(tmp_path / ablation.FILE, "a") as file:
        file.write(json.dumps({"what": "held_out_loss", "format": 0, "run": "old"}) + "\n" + '{"what": "held_o')
    monkeypatch.setattr(ablation, "_train", lambda run, *args: (trained.append(run), real(run, *args))[1])
    with pytest.warns(UserWarning, match="cut short"):
        resumed = ablation.run_ablation(variants, data, TINY, CPU, out=tmp_path)
    assert len(trained) == len(set(trained_keys(trained))) == 2 * (len(TINY.rates) + len(TINY.seeds) - 1)
    whole = ablation.run_ablation(variants, data, TINY, CPU)
    timeless = [(r["what"], r["model"], r.get("step"), r["value"]) for r in resumed if "second" not in r["what"]]
    assert timeless == [(r["what"], r["model"], r.get("step"), r["value"]) for r in whole if "second" not in r["what"]]
    assert '"run": "old"' in (tmp_path / ablation.FILE).read_text()  # kept, not used


def test_runs_of_another_torch_and_half_runs_are_trained_again(data, tmp_path, monkeypatch):
    sizes = replace(TINY, rates=(1e-3,), seeds=(0,))
    bert = ablation.make_variants([], "bert", sizes, data.tokenizer)
    trained, real = [], ablation._train
    monkeypatch.setattr(ablation, "_train", lambda run, *args: (trained.append(run), real(run, *args))[1])
    here = torch.__version__
    first = ablation.run_ablation(bert, data, sizes, CPU, out=tmp_path)
    assert ablation.run_ablation(bert, data, sizes, CPU, out=tmp_path)[1:] == first[1:] and len(trained) == 1
    monkeypatch.setattr(torch, "__version__", "9.9.0")
    other = ablation.run_ablation(bert, data, sizes, CPU, out=tmp_path)
    assert len(trained) == 2 and {r["torch"] for r in other} == {"9.9.0"}
    monkeypatch.setattr(torch, "__version__", here)
    assert ablation.run_ablation(bert, data, sizes, CPU, out=tmp_path)[1:] == first[1:] and len(trained) == 2
    path = tmp_path / ablation.FILE
    rows = path.read_text().splitlines(keepends=True)
    path.write_text("".join(rows[:-1]))  # the end of the other torch's is lost
    monkeypatch.setattr(torch, "__version__", "9.9.0")
    again = ablation.run_ablation(bert, data, sizes, CPU, out=tmp_path)
    assert len(trained) == 3 and len(again) == len(other)
    assert len(path.read_text().splitlines()) == len(rows)  # the half went, the first torch's stayed
    ablation.run_ablation(bert, data, sizes, CPU, out=tmp_path, anew=True)
    assert len(trained) == 4 and len(path.read_text().splitlines()) == len(rows)


@pytest.mark.parametrize("anew", [False, True])
def test_a_grid_without_time_pauses_between_two_runs_and_goes_on(anew, data, tmp_path, monkeypatch):
    variants = ablation.make_variants([{"positions": "rope"}], "bert", TINY, data.tokenizer)
    trained, real = [], ablation._train
    monkeypatch.setattr(ablation, "_train", lambda run, *args: (trained.append(run), real(run, *args))[1])
    before = ablation.run_ablation(variants[:1], data, TINY, CPU, out=tmp_path) if anew else []
    trained.clear()
    whole = len(variants) * (len(TINY.rates) + len(TINY.seeds) - 1)
    for done in range(1, whole):  # a deadline that is past still lets one run through
        with pytest.raises(Paused, match="finished"):
            ablation.run_ablation(variants, data, TINY, CPU, out=tmp_path, anew=anew, deadline=0.0)
        assert len(trained) == done
    records = ablation.run_ablation(variants, data, TINY, CPU, out=tmp_path, anew=anew, deadline=0.0)
    assert len(trained) == len(set(trained_keys(trained))) == whole
    assert {r["model"] for r in records} == {"unigram", "BERT", "BERT + positions=rope"}
    assert not (tmp_path / ablation.ANEW).exists()
    losses = [(r["step"], r["value"]) for r in before if r["what"] == "held_out_loss"]
    assert losses == [(r["step"], r["value"]) for r in records if r["what"] == "held_out_loss"][: len(losses)]
    ablation.run_ablation(variants[:1], data, TINY, CPU, out=tmp_path, anew=True)  # whole: the next begins again
    assert len(trained) == whole + len(TINY.rates) + len(TINY.seeds) - 1


def test_steps_are_timed_in_turns(data):
    variants = ablation.make_variants([{"mlp": "geglu"}], "bert", TINY, data.tokenizer)
    records = ablation.time_steps(variants, data, TINY, CPU)
    rounds = [(r["model"], r["round"]) for r in records]
    assert rounds == [(v.name, i) for v in variants for i in range(ablation.ROUNDS)]
    tokens = sum(map(len, data.train[: TINY.batch_size]))
    assert {r["tokens"] for r in records} == {tokens} and all(r["value"] > 0 for r in records)


def trained_keys(runs):
    return [(r.variant.name, r.learning_rate, r.seed) for r in runs]


def test_other_sizes_are_other_runs(data, tmp_path):
    variants = ablation.make_variants([{"positions": "rope"}], "bert", TINY, data.tokenizer)
    run = ablation.Run(variants[0], 1e-3, 0, 6)
    keys = {run.key(TINY, "a"), run.key(TINY, "b"), run.key(replace(TINY, batch_size=2), "a"),
            replace(run, seed=1).key(TINY, "a"), replace(run, variant=variants[1]).key(TINY, "a")}  # fmt: skip
    assert len(keys) == 5
    assert run.key(TINY, "a") == run.key(replace(TINY, seeds=(0, 1, 2)), "a")  # more seeds: the old runs still count


def test_a_rate_at_which_the_loss_is_not_a_number_is_not_chosen(data):
    sizes = replace(TINY, rates=(1e18, 1e-3), seeds=(0,))
    variants = ablation.make_variants([{"positions": "rope"}], "bert", sizes, data.tokenizer)
    records = ablation.run_ablation(variants, data, sizes, CPU)
    broken = [r for r in records if r.get("learning_rate") == 1e18]
    assert broken and not any(r["purpose"] == "final" for r in broken)
    assert all(math.isfinite(r["value"]) for r in records if r.get("purpose") == "final")


def _hold(folder, ready, done):
    from filelock import FileLock

    with FileLock(folder / "ablation.lock"):
        ready.set()
        done.wait(30)


def test_a_second_run_on_the_same_folder_is_refused(data, tmp_path):
    spawn = multiprocessing.get_context("spawn")
    ready, done = spawn.Event(), spawn.Event()
    other = spawn.Process(target=_hold, args=(tmp_path, ready, done))
    other.start()
    try:
        assert ready.wait(30)
        variants = ablation.make_variants([{"positions": "rope"}], "bert", TINY, data.tokenizer)
        with pytest.raises(InputError, match="another ablation is writing"):
            ablation.run_ablation(variants, data, TINY, CPU, out=tmp_path)
    finally:
        done.set()
        other.join()


def test_a_grid_of_hours_is_refused_with_an_estimate(data, capsys):
    sizes = replace(TINY, steps=10_000_000)
    variants = ablation.make_variants([{"positions": "rope"}], "bert", sizes, data.tokenizer)
    with pytest.raises(InputError, match="hours here; add --yes"):
        ablation.run_ablation(variants, data, sizes, CPU, minutes=60)
    assert "estimate: 60,000,000 training steps" in capsys.readouterr().out


# ---- the verdict -----------------------------------------------------------------------------------------------------


def made_up(values, what="held_out_loss"):
    rows = [dict(what="unigram_entropy", value=6.0, unit="nats", model="unigram", seed=None)]
    for model, losses in values.items():
        rows += [dict(what=what, value=v, unit="nats", model=model, seed=s, purpose="final", tokens=9, seconds=1.0,
                      step=9, steps=9) for s, v in enumerate(losses)]  # fmt: skip
    return rows


def test_differences_are_paired_by_seed():
    # The seeds scatter by a nat; the difference within a seed is always 0.1.
    found = ablation.paired_differences(made_up({"A": [3.0, 4.0, 5.0], "B": [2.9, 3.9, 4.9]}), "A")
    assert [d.model for d in found] == ["B"]
    assert found[0].mean == pytest.approx(-0.1) and found[0].low == pytest.approx(-0.1)
    assert found[0].by_seed == pytest.approx({0: -0.1, 1: -0.1, 2: -0.1})
    with pytest.raises(InputError, match="no final run of 'C'"):
        ablation.paired_differences(made_up({"A": [3.0]}), "C")


def test_the_bootstrap_interval_agrees_with_scipy():
    stats = pytest.importorskip("scipy.stats")
    values = torch.randn(12, generator=torch.Generator().manual_seed(1)).double().tolist()
    low, high = ablation.bootstrap_interval(values)
    theirs = stats.bootstrap((values,), lambda x, axis: x.mean(axis=axis), method="percentile", rng=0)
    assert low == pytest.approx(theirs.confidence_interval.low, abs=0.03)
    assert high == pytest.approx(theirs.confidence_interval.high, abs=0.03)
    assert ablation.bootstrap_interval([0.5, 0.5]) == (0.5, 0.5)


def test_the_plateau_is_named():
    records = made_up({"A": [5.95, 5.8], "B": [4.0, 4.1]})
    assert ablation.past_plateau(records) == {"A": False, "B": True}
    figure = plot_ablation(records, "A")
    assert "plateau (not 0.1 nats below the unigram entropy): A" in figure._suptitle.get_text()


def test_table_and_figure_hold_every_variant(records, tmp_path):
    text = ablation.table(records, "BERT")
    assert "BERT + positions=rope" in text and len(text.splitlines()) == 3
    seeds = {r["seed"] for r in records if r.get("purpose") == "final"}
    more = [r | dict(seed=r["seed"] + 10 * i) for i in range(3) for r in records if r["seed"] is not None]
    entropy = [r for r in records if r["what"] == "unigram_entropy"]
    assert len(seeds) < 3 and "[by seed]" in text  # the interval of two is their range
    assert "(95 %)" in ablation.table([*entropy, *more], "BERT")
    kept, picture = keep_and_draw(records, "BERT", "rope", "quick", tmp_path)
    assert kept.name == "ablation-rope-quick.jsonl" and picture.stat().st_size > 10_000
    axes = plot_ablation(records, "BERT").axes
    assert [ax.get_xlabel().split(" (")[0] for ax in axes[:2]] == ["training tokens seen", "training time"]
    points = [line for line in axes[2].lines if line.get_marker() == "o"]
    assert [len(line.get_xdata()) for line in points] == [len(TINY.seeds)]


# ---- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "say what to vary"),
        (["--ladder", "--switch", "mlp"], "say what to vary"),
        (["--switch", "nothing"], "there is no switch 'nothing'"),
        (["--switch", "mlp", "--seeds", "0"], "--seeds must be at least 1"),
        (["--ladder", "--start", "modernbert"], "leave out --start"),
        (["--ladder", "--minutes", "0"], "--minutes must be above 0, not 0"),
        (["--switch", "mlp", "--start", "roberta"], "invalid choice"),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, words, capsys, in_tmp_cwd):
    assert main(["ablate", "--scale", "quick", *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_the_command_leaves_records_and_a_figure(corpus, in_tmp_cwd, capsys):
    arguments = ["ablate", "--scale", "quick", "--corpus", corpus, "--switch", "bias", "--steps", "3", "--seeds", "1",
                 "--start", "modernbert", "--json", "out.jsonl", "--device", "cpu"]  # fmt: skip
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "ModernBERT with bias=True" in said and "estimate:" in said
    assert (in_tmp_cwd / "build/ablation/ablation-bias.png").exists()
    rows = [json.loads(line) for line in (in_tmp_cwd / "out.jsonl").read_text().splitlines()]
    assert {r["model"] for r in rows} == {"unigram", "ModernBERT", "ModernBERT with bias=True"}
    assert all(r["fingerprint"] and r["device"] for r in rows)
    assert not (in_tmp_cwd / "figures").exists()
