"""Runs that survive: killed at any moment, the same command goes on and ends with the very same weights.

The kills are real: SIGKILL to a process that runs `main(["pretrain", ...])`. A fork server holds the imports, so each
start costs a fraction of a second.
"""

import errno
import hashlib
import multiprocessing
import os
import random
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import torch
from tqdm.auto import tqdm

from modernbert_edu import config, load
from modernbert_edu.__main__ import main
from modernbert_edu.data.tokenizer import save_tokenizer, train_bpe
from modernbert_edu.runtime import append_jsonl, read_jsonl
from modernbert_edu.training import checkpoints, runs

pytestmark = pytest.mark.skipif(os.name == "nt", reason="SIGKILL and fork servers are POSIX")

TOKENS, EVERY = 36 * 128, 3
SMALL = ["--scale", "quick", "--device", "cpu", "--workers", "0", "--checkpoint-every", str(EVERY),
         "--set", "length=32", "--set", "tokens_per_step=128", "--set", "microbatch_tokens=64",
         "--set", f"tokens={TOKENS}"]  # fmt: skip
# Models of two small layers, so that a run takes two seconds.
TINY = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, attention_output_dropout=0.1)
PRESETS = {
    "modernbert": {**config.PRESETS["modernbert-tiny"], **TINY, "intermediate_size": 48, "attention_pattern": "GL"},
    "bert-2018": {**config.PRESETS["bert-tiny"], **TINY, "intermediate_size": 64},
}
ROOT = Path(__file__).resolve().parents[1]


def write_corpus(folder, seed=0):
    """Made-up prose: a few hundred words in random order, so that there is something to learn."""
    rng = random.Random(seed)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 8))) for _ in range(400)]
    folder.mkdir()
    for n in range(120):
        (folder / f"{n:03}.txt").write_text(" ".join(rng.choices(words, k=rng.randint(40, 160))))
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("survival") / "corpus")


def command(corpus, out, recipe="modernbert", *more):
    return ["pretrain", "--recipe", recipe, "--model", f"{recipe}-test", "--corpus", str(corpus), "--out", str(out),
            *SMALL, *more]  # fmt: skip


def last_step(out):
    return int(checkpoints.checkpoint_folders(out)[-1].name.removeprefix("step-"))


def one_thread_and_small_models(patch):
    """Bits are the same only with the same number of threads."""
    torch.set_num_threads(1)
    for recipe, values in PRESETS.items():
        patch.setitem(config.PRESETS, f"{recipe}-test", values)


@pytest.fixture(scope="module", autouse=True)
def small():
    patch, threads = pytest.MonkeyPatch(), torch.get_num_threads()
    one_thread_and_small_models(patch)
    yield
    torch.set_num_threads(threads)
    patch.undo()


# ------------------------------------------------------------------------------------------------ processes


