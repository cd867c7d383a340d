"""What this machine has, what the course needs, and the line that mends the difference.

It imports no dependency before it knows that it is there: a missing one is a row of the report, not a traceback.
The ranges come from pyproject.toml (or, once installed, from the package's metadata), so they are written once.
"""

import os
import platform
import shutil
import sys
import threading
import tomllib
import urllib.error
import urllib.request
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import NamedTuple

DISTRIBUTION = "modernbert-edu"
GIB = 2**30
HUB_SECONDS = 2.0  # the longest that asking for the Hub may take
# What to expect at `laptop` scale; below it a row says so, but nothing fails.
COMFORTABLE_MEMORY = 2 * GIB
COMFORTABLE_DISK = 2 * GIB


class Row(NamedTuple):
    """One line of the report.

    status: "ok"; "missing" (something needed is absent, too old or broken); "optional" (absent, and nothing fails
    without it); "note" (worth knowing).
    """

    status: str
    name: str
    found: str
    mend: str = ""


def report() -> list[Row]:
    """Everything worth knowing before a run; no row needs the network for longer than two seconds."""
    rows = [_python_row()]
    try:
        import packaging  # noqa: F401
    except ImportError:
        return [*rows, Row("missing", "packaging", "not installed", _pip("packaging"))]
    needed, optional = _requirements()
    rows += [_package_row(requirement, "missing") for requirement in needed]
    rows += [_package_row(requirement, "optional") for requirement in optional]
    rows += _torch_rows()
    rows += [_memory_row(), _disk_row(), _hub_row()]
    return rows


def print_report(rows: list[Row] | None = None) -> int:
    """Print the report (made anew unless given) and return the exit status: 0 if nothing needed is missing, else 1."""
    rows = report() if rows is None else rows
    width = max(len(row.name) for row in rows)
    for row in rows:
        print(f"{row.status:<9} {row.name:<{width}}  {row.found}")
        if row.mend:
            print(f"{'':<9} {'':<{width}}  -> {row.mend}")
    missing = [row.name for row in rows if row.status == "missing"]
    if missing:
        print(f"\nnot ready: {', '.join(missing)}; the lines marked -> mend it")
    else:
        print("\nready: everything needed is here")
    return 1 if missing else 0


def as_dicts(rows: list[Row]) -> list[dict]:
    """The rows for JSON: {"status", "name", "found", "mend"}."""
    return [row._asdict() for row in rows]


# --------------------------------------------------------------------------------- Python and packages


def _pip(what: str) -> str:
    return f"{Path(sys.executable).name} -m pip install {what}"


def _project() -> dict | None:
    """The [project] table of the pyproject.toml beside the package; None for an installed copy."""
    file = Path(__file__).resolve().parents[1] / "pyproject.toml"
    if not file.is_file():
        return None
    project = tomllib.loads(file.read_text(encoding="utf-8")).get("project", {})
    return project if project.get("name") == DISTRIBUTION else None


def _requirements():
    """(needed, optional) as packaging Requirements. The extra `test` is left out: it serves this package's authors."""
    from packaging.requirements import Requirement

    project = _project()
    if project:
        needed = [Requirement(text) for text in project["dependencies"]]
        extras = project["optional-dependencies"]
        optional = [Requirement(text) for name, texts in extras.items() if name != "test" for text in texts]
    else:
        every = [Requirement(text) for text in requires(DISTRIBUTION) or []]
        needed = [requirement for requirement in every if "extra" not in str(requirement.marker)]
        optional = [requirement for requirement in every if requirement not in needed]
        optional = [requirement for requirement in optional if not requirement.marker.evaluate({"extra": "test"})]
    return needed, optional


def _python_row() -> Row:
    found = platform.python_version()
    wanted = (_project() or {}).get("requires-python", ">=3.11")
    oldest = tuple(int(part) for part in wanted.removeprefix(">=").split("."))
    if sys.version_info < oldest:
        return Row("missing", "Python", f"{found}, needs {wanted}", "install a newer Python, then make .venv with it")
    return Row("ok", "Python", f"{found} (needs {wanted})")


