import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modernbert_edu import runtime
from modernbert_edu.errors import InputError

CPU = torch.device("cpu")


def one_line(error):
    return "\n" not in str(error.value)


# ---------------------------------------------------------------------------------------------- devices


def fake_gpus(monkeypatch, count, name="NVIDIA H200", capability=(9, 0)):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    properties = type("Properties", (), {"name": name, "total_memory": 150_110_011_392})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)


@pytest.mark.parametrize("name", [None, "auto", " AUTO ", "cpu", CPU])
def test_without_a_gpu_the_cpu_is_chosen(monkeypatch, name):
    fake_gpus(monkeypatch, 0)
    assert runtime.resolve_device(name) == CPU


@pytest.mark.parametrize(
    ("name", "expected"),
    [(None, "cuda:0"), ("auto", "cuda:0"), ("cuda", "cuda:0"), ("cuda:1", "cuda:1"), ("cpu", "cpu")],
)
def test_with_two_gpus(monkeypatch, name, expected):
    fake_gpus(monkeypatch, 2)
    assert runtime.resolve_device(name) == torch.device(expected)


@pytest.mark.parametrize("name", ["gpu", "cuda:2", "cuda:x", "cpu:7", "tpu", "", "mps"])
def test_an_absent_or_unknown_device_is_refused_with_the_list(monkeypatch, name):
    fake_gpus(monkeypatch, 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"choose one of auto, cpu, cuda:0, cuda:1$") as error:
        runtime.resolve_device(name)
    assert repr(name) in str(error.value) and one_line(error)


def test_cuda_without_cuda_is_refused(monkeypatch):
    fake_gpus(monkeypatch, 0)
    with pytest.raises(InputError, match="no device 'cuda'"):
        runtime.resolve_device("cuda")


