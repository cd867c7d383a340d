"""Checkpoints are whole or not there: every way of breaking one is recognised, and the one before it is used."""

import errno
import json
import shutil

import pytest
import torch

from modernbert_edu import InputError
from modernbert_edu.training import checkpoints
from modernbert_edu.training.checkpoints import keep_only, newest_checkpoint, save_checkpoint, whats_wrong


def write(folder, step):
    weights = {"w": torch.full((3, 4), float(step)), "b": torch.arange(5.0) + step}
    return save_checkpoint(folder, weights, {"w|exp_avg": torch.ones(3, 4) * step}, {"step": step, "tokens": 10 * step})


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    write(tmp_path, 3)
    path = write(tmp_path, 12)
    found = newest_checkpoint(tmp_path)
    assert found.path == path and found.step == 12 and found.state == {"step": 12, "tokens": 120}
    assert torch.equal(found.weights()["b"], torch.arange(5.0) + 12)
    assert torch.equal(found.optimizer_state()["w|exp_avg"], torch.ones(3, 4) * 12)
    assert newest_checkpoint(tmp_path / "nowhere") is None


def truncate(path):
    path.write_bytes(path.read_bytes()[:-7])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("name", [*checkpoints.FILES, checkpoints.MANIFEST])
@pytest.mark.parametrize("damage", [truncate, flip, lambda path: path.unlink(), lambda path: path.write_bytes(b"")])
def test_a_damaged_one_is_named_and_the_one_before_it_used(tmp_path, name, damage):
    good, bad = write(tmp_path, 1), write(tmp_path, 2)
    damage(bad / name)
    said = []
    assert newest_checkpoint(tmp_path, said.append).path == good
    assert len(said) == 1 and "step-00000002 is broken" in said[0] and said[0].endswith("taking the one before it")
    assert whats_wrong(bad) and whats_wrong(good) is None
    damage(good / name)
    assert newest_checkpoint(tmp_path, said.append) is None and len(said) == 3


def test_it_can_be_cut_off_at_any_moment_of_writing(tmp_path, monkeypatch):
    """Every call that touches the disk fails in turn: what was there before is still what is found."""
    good = write(tmp_path, 1)
    calls = {"save_file": checkpoints.save_file, "file_hash": checkpoints.file_hash, "_flush": checkpoints._flush,
             "os.rename": checkpoints.os.rename}  # fmt: skip
    cut = 0
    for name, real in calls.items():
        for nth in range(1, 6):
            count = 0

            def failing(*args, real=real, nth=nth, **kwargs):
                nonlocal count
                count += 1
                if count == nth:
                    raise OSError(errno.ENOSPC, "No space left on device")
                return real(*args, **kwargs)

            with monkeypatch.context() as patch:
                patch.setattr(f"modernbert_edu.training.checkpoints.{name}", failing)
                try:
                    write(tmp_path, 2)
                except InputError as error:
                    cut += 1
                    assert "cannot write the checkpoint of step 2" in str(error) and "No space left" in str(error)
                    # Cut off after it has its name, it is whole; before, it is not there.
                    assert newest_checkpoint(tmp_path).step in ((1,) if name != "_flush" else (1, 2))
            shutil.rmtree(tmp_path / "checkpoints" / "step-00000002", ignore_errors=True)
            assert newest_checkpoint(tmp_path).path == good
            assert not list((tmp_path / "checkpoints").glob(".step*"))
    assert cut >= 10


def test_what_a_kill_leaves_half_written_is_never_taken(tmp_path):
    write(tmp_path, 1)
    half = tmp_path / "checkpoints" / ".step-00000002.tmp"
    shutil.copytree(tmp_path / "checkpoints" / "step-00000001", half)
    assert newest_checkpoint(tmp_path).step == 1
    keep_only(tmp_path, {1})
    assert not half.exists()


def test_only_the_chosen_ones_are_kept(tmp_path):
    for step in range(1, 6):
        write(tmp_path, step)
    keep_only(tmp_path, {2, 5})
    assert [path.name for path in checkpoints.checkpoint_folders(tmp_path)] == ["step-00000002", "step-00000005"]


def test_a_broken_one_of_the_same_step_is_replaced(tmp_path):
    path = write(tmp_path, 4)
    truncate(path / "model.safetensors")
    assert whats_wrong(write(tmp_path, 4)) is None
    assert json.loads((path / "state.json").read_text())["step"] == 4