def _package_row(requirement, if_absent: str) -> Row:
    """The row of one package; `if_absent` is the status where it is missing or outside its range."""
    name, wanted = requirement.name, str(requirement.specifier)
    mend = _pip(f'"{name}{wanted}"')
    if name == "flash-attn":
        mend = _pip(f'"{name}{wanted}" --no-build-isolation') + "  (for NVIDIA GPUs)"
    try:
        found = version(name)
    except PackageNotFoundError:
        return Row(if_absent, name, "not installed", mend)
    if not requirement.specifier.contains(found, prereleases=True):
        return Row(if_absent, name, f"{found}, needs {wanted}", mend)
    return Row("ok", name, f"{found} (needs {wanted})")


# --------------------------------------------------------------------------------------------- compute


def _torch_rows() -> list[Row]:
    """Device, number format, attention backend and threads, each with its reason; nothing where torch is absent."""
    try:
        import torch
    except ImportError as error:
        try:
            version("torch")
        except PackageNotFoundError:
            return []  # its own row says so already
        first_line = str(error).splitlines()[0]
        mend = _pip('--force-reinstall "torch>=2.11"')
        return [Row("missing", "torch import", f"installed, but fails: {first_line}", mend)]

    from modernbert_edu.attention import choose_backend
    from modernbert_edu.runtime import cpu_cores, default_dtype, describe_device, resolve_device

    device = resolve_device()
    dtype, why = default_dtype(device)
    backend, reason = choose_backend(device, dtype)
    rows = [
        Row("ok", "device", f"{device}: {describe_device(device)}"),
        Row("ok", "dtype", f"{str(dtype).removeprefix('torch.')}: {why}"),
        Row("ok", "attention", f"{backend}: {reason}"),
        Row("ok", "threads", f"{torch.get_num_threads()} of {cpu_cores()} usable cores"),
    ]
    if torch.backends.mps.is_available():
        rows.insert(1, Row("note", "mps", "there, and used only when asked for: --device mps"))
    if device.type == "cpu" and shutil.which("nvidia-smi") and not torch.version.cuda:
        found = "an NVIDIA driver is here, but this torch was built for the CPU only"
        rows.insert(1, Row("note", "CUDA", found, "reinstall torch with CUDA, if the machine has a GPU"))
    return rows


def _memory_row() -> Row:
    try:
        import psutil
    except ImportError:
        return Row("note", "memory", "not known without psutil")
    free = psutil.virtual_memory().available
    if free < COMFORTABLE_MEMORY:
        return Row("note", "memory", f"{free / GIB:.1f} GiB free", "close other programs, or work with --scale quick")
    return Row("ok", "memory", f"{free / GIB:.1f} GiB free")


def _disk_row() -> Row:
    free = shutil.disk_usage(Path.cwd()).free
    if free < COMFORTABLE_DISK:
        return Row("note", "disk", f"{free / GIB:.1f} GiB free here", "models and figures of a full run need 2 GiB")
    return Row("ok", "disk", f"{free / GIB:.1f} GiB free here")


# --------------------------------------------------------------------------------------------- the Hub


def _hub_row() -> Row:
    """Whether published models and datasets can be fetched. The lessons need none, so this never fails."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        return Row("ok", "Hub", "offline, because HF_HUB_OFFLINE is set; the lessons need no network")
    try:
        from huggingface_hub.constants import ENDPOINT
    except ImportError:
        return Row("note", "Hub", "not tried without huggingface-hub")
    answer = _answers(ENDPOINT)
    if answer is None:
        return Row("ok", "Hub", "reachable")
    mend = "nothing needs it but models and corpora called by their Hub name; HF_HUB_OFFLINE=1 stops trying"
    return Row("note", "Hub", f"out of reach: {answer}", mend)


def _answers(url: str, seconds: float = HUB_SECONDS) -> str | None:
    """None if the address answers, else why not. In a thread, because looking a name up knows no time limit."""
    outcome = [f"no answer within {seconds:g} s"]

    def ask():
        try:
            request = urllib.request.Request(url, method="HEAD")
            with urllib.request.urlopen(request, timeout=seconds):
                outcome[0] = None
        except urllib.error.HTTPError as error:
            outcome[0] = f"answered with status {error.code}"
        except (OSError, ValueError) as error:
            outcome[0] = str(getattr(error, "reason", error))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return outcome[0]