def test_mps_only_when_asked_for_and_with_a_warning(monkeypatch, capsys):
    fake_gpus(monkeypatch, 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert runtime.resolve_device() == CPU
    assert capsys.readouterr().err == ""
    assert runtime.resolve_device("mps") == torch.device("mps")
    assert "mps" in capsys.readouterr().err


def test_names_of_a_gpu(monkeypatch):
    fake_gpus(monkeypatch, 1)
    gpu = torch.device("cuda:0")
    assert runtime.device_slug(gpu) == "nvidia-h200"
    assert runtime.describe_device(gpu) == "NVIDIA H200, 139 GiB"
    assert runtime.default_dtype(gpu)[0] == torch.bfloat16
    fake_gpus(monkeypatch, 1, "Tesla T4", (7, 5))
    assert runtime.default_dtype(gpu)[0] == torch.float32


@pytest.mark.parametrize(
    ("model_name", "cores", "description", "slug"),
    [
        ("Intel(R) Xeon(R) Processor @ 2.90GHz", 2, "Intel Xeon, 2 cores", "cpu-intel-xeon-2-cores"),
        (
            "Intel(R) Core(TM) i7-8650U CPU @ 1.90GHz",
            1,
            "Intel Core i7-8650U, 1 core",
            "cpu-intel-core-i7-8650u-1-core",
        ),
        (
            "AMD EPYC 7763 64-Core Processor",
            64,
            "AMD EPYC 7763 64-Core, 64 cores",
            "cpu-amd-epyc-7763-64-core-64-cores",
        ),
    ],
)
def test_names_of_a_cpu(monkeypatch, model_name, cores, description, slug):
    monkeypatch.setattr(runtime, "_cpu_facts", lambda: f"processor\t: 0\nmodel name\t: {model_name}\nflags\t: fpu\n")
    monkeypatch.setattr(runtime, "cpu_cores", lambda: cores)
    monkeypatch.setattr(sys, "platform", "linux")
    assert runtime.describe_device(CPU) == description
    assert runtime.device_slug(CPU) == slug


def test_a_cpu_that_does_not_say_its_name_still_has_one(monkeypatch):
    monkeypatch.setattr(runtime, "_cpu_facts", lambda: "")
    assert runtime.cpu_name().strip()
    assert re.fullmatch(r"cpu(-[a-z0-9]+)+", runtime.device_slug(CPU))


@pytest.mark.parametrize(("flags", "dtype"), [("avx512_bf16", torch.float32), ("amx_bf16 avx512f", torch.bfloat16)])
def test_bfloat16_on_a_cpu_only_with_matrix_units(monkeypatch, flags, dtype):
    monkeypatch.setattr(runtime, "_cpu_facts", lambda: f"flags\t: {flags}\n")
    chosen, reason = runtime.default_dtype(CPU)
    assert chosen == dtype and reason


# ----------------------------------------------------------------------------- seeds, memory, provenance


def test_the_same_seed_gives_the_same_numbers():
    import random

    def draw(seed):
        runtime.seed_everything(seed)
        return random.random(), np.random.rand(), torch.rand(1).item()

    assert draw(3) == draw(3)
    assert all(a != b for a, b in zip(draw(3), draw(4), strict=True))
    runtime.seed_everything(2**40)  # NumPy alone would refuse it


def test_peak_memory_sees_an_allocation_and_not_the_parent():
    block = np.ones(64 * 2**20 // 8)  # a parent whose memory a child must not inherit
    before = runtime.peak_rss_bytes()
    bigger = np.ones(before // 8 + 2**20)  # larger than everything so far
    assert runtime.peak_rss_bytes() >= before + 2**23
    program = "from modernbert_edu.runtime import peak_rss_bytes; print(peak_rss_bytes())"
    root = Path(runtime.__file__).parents[1]
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=root)
    assert 2**24 < int(child.stdout) < runtime.peak_rss_bytes() - bigger.nbytes // 2
    assert block.sum() > 0


def test_the_environment_line_is_one_line_with_everything():
    line = runtime.environment_line(CPU, torch.float32, 7)
    assert "\n" not in line
    for part in ["Python 3.", f"torch {torch.__version__}", "cpu (", "float32", "threads ", "seed 7"]:
        assert part in line


def test_provenance_is_json_and_says_where_when_and_with_what():
    facts = runtime.provenance(CPU, seed=3, backend="sdpa")
    assert json.loads(json.dumps(facts)) == facts
    assert facts["seed"] == 3 and facts["backend"] == "sdpa"
    assert facts["torch"] == torch.__version__ and facts["device"] == runtime.describe_device(CPU)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", facts["date"])
    assert os.sep + "lib" + os.sep not in facts["command"]


def test_git_state_of_a_checkout(monkeypatch, tmp_path):
    answers = {"rev-parse": "abc123", "status": " M README.md"}
    monkeypatch.setattr(runtime, "__file__", str(tmp_path / "modernbert_edu" / "runtime.py"))
    monkeypatch.setattr(runtime, "_output_of", lambda command: answers[command[3]])
    assert runtime._git_state() == {"git_commit": None, "git_dirty": None}  # not a checkout
    (tmp_path / ".git").mkdir()
    assert runtime._git_state() == {"git_commit": "abc123", "git_dirty": True}
    answers["status"] = ""
    assert runtime._git_state() == {"git_commit": "abc123", "git_dirty": False}
    answers["rev-parse"] = None  # git is not installed, or there is no commit yet
    assert runtime._git_state() == {"git_commit": None, "git_dirty": None}


HOME = "/" + "home/jane"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([HOME + "/.venv/bin/python", "-m", "modernbert_edu", "tour"], "python -m modernbert_edu tour"),
        (["python", "-m", "pkg", "--out", HOME + "/runs/a", "--seed", "1"], "python -m pkg --out a --seed 1"),
        (["python", "-m", "pkg", f"--out={HOME}/runs/a", "--corpus=hub:x/y"], "python -m pkg --out=a --corpus=hub:x/y"),
        (["python", "-m", "pkg", "runs/a", "../../x/b"], "python -m pkg runs/a b"),
        ([r"C:\Python\python.exe", "-m", "pkg", r"D:\data sets\my runs"], 'python.exe -m pkg "my runs"'),
        (["python", "-c", f"open('{HOME}')", "x"], "python -c ... x"),
        ([], ""),
    ],
)
def test_a_command_line_without_machine_paths(arguments, expected):
    assert runtime.command_line(arguments) == expected


# ------------------------------------------------------------------------------------------------ files