def child(argv, log, largest_file=None):
    """What a process does: the command, on one thread, with all that it prints in a file."""
    os.setsid()  # Ctrl-C goes to all processes of a group: here to this one and its workers
    tqdm.set_lock(threading.RLock())  # its own is a semaphore, which a kill would leave behind
    multiprocessing.set_start_method(None, force=True)  # workers start as they would without a fork server
    with open(log, "ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout, sys.stderr = (os.fdopen(os.dup(n), "w", buffering=1) for n in (1, 2))
    one_thread_and_small_models(pytest.MonkeyPatch())
    if largest_file is not None:
        limit_files_after_the_first_checkpoint(largest_file)
    sys.exit(main(argv))


def limit_files_after_the_first_checkpoint(size):
    import resource

    real = checkpoints.save_checkpoint

    def save_and_limit(*arguments):
        saved = real(*arguments)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        return saved

    runs.checkpoints.save_checkpoint = save_and_limit


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """start(argv) -> a process that runs the command; `.log` is where it prints."""
    patch = pytest.MonkeyPatch()
    patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests")]))
    patch.setenv("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("forkserver")
    # The last is what torch imports, for seconds, when the first layer is computed.
    context.set_forkserver_preload(["modernbert_edu.training.launch", "datasets", "test_survival", "torch._dynamo"])
    logs, count = tmp_path_factory.mktemp("logs"), iter(range(10**6))
    started = []

    def start(argv, **options):
        log = logs / f"{next(count)}.txt"
        log.touch()
        process = context.Process(target=child, args=(argv, log), kwargs=options)
        process.start()
        process.log = log
        started.append(process)
        return process

    assert ended(start(["pretrain", "--explain"]))[0] == 0  # the server is warm
    yield start
    for process in started:
        if process.exitcode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.join()
    patch.undo()


def ended(process, seconds=100):
    """Wait for its end: (exit status, what it printed)."""
    process.join(seconds)
    assert process.exitcode is not None, f"still running after {seconds} s: {process.log.read_text()}"
    return process.exitcode, process.log.read_text()


def wait_for(process, happened, seconds=60):
    """Wait until something has happened, or the process has ended; say which it was."""
    limit = time.monotonic() + seconds
    while not happened():
        if process.exitcode is not None:
            return False
        assert time.monotonic() < limit, process.log.read_text()
        time.sleep(0.001)
    return True


# ------------------------------------------------------------------------------------------------ what a run left


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def outcome(out):
    """All that must be the same: weights, optimizer, the last state's place, and every loss in the log, once."""
    newest = checkpoints.newest_checkpoint(out, say=pytest.fail)
    records = [r for r in read_jsonl(out / "log.jsonl") if r["what"] != "waited_share"]
    losses = [(r["what"], r["step"], r["tokens"], r["value"]) for r in records]
    place = {name: newest.state[name] for name in ("step", "places", "tokens", "consumed", "place")}
    return {"model": digest(out / "model.safetensors"), "optimizer": digest(newest.path / "optimizer.safetensors"),
            "place": place, "losses": losses}  # fmt: skip


@pytest.fixture(scope="module")
def whole(start, corpus, tmp_path_factory):
    """whole(recipe) -> (folder of a run that was never killed, its seconds)."""
    made = {}

    def whole(recipe="modernbert"):
        if recipe not in made:
            out = tmp_path_factory.mktemp("whole") / recipe
            begin = time.monotonic()
            status, said = ended(start(command(corpus, out, recipe)))
            assert status == 0, said
            made[recipe] = out, time.monotonic() - begin
        return made[recipe]

    return whole


@pytest.fixture
def half(whole, tmp_path):
    """A run that was killed some steps after its third last checkpoint was written."""
    out = tmp_path / "half"
    shutil.copytree(whole()[0], out)
    for name in ("model.safetensors", "config.json"):
        (out / name).unlink()
    shutil.rmtree(checkpoints.checkpoint_folders(out)[-1])
    return out


# ------------------------------------------------------------------------------------------------ killed


@pytest.mark.parametrize(("recipe", "kills"), [("modernbert", 14), ("bert-2018", 8)])
def test_killed_at_random_moments_a_run_ends_with_the_same_weights(start, whole, corpus, tmp_path, recipe, kills):
    reference, seconds = whole(recipe)
    expected, rng = outcome(reference), random.Random(5)
    trained = [loss[1] for loss in expected["losses"] if loss[0] == "train_loss"]
    assert trained == list(range(1, last_step(reference) + 1)) and len(trained) >= TOKENS // 128
    killed = went_on = half_written = 0
    victims = 0
    while killed < kills:
        out = tmp_path / f"victim-{victims}"
        victims += 1
        argv = command(corpus, out, recipe)
        while True:
            process = start(argv)
            moment = time.monotonic() + rng.uniform(0, 0.5 * seconds)
            in_writing = killed % 3 == 2  # every third kill hits a checkpoint that is being written
            wait_for(process, lambda moment=moment: time.monotonic() > moment)
            if in_writing:
                wait_for(process, lambda out=out: any((out / "checkpoints").glob(".step-*.tmp")))
                time.sleep(rng.uniform(0, 0.02))
            process.kill()
            status, said = ended(process)
            assert status in (0, -signal.SIGKILL), said
            assert "Traceback" not in said and "is broken" not in said
            went_on += "going on after step" in said
            if status == 0:
                break
            killed += 1
            half_written += any((out / "checkpoints").glob(".step-*.tmp"))
        assert outcome(out) == expected, f"after {killed} kills"
        assert not any((out / "checkpoints").glob(".step-*.tmp"))
    assert killed >= kills and went_on >= kills // 3 and half_written >= kills // 6
    print(f"{recipe}: {killed} kills, {half_written} in a checkpoint's writing, {went_on} resumes, {victims} runs")


class Cut(BaseException):
    """Passes all handlers for errors, so nothing is cleaned up: the folder stays as a kill would leave it."""


def test_killed_while_the_first_checkpoint_is_written_a_run_begins_anew(corpus, whole, tmp_path, monkeypatch, capsys):
    def cut(*args, **kwargs):
        raise Cut

    for place in ("save_file", "os.rename"):
        with monkeypatch.context() as patch:
            patch.setattr(f"modernbert_edu.training.checkpoints.{place}", cut)
            with pytest.raises(Cut):
                main(command(corpus, tmp_path / "run"))
        assert read_jsonl(tmp_path / "run" / "log.jsonl")  # of steps that no checkpoint holds
    assert main(command(corpus, tmp_path / "run")) == 0
    assert "going on" not in capsys.readouterr().out
    assert outcome(tmp_path / "run") == outcome(whole()[0])


def test_killed_while_the_checkpoint_is_written_at_every_place(half, corpus, whole, monkeypatch, capsys):
    places = ["save_file", "file_hash", "_flush", "remove", "os.rename", "append_jsonl", "keep_only"]
    cuts = 0
    for name in places:
        module = runs if name == "append_jsonl" else checkpoints
        for nth in (1, 2):
            owner, _, attribute = name.rpartition(".")
            holder = getattr(module, owner) if owner else module
            real, count = getattr(holder, attribute), iter(range(1, 10**6))

            def cut(*args, real=real, count=count, nth=nth, **kwargs):
                if next(count) == nth:
                    raise Cut
                return real(*args, **kwargs)

            with monkeypatch.context() as patch:
                patch.setattr(holder, attribute, cut)
                try:
                    main(command(corpus, half))
                except Cut:
                    cuts += 1
    assert cuts >= len(places)
    assert main(command(corpus, half)) == 0
    assert "is broken" not in capsys.readouterr().out
    assert outcome(half) == outcome(whole()[0])


def truncate(path):
    path.write_bytes(path.read_bytes()[:-9])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


DAMAGES = {
    "truncated": ("model.safetensors", truncate, "model.safetensors is not what was written"),
    "bit flipped": ("optimizer.safetensors", flip, "optimizer.safetensors is not what was written"),
    "file missing": ("state.json", Path.unlink, "state.json is missing"),
    "no manifest": ("manifest.json", Path.unlink, "it was not written to its end"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_broken_checkpoint_is_named_and_the_one_before_it_used(whole, corpus, tmp_path, capsys, damage):
    reference = whole()[0]
    out = tmp_path / "damaged"
    shutil.copytree(reference, out)
    before, newest = checkpoints.checkpoint_folders(out)[-2:]
    name, harm, words = DAMAGES[damage]
    harm(newest / name)
    assert main(command(corpus, out)) == 0
    said = capsys.readouterr().out
    (line,) = [line for line in said.splitlines() if "is broken" in line]
    assert newest.name in line and words in line and "taking the one before it" in line
    assert f"going on after step {int(before.name[5:])}" in said
    assert outcome(out) == outcome(reference)


def test_with_all_checkpoints_broken_the_run_begins_anew_and_says_so(whole, corpus, tmp_path, capsys):
    reference = whole()[0]
    out = tmp_path / "damaged"
    shutil.copytree(reference, out)
    folders = checkpoints.checkpoint_folders(out)
    for folder in folders:
        truncate(folder / "model.safetensors")
    assert main(command(corpus, out)) == 0
    said = capsys.readouterr().out
    assert said.count("is broken") == len(folders) and "begin" in said
    assert outcome(out) == outcome(reference)


# ------------------------------------------------------------------------------------------------ stopped


def test_ctrl_c_and_sigterm_save_and_the_same_command_goes_on(start, whole, corpus, tmp_path):
    reference, seconds = whole()
    rng, out = random.Random(2), tmp_path / "stopped"
    begun, stops = out / "checkpoints" / f"step-{EVERY:08}", 0
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
        process = start(command(corpus, out))
        at_work = "going on after step" if stops else "parameters"
        assert wait_for(process, lambda p=process, w=at_work: w in p.log.read_text())
        assert stops or wait_for(process, begun.exists)
        time.sleep(rng.uniform(0.05, 0.1) * seconds)
        os.kill(process.pid, number)
        status, said = ended(process)
        assert status == 130, said
        assert said.splitlines()[-1] == "modernbert-edu: stopped" and "Traceback" not in said
        stops += 1
        newest = checkpoints.newest_checkpoint(out, say=pytest.fail)
        trained = [r["step"] for r in read_jsonl(out / "log.jsonl") if r["what"] == "train_loss"]
        assert newest.step == trained[-1] < last_step(reference)  # nothing that was computed is lost
    status, said = ended(start(command(corpus, out)))
    assert status == 0 and f"going on after step {newest.step}" in said
    assert outcome(out) == outcome(reference)


def test_workers_that_outlive_a_killed_run_do_not_stand_in_its_way(start, whole, corpus, tmp_path):
    """They hold the folder's lock until they notice, seconds later; Ctrl-C reaches them as well."""
    out = tmp_path / "run"
    argv = command(corpus, out, "modernbert", "--workers", "1")
    first = start(argv)
    assert wait_for(first, lambda: any((out / "checkpoints").glob("step-*")))
    workers = psutil.Process(first.pid).children()
    assert workers
    first.kill()
    while psutil.pid_exists(first.pid):  # not `join`, which waits for its workers too
        time.sleep(0.001)
    second = start(argv)
    assert wait_for(second, lambda: "going on after step" in second.log.read_text()), second.log.read_text()
    os.killpg(second.pid, signal.SIGINT)
    status, said = ended(second)
    assert (status, said.splitlines()[-1]) == (130, "modernbert-edu: stopped"), said
    status, said = ended(start(argv))
    assert status == 0, said
    assert outcome(out) == outcome(whole()[0])
    assert not psutil.wait_procs(workers, timeout=30)[1]  # gone by themselves


def test_resume_needs_the_folder_only(half, whole, capsys):
    assert main(["pretrain", "--resume", str(half), "--device", "cpu"]) == 0
    assert "going on after step" in capsys.readouterr().out
    assert outcome(half) == outcome(whole()[0])


# ------------------------------------------------------------------------------------------------ disk full


def one_line(capsys, status, expected=2):
    """The only line on stderr, after checking that nothing else is there."""
    lines = capsys.readouterr().err.strip().splitlines()
    assert status == expected and len(lines) == 1, lines
    assert lines[0].startswith("modernbert-edu: ") and "Traceback" not in lines[0]
    return lines[0]


def full_disk(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("writer", ["checkpoint", "log", "model"])
def test_a_full_disk_stops_the_run_and_names_the_last_good_state(half, whole, corpus, monkeypatch, capsys, writer):
    def full_log(path, records):
        with monkeypatch.context() as patch:
            patch.setattr("builtins.open", full_disk)
            append_jsonl(path, records)

    good = checkpoints.checkpoint_folders(half)[-1]
    with monkeypatch.context() as patch:
        if writer == "checkpoint":
            patch.setattr(checkpoints, "save_file", full_disk)
        elif writer == "log":
            patch.setattr(runs, "append_jsonl", full_log)
        else:
            patch.setattr("safetensors.torch.save_file", full_disk)
            good = checkpoints.checkpoint_folders(whole()[0])[-1].relative_to(whole()[0])
            good = half / good
        line = one_line(capsys, main(command(corpus, half)))
    assert "No space left on device" in line and str(good) in line
    assert checkpoints.newest_checkpoint(half, say=pytest.fail).path == good
    assert not list((half / "checkpoints").glob(".step*"))
    assert main(command(corpus, half)) == 0
    assert outcome(half) == outcome(whole()[0])


def test_a_write_that_really_fails(start, whole, corpus, tmp_path):
    """The system refuses files above 100 kB from the second checkpoint on, in the midst of writing one."""
    pytest.importorskip("resource")
    out = tmp_path / "full"
    status, said = ended(start(command(corpus, out), largest_file=100_000))
    assert status == 2, said
    line = said.splitlines()[-1]
    assert line.startswith("modernbert-edu: cannot write the checkpoint of step 6") and "Traceback" not in said
    assert f"The last good checkpoint is {out / 'checkpoints' / 'step-00000003'}" in line
    status, said = ended(start(command(corpus, out)))
    assert status == 0 and "going on after step 3" in said
    assert outcome(out) == outcome(whole()[0])


# ------------------------------------------------------------------------------------------------ not a number


def test_a_loss_that_is_no_number_stops_the_run_before_it_harms_the_weights(half, whole, corpus, monkeypatch, capsys):
    good = checkpoints.newest_checkpoint(half, say=pytest.fail)
    real = runs.Run.losses

    def broken(self, microbatch):
        mlm, following = real(self, microbatch)
        return (mlm * float("nan") if self.progress.step == good.step + 1 else mlm), following

    with monkeypatch.context() as patch:
        patch.setattr(runs.Run, "losses", broken)
        line = one_line(capsys, main(command(corpus, half)))
    assert f"loss of modernbert-test by modernbert is nan at step {good.step + 2}" in line
    assert "lower the learning rate" in line and f"The last good checkpoint is {good.path}" in line
    assert checkpoints.newest_checkpoint(half, say=pytest.fail).path == good.path
    assert main(command(corpus, half)) == 0
    assert outcome(half) == outcome(whole()[0])


def test_weights_that_are_no_numbers_are_not_kept(half, corpus, monkeypatch, capsys):
    """A weight can overflow where no loss sees it: such a state must not become the newest checkpoint."""
    good = checkpoints.newest_checkpoint(half, say=pytest.fail)
    real = runs.Run.step

    def poisoned(self, stream, size):
        result = real(self, stream, size)
        with torch.no_grad():  # the id of no token of the text
            self.masked_lm.encoder.embeddings.tok_embeddings.weight[self.data.tokenizer.unk_id] = float("inf")
        return result

    with monkeypatch.context() as patch:
        patch.setattr(runs.Run, "step", poisoned)
        line = one_line(capsys, main(command(corpus, half)))
    assert f"The last good checkpoint is {good.path}" in line
    assert checkpoints.newest_checkpoint(half, say=pytest.fail).path == good.path


def test_a_learning_rate_that_is_far_too_high_ends_in_one_line_or_in_numbers(corpus, tmp_path, capsys):
    out = tmp_path / "hot"
    settings = ["--set", "learning_rate=1", "--set", "optimizer=adamw", "--set", "clip_norm=none",
                "--set", "warmup_tokens=0"]  # fmt: skip
    status = main(command(corpus, out, "modernbert", *settings))
    if status:
        assert "lower the learning rate" in one_line(capsys, status)
    else:
        assert all(tensor.isfinite().all() for tensor in load(out)[0].state_dict().values())


# ------------------------------------------------------------------------------------------------ another run


CHANGES = {
    "recipe": (["--set", "learning_rate=1e-3"], "recipe.learning_rate was 0.002 and is now 0.001"),
    "length of the run": (["--set", f"tokens={2 * TOKENS}"], f"recipe.tokens was {TOKENS} and is now {2 * TOKENS}"),
    "config": (["--model", "modernbert-tiny"], "model.attention_pattern was 'GL' and is now 'GLL'"),
    "seed": (["--seed", "1"], "seed was 0 and is now 1"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_run_in_the_folder_is_refused_naming_the_difference(half, corpus, capsys, change):
    more, words = CHANGES[change]
    newest = checkpoints.checkpoint_folders(half)[-1]
    line = one_line(capsys, main(command(corpus, half, "modernbert", *more)))
    assert "holds another run" in line and words in line and "--anyway" in line
    assert checkpoints.checkpoint_folders(half)[-1] == newest and not (half / "model.safetensors").exists()


def test_another_text_or_tokenizer_is_refused(half, corpus, tmp_path, capsys):
    other = write_corpus(tmp_path / "other", seed=9)
    assert "corpus was" in one_line(capsys, main(command(other, half)))
    (half / "tokenizer.json").replace(tmp_path / "tokenizer.json")
    save_tokenizer(train_bpe([path.read_text() for path in sorted(other.iterdir())], vocab_size=1024), half)
    assert "tokenizer was" in one_line(capsys, main(command(corpus, half)))


def test_told_so_it_goes_on_with_the_new_settings(half, corpus, capsys):
    more = ["--set", "learning_rate=1e-3", "--anyway"]
    assert main(command(corpus, half, "modernbert", *more)) == 0
    said = capsys.readouterr().out
    step = int(said.partition("going on after step ")[2].partition(",")[0])
    rates = {r["step"]: r["learning_rate"] for r in read_jsonl(half / "log.jsonl") if r["what"] == "train_loss"}
    assert 0 < step < last_step(half)
    assert max(rate for at, rate in rates.items() if at > step) <= 1e-3 < max(rates.values())
    # And now this is the run that the folder holds.
    assert main(command(corpus, half, "modernbert", *more[:2])) == 0
    assert "holds another run" in one_line(capsys, main(command(corpus, half)))


# ------------------------------------------------------------------------------------------------ bad input


def change(*words):
    return [part for word in words for part in ("--set", word)]


BAD = {
    "unknown field": (change("learning_rat=1"), "no field 'learning_rat'; did you mean 'learning_rate'"),
    "no value": (change("learning_rate"), "lacks a value"),
    "rate of zero": (change("learning_rate=0"), "learning_rate must be above 0"),
    "rate below zero": (change("learning_rate=-1e-3"), "learning_rate must be above 0"),
    "rate above one": (change("learning_rate=30"), "learning_rate must be above 0 and at most 1"),
    "rate in words": (change("learning_rate=fast"), "learning_rate"),
    "rate that is no number": (change("learning_rate=nan"), "learning_rate"),
    "length of zero": (change("length=0"), "length"),
    "length below zero": (change("length=-5"), "length"),
    "length in words": (change("length=long"), "length"),
    "length with a fraction": (change("length=32.5"), "length"),
    "length too short": (change("length=8"), "at least 16"),
    "length too long": (change("length=1000000000", "microbatch_tokens=1000000000",
                               "tokens_per_step=1000000000", "tokens=1000000000"), "length"),
    "budget below one document": (change("microbatch_tokens=16", "tokens_per_step=128"), "below one document"),
    "tokens below one step": (change("tokens=10"), "less than one step"),
    "step that is no multiple": (change("tokens_per_step=100"), "multiple of microbatch_tokens"),
    "warm-up longer than the run": (change("warmup_tokens=1000000"), "more than tokens"),
    "warm-up in words": (change("warmup_tokens=some"), "warmup_tokens"),
    "mask rate": (change("mask_rate=0"), "mask_rate"),
    "mask rate in words": (change("mask_rate=half"), "mask_rate"),
    "betas": (change("betas=0.9"), "betas"),
    "betas in words": (change("betas=('a','b')"), "betas"),
    "eps": (change("eps=none"), "eps"),
    "weight decay": (change("weight_decay=nan"), "weight_decay"),
    "clip in words": (change("clip_norm=high"), "clip_norm"),
    "packing": (change("packing=maybe"), "packing"),
    "next sentence of packed rows": (change("next_sentence=true"), "packing=False"),
    "optimizer": (change("optimizer=sgd"), "optimizer must be one of"),
    "recipe": (["--recipe", "roberta"], "no recipe 'roberta'"),
    "preset": (["--model", "modernbert-huge"], "no preset is called 'modernbert-huge'"),
    "checkpoint every": (["--checkpoint-every", "0"], "checkpoint-every must be at least 1"),
    "workers": (["--workers", "-1"], "workers must be at least 0"),
    "corpus": (["--corpus", "nowhere/at/all"], "nowhere/at/all"),
    "device": (["--device", "abacus"], "no device 'abacus'"),
    "stream": (["--stream"], "leave --stream out"),
    "shard without torchrun": (["--shard"], "torchrun"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line(corpus, tmp_path, capsys, case):
    more, words = BAD[case]
    line = one_line(capsys, main(command(corpus, tmp_path / "out", "modernbert", *more)))
    assert words in line
    assert not (tmp_path / "out" / "checkpoints").exists()


def test_where_the_run_is_kept_must_be_said_and_writable(corpus, tmp_path, capsys):
    argv = command(corpus, tmp_path / "out")
    at = argv.index("--out")
    assert "--out DIR" in one_line(capsys, main(argv[:at] + argv[at + 2 :]))
    (tmp_path / "file").write_text("")
    assert "is a file" in one_line(capsys, main(command(corpus, tmp_path / "file")))
    line = one_line(capsys, main(["pretrain", "--resume", str(tmp_path)]))
    assert "holds no run to resume" in line
