"""Two processes on one machine (gloo, CPU) compute what one computes with the same batch, also after a resume.

The processes are real: torchrun starts `-m modernbert_edu pretrain`.
"""

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed

from modernbert_edu import load
from modernbert_edu.__main__ import main
from modernbert_edu.runtime import read_jsonl
from modernbert_edu.training import checkpoints

pytestmark = pytest.mark.skipif(
    os.name == "nt" or not torch.distributed.is_gloo_available(), reason="torchrun on a CPU needs gloo"
)

ROOT = Path(__file__).resolve().parents[1]
STEPS, EVERY, PASSES = 20, 10, 4  # microbatches in a step

# Counts what each process computes; given to torchrun in the place of the package.
PROBE = """
import os, sys
from modernbert_edu.__main__ import main
from modernbert_edu.training import runs
real = runs.Run.losses
def counted(self, microbatch):
    with open(os.environ["PROBE"] + os.environ["RANK"], "a") as file:
        file.write(f"{microbatch.place.number}\\n")
    return real(self, microbatch)
runs.Run.losses = counted
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Counting in several rhythms: a model learns something of it in twenty steps."""
    folder = tmp_path_factory.mktemp("distributed") / "corpus"
    folder.mkdir()
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 7))) for _ in range(300)]
    for n in range(100):
        text = [words[(n + i * (1 + n % 5)) % len(words)] for i in range(rng.randint(60, 160))]
        (folder / f"{n:03}.txt").write_text(" ".join(text))
    return folder


def command(corpus, out, *more, recipe="modernbert", steps=STEPS):
    step = PASSES * 64
    return ["pretrain", "--recipe", recipe, "--corpus", str(corpus), "--out", str(out), "--scale", "quick",
            "--device", "cpu", "--workers", "0", "--checkpoint-every", str(min(EVERY, steps // 2)),
            "--set", "length=32", "--set", "microbatch_tokens=64", "--set", f"tokens_per_step={step}",
            "--set", f"tokens={steps * step}", "--set", "batch_warmup_tokens=0",
            "--set", f"batch_warmup_start={step}", "--set", "learning_rate=1e-3", *more]  # fmt: skip


def torchrun(argv, program=("-m", "modernbert_edu"), **environment):
    """Two processes of one thread each; -> what they printed. Fails where they do."""
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *program, *argv]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, **environment}
    return subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=300)


def run_two(argv, *program, **environment):
    done = torchrun(argv, *program, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("kept: ") == 1  # the first process alone prints
    return done.stdout


def run_one(argv):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert main(argv) == 0
    finally:
        torch.set_num_threads(threads)


def losses(out, what="train_loss"):
    return {record["step"]: record["value"] for record in read_jsonl(out / "log.jsonl") if record["what"] == what}


def assert_same_run(one, two, steps=STEPS):
    assert list(losses(one)) == list(losses(two)) == list(range(1, steps + 1))
    for what in ("train_loss", "held_out_loss"):
        assert losses(two, what) == pytest.approx(losses(one, what), abs=1e-5)
    states = [checkpoints.newest_checkpoint(out, say=pytest.fail).state for out in (one, two)]
    assert states[0]["step"] == states[1]["step"] == steps
    assert all(states[0][name] == states[1][name] for name in ("places", "tokens", "consumed"))
    mine, theirs = (load(out)[0].state_dict() for out in (one, two))
    for name in mine:
        torch.testing.assert_close(theirs[name], mine[name], atol=2e-4, rtol=1e-3, msg=lambda text, n=name: n + text)


def until_half(out, folder):
    """A copy of a run that was killed after the checkpoint in its middle."""
    shutil.copytree(out, folder)
    (folder / "model.safetensors").unlink()
    shutil.rmtree(checkpoints.checkpoint_folders(folder)[-1])
    assert checkpoints.newest_checkpoint(folder, say=pytest.fail).step == EVERY
    return folder


@pytest.fixture(scope="module")
def alone(corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("alone") / "run"
    run_one(command(corpus, out))
    curve = losses(out)
    assert curve[STEPS] < curve[1] - 0.5  # there is something to compare
    return out


@pytest.fixture(scope="module")
def together(corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("together") / "run"
    said = run_two(command(corpus, out))
    assert "2 processes" in said
    return out


def test_two_processes_give_the_curve_of_one(alone, together):
    assert_same_run(alone, together)


def test_begun_by_two_and_ended_by_one(corpus, alone, together, tmp_path, capsys):
    out = until_half(together, tmp_path / "run")
    run_one(command(corpus, out))
    assert f"going on after step {EVERY}" in capsys.readouterr().out
    assert_same_run(alone, out)


def test_begun_by_one_and_ended_by_two_who_share_the_microbatches(corpus, alone, tmp_path):
    out = until_half(alone, tmp_path / "run")
    program = tmp_path / "probe.py"
    program.write_text(PROBE)
    said = run_two(command(corpus, out), (str(program),), PROBE=str(tmp_path / "rank-"))
    assert f"going on after step {EVERY}" in said
    assert_same_run(alone, out)
    shares = [[int(n) for n in (tmp_path / f"rank-{rank}").read_text().split()] for rank in (0, 1)]
    assert len(shares[0]) == len(shares[1]) and not set(shares[0]) & set(shares[1])
    assert sorted(shares[0] + shares[1]) == list(range(EVERY * PASSES, STEPS * PASSES))


def test_a_model_cut_up_by_fsdp_gives_the_same_and_one_process_goes_on_with_it(corpus, alone, tmp_path):
    out = tmp_path / "run"
    run_two(command(corpus, out, "--shard"))
    assert_same_run(alone, out)
    half = until_half(out, tmp_path / "half")
    run_one(command(corpus, half))
    assert_same_run(alone, half)


def test_bert_s_two_tasks_are_shared_as_well(corpus, tmp_path):
    steps = 6
    argv = dict(recipe="bert-2018", steps=steps)
    run_one(command(corpus, tmp_path / "one", **argv))
    run_two(command(corpus, tmp_path / "two", **argv))
    assert_same_run(tmp_path / "one", tmp_path / "two", steps)


def test_processes_that_do_not_divide_the_batch_are_refused(corpus, tmp_path):
    more = ["--set", f"microbatch_tokens={PASSES * 64}"]  # one microbatch a step, for two processes
    done = torchrun(command(corpus, tmp_path / "run", *more))
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if line.startswith("modernbert-edu: ")]
    assert lines and all("2 processes do not divide a step of 1 microbatches" in line for line in lines)
    assert not (tmp_path / "run" / "checkpoints").exists()