def test_an_output_folder_is_made_with_its_parents(tmp_path):
    folder = runtime.prepare_output_folder(tmp_path / "a" / "b")
    assert folder.is_dir() and not any(folder.iterdir())
    assert runtime.prepare_output_folder(str(folder)) == folder  # and may be there already


def bad_folders(tmp_path):
    file = tmp_path / "file"
    file.write_text("kept")
    bad = [file, file / "below", tmp_path / ("x" * 300), "nul\0byte"]
    return bad + ["/proc/self/here"] if sys.platform == "linux" else bad


def test_an_output_folder_that_cannot_be_written_is_refused(tmp_path):
    for folder in bad_folders(tmp_path):
        with pytest.raises(InputError, match="output folder") as error:
            runtime.prepare_output_folder(folder)
        assert one_line(error)
    assert (tmp_path / "file").read_text() == "kept"


def test_a_folder_without_permission_to_write_is_refused(tmp_path):
    if os.name == "nt" or os.geteuid() == 0:
        pytest.skip("this user may write everywhere")
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="Permission denied"):
        runtime.prepare_output_folder(tmp_path)


def test_writing_replaces_the_whole_file_and_leaves_nothing_behind(tmp_path):
    target = tmp_path / "config.json"
    target.write_text("a much longer text than the new one")
    runtime.write_text_atomic(target, "né\n")
    assert target.read_bytes() == "né\n".encode()
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_a_write_that_fails_keeps_the_old_file(tmp_path, monkeypatch):
    target = tmp_path / "config.json"
    target.write_text("old")

    def full_disk(source, destination):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(InputError, match="No space left"):
        runtime.write_text_atomic(target, "new")
    assert target.read_text() == "old" and [path.name for path in tmp_path.iterdir()] == ["config.json"]
    with pytest.raises(InputError, match="cannot write"):
        runtime.write_text_atomic(target / "below" / "a", "new")


RECORDS = st.lists(st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=5) | st.none(), max_size=3))


@given(first=RECORDS, second=RECORDS)
def test_records_come_back_in_order(tmp_path_factory, first, second):
    path = tmp_path_factory.mktemp("jsonl") / "records.jsonl"
    path.touch()
    runtime.append_jsonl(path, first)
    runtime.append_jsonl(path, second)
    assert runtime.read_jsonl(path) == first + second


def test_a_line_cut_short_is_kept_skipped_and_named(tmp_path):
    path = tmp_path / "records.jsonl"
    runtime.append_jsonl(path, [{"step": 1}, {"step": 2}])
    path.write_bytes(path.read_bytes()[:-5])  # the crash
    with pytest.warns(UserWarning, match="records.jsonl: line 2 is cut short"):
        assert runtime.read_jsonl(path) == [{"step": 1}]
    runtime.append_jsonl(path, [{"step": 3}])
    with pytest.warns(UserWarning, match="line 2"):
        assert runtime.read_jsonl(path) == [{"step": 1}, {"step": 3}]
    assert path.read_bytes().count(b"\n") == 3  # the half line is still there to look at


def test_only_the_line_end_was_cut_off(tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_bytes(b'{"step": 1}')
    runtime.append_jsonl(path, [{"step": 2}])
    assert runtime.read_jsonl(path) == [{"step": 1}, {"step": 2}]


def test_a_file_of_something_else_is_refused(tmp_path):
    path = tmp_path / "image.png"
    path.write_bytes(b"\x89PNG\n\xff\xfe\n12\n")
    with pytest.raises(InputError, match="holds no JSON lines"):
        runtime.read_jsonl(path)
    with pytest.raises(InputError, match="cannot read"):
        runtime.read_jsonl(tmp_path / "absent.jsonl")
    with pytest.raises(InputError, match="cannot write"):
        runtime.append_jsonl(tmp_path / "absent" / "a.jsonl", [{}])


@pytest.mark.cuda
def test_on_a_real_gpu():
    device = runtime.resolve_device()
    assert device.type == "cuda" and torch.zeros(1, device=device).device == device
    facts = runtime.provenance(device)
    assert facts["driver"] and facts["cuda"] and facts["device_slug"] in runtime.device_slug(device)
    assert "GiB" in runtime.environment_line(device, *runtime.default_dtype(device)[:1], 0)
