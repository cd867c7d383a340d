import json
import socket
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError

import pytest
import torch

from modernbert_edu import doctor


@pytest.fixture
def versions(monkeypatch):
    """Installed versions as the test wants them: a dictionary that overrides what is really there; None is absent."""
    real, overrides = doctor.version, {}

    def version(name):
        if name not in overrides:
            return real(name)
        if overrides[name] is None:
            raise PackageNotFoundError(name)
        return overrides[name]

    monkeypatch.setattr(doctor, "version", version)
    return overrides


def rows_by_name():
    return {row.name: row for row in doctor.report()}


def test_here_everything_needed_is_there(capsys):
    rows = rows_by_name()
    assert doctor.print_report(list(rows.values())) == 0
    printed = capsys.readouterr().out
    for name in ["Python", "torch", "tokenizers", "device", "dtype", "attention", "threads", "memory", "disk", "Hub"]:
        assert rows[name].status in {"ok", "note"} and name in printed
    assert torch.__version__.split("+")[0] in rows["torch"].found
    assert rows["attention"].found.count(": ") >= 1  # the backend, and why
    assert printed.endswith("ready: everything needed is here\n")
    assert not any(row.status == "ok" and row.mend for row in rows.values())


def test_rows_as_dictionaries_are_json():
    dicts = doctor.as_dicts(doctor.report())
    assert json.loads(json.dumps(dicts)) == dicts
    assert {tuple(entry) for entry in dicts} == {("status", "name", "found", "mend")}


@pytest.mark.parametrize("found", [None, "0.0.1"])
def test_a_needed_package_that_is_absent_or_too_old_fails(versions, capsys, found):
    versions["safetensors"] = found
    rows = rows_by_name()
    assert rows["safetensors"].status == "missing"
    assert 'pip install "safetensors>=' in rows["safetensors"].mend
    assert doctor.print_report(list(rows.values())) == 1
    assert "not ready: safetensors;" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["flash-attn", "transformers", "sentence-transformers", "ipywidgets", "jupyterlab"])
def test_an_optional_package_is_named_with_its_line_and_fails_nothing(versions, name):
    versions[name] = None
    rows = rows_by_name()
    assert rows[name].status == "optional" and f'pip install "{name}>=' in rows[name].mend
    assert ("--no-build-isolation" in rows[name].mend) == (name == "flash-attn")
    assert doctor.print_report(list(rows.values())) == 0


def test_what_only_the_authors_need_is_left_out():
    assert not {"pytest", "nbval", "ruff"} & rows_by_name().keys()


def test_an_installed_copy_reads_its_own_metadata(monkeypatch):
    from_checkout = doctor._requirements()
    lines = [str(requirement) for requirement in from_checkout[0]]
    lines += [f'{requirement}; extra == "peers"' for requirement in from_checkout[1]]
    lines += ['pytest>=8; extra == "test"', 'ruff; extra == "test"']
    monkeypatch.setattr(doctor, "_project", lambda: None)
    monkeypatch.setattr(doctor, "requires", lambda name: lines)
    needed, optional = doctor._requirements()
    assert needed == from_checkout[0]
    assert [requirement.name for requirement in optional] == [requirement.name for requirement in from_checkout[1]]


def test_a_pre_release_and_a_local_version_count(versions):
    versions["torch"] = "2.14.0a0+git123"
    assert rows_by_name()["torch"].status == "ok"


def test_an_old_python(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 10, 9))
    monkeypatch.setattr(doctor.platform, "python_version", lambda: "3.10.9")
    row = doctor._python_row()
    assert row.status == "missing" and row.found == "3.10.9, needs >=3.11" and row.mend


WITHOUT = """
import importlib.util, sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {absent!r}:
            raise ImportError("libcudart.so: cannot open shared object file\\nmore", name=name)
sys.meta_path.insert(0, Block())
spec = importlib.util.spec_from_file_location("doctor", {file!r})
doctor = importlib.util.module_from_spec(spec)
spec.loader.exec_module(doctor)
real = doctor.version
def version(name):
    if name in {uninstalled!r}:
        raise doctor.PackageNotFoundError(name)
    return real(name)
doctor.version = version
sys.exit(doctor.print_report())
"""


def run_without(absent, uninstalled):
    program = WITHOUT.format(absent=absent, uninstalled=uninstalled, file=doctor.__file__)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)


def test_without_any_dependency_it_still_reports():
    done = run_without({"torch", "numpy", "psutil", "packaging", "huggingface_hub"}, set())
    assert done.returncode == 1 and done.stderr == ""
    assert "pip install packaging" in done.stdout and "not ready: packaging;" in done.stdout


def test_without_torch_the_rest_is_still_reported():
    done = run_without({"torch", "psutil"}, {"torch", "psutil"})
    assert done.returncode == 1 and done.stderr == ""
    assert "not ready: psutil, torch;" in done.stdout and 'pip install "torch>=2.11"' in done.stdout
    assert "disk" in done.stdout and "memory" in done.stdout


def test_a_torch_that_is_installed_but_broken():
    done = run_without({"torch"}, set())
    assert done.returncode == 1 and done.stderr == ""
    assert "fails: libcudart.so: cannot open shared object file\n" in done.stdout
    assert "--force-reinstall" in done.stdout


def test_little_memory_and_disk_are_noted_and_fail_nothing(monkeypatch):
    import psutil

    class Little:
        available = free = 2**29

    monkeypatch.setattr(psutil, "virtual_memory", Little)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: Little)
    assert doctor._memory_row()[:3] == ("note", "memory", "0.5 GiB free")
    assert doctor._disk_row()[:3] == ("note", "disk", "0.5 GiB free here")


@pytest.mark.parametrize("value", ["1", "true", "YES"])
def test_offline_is_honoured_without_asking(monkeypatch, value):
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    monkeypatch.setattr(doctor, "_answers", lambda url: pytest.fail("the network was tried"))
    assert "offline" in doctor._hub_row().found


@pytest.mark.parametrize(("answer", "status"), [(None, "ok"), ("no route to host", "note")])
def test_online_the_hub_is_asked(monkeypatch, answer, status):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(doctor, "_answers", lambda url: answer)
    row = doctor._hub_row()
    assert row.status == status and (answer or "reachable") in row.found


@pytest.fixture
def listener(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server, f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_server_that_never_answers_costs_no_more_than_the_limit(listener):
    start = time.perf_counter()
    assert doctor._answers(listener[1], seconds=0.3) is not None
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize(("reply", "expected"), [("200 OK", None), ("403 Forbidden", "answered with status 403")])
def test_the_answer_of_a_server(listener, reply, expected):
    import threading

    server, url = listener

    def serve():
        connection, _ = server.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(f"HTTP/1.1 {reply}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())

    threading.Thread(target=serve, daemon=True).start()
    assert doctor._answers(url, seconds=5) == expected


def test_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert doctor._answers(f"http://127.0.0.1:{port}", seconds=5)
