"""Where a run happens and what it leaves: devices, seeds, provenance, and files written so that nothing is lost.

Every lesson opens with `environment_line`, and every recorded measurement carries `provenance`: a number without the
machine it was measured on says nothing.
"""

import contextlib
import datetime
import json
import os
import platform
import random
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import psutil
import torch

from modernbert_edu.errors import InputError

GIB = 2**30


# ---------------------------------------------------------------------------------------------- devices


def resolve_device(name: str | torch.device | None = None) -> torch.device:
    """The device to run on: the first CUDA GPU if there is one, else the CPU, unless `name` says otherwise.

    `name` is None, "auto", "cpu", "cuda", "cuda:1" or "mps". MPS is never chosen by itself: its results differ a
    little from those of the CPU, which puzzles readers who compare their loss with the printed one.
    Raises InputError for a name that is unknown or a device that is not there.
    """
    wanted = "auto" if name is None else str(name).strip().lower()
    cuda_devices = [f"cuda:{index}" for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)]
    mps_devices = ["mps"] if torch.backends.mps.is_available() else []

    if wanted == "auto":
        wanted = "cuda" if cuda_devices else "cpu"
    if wanted == "cpu":
        return torch.device("cpu")
    if wanted == "cuda" and cuda_devices:
        # With its index, because that is what a tensor's .device says, and devices are compared.
        return torch.device("cuda", torch.cuda.current_device())
    if wanted in cuda_devices:
        return torch.device(wanted)
    if wanted in mps_devices:
        print("note: on mps, losses differ a little from those printed for cpu and cuda", file=sys.stderr)
        return torch.device("mps")
    here = ", ".join(["auto", "cpu", *cuda_devices, *mps_devices])
    raise InputError(f"no device {str(name)!r} on this machine: choose one of {here}")


def cpu_name() -> str:
    """The processor's marketing name without its ornaments: "Intel Xeon", "AMD EPYC 7763 64-Core", "Apple M2"."""
    found = re.search(r"^model name\s*:\s*(.+)$", _cpu_facts(), re.MULTILINE)
    name = found.group(1) if found else ""
    if sys.platform == "darwin":
        name = _output_of(["sysctl", "-n", "machdep.cpu.brand_string"]) or ""
    name = re.sub(r"\(R\)|\(TM\)|\bCPU\b|\bProcessor\b|@.*", " ", name)
    return " ".join(name.split()) or platform.processor() or platform.machine() or "CPU"


def cpu_cores() -> int:
    """Logical cores this process may use, which inside a container or a job are fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def describe_device(device: torch.device) -> str:
    """For people: "Intel Xeon, 2 cores" or "NVIDIA H200, 139 GiB"."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{properties.name}, {properties.total_memory // GIB} GiB"
    cores = f"{cpu_cores()} core{'s' if cpu_cores() > 1 else ''}"
    return f"{cpu_name()}, {cores}" if device.type == "cpu" else f"{cpu_name()}, {device.type}"


def device_slug(device: torch.device) -> str:
    """For file names: "cpu-intel-xeon-2-cores" or "nvidia-h200"; only a-z, 0-9 and single hyphens."""
    text = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} {describe_device(device)}"
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def default_dtype(device: torch.device) -> tuple[torch.dtype, str]:
    """The number format to compute in on `device`, and why. bfloat16 only where the hardware multiplies in it."""
    if device.type == "cuda":
        if torch.cuda.get_device_capability(device) >= (8, 0):
            return torch.bfloat16, "bfloat16 runs on the tensor cores and needs no loss scaling"
        return torch.float32, "this GPU has no bfloat16 in hardware"
    if device.type == "cpu":
        if "amx_bf16" in _cpu_facts():
            return torch.bfloat16, "this CPU multiplies bfloat16 matrices in hardware (AMX)"
        return torch.float32, "this CPU has no matrix unit for bfloat16, which would be slower"
    return torch.float32, f"the format that every operation supports on {device.type}"


def _cpu_facts() -> str:
    """What Linux says of the processor; empty on other systems."""
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


# ----------------------------------------------------------------------------- seeds, memory, provenance


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and torch's generators, on every device."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def peak_rss_bytes() -> int:
    """The most memory this process has held so far, in bytes.

    On Linux from VmHWM: ru_maxrss starts a child at what its parent held before exec, so that a small program
    started from a large one would seem large.
    """
    if sys.platform == "linux":
        found = re.search(r"^VmHWM:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
        if found:
            return int(found.group(1)) * 1024
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, the others KiB


def environment_line(device: torch.device, dtype: torch.dtype, seed: int) -> str:
    """The one line that opens a lesson, so that its stored outputs say where they come from."""
    parts = [
        f"Python {platform.python_version()}",
        f"torch {torch.__version__}",
        f"{device} ({describe_device(device)})",
        str(dtype).removeprefix("torch."),
        f"threads {torch.get_num_threads()}",
        f"seed {seed}",
    ]
    return " | ".join(parts)


def provenance(device: torch.device, **extra) -> dict:
    """What must be known to trust or repeat a measurement, as a flat dictionary for JSON; `extra` is added to it."""
    facts = {
        "device": describe_device(device),
        "device_slug": device_slug(device),
        "driver": _driver_version() if device.type == "cuda" else None,
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "cpu": describe_device(torch.device("cpu")),
        "threads": torch.get_num_threads(),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": _version_or_none("transformers"),
        **_git_state(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command_line(sys.orig_argv),
    }
    return facts | extra


def command_line(arguments: list[str]) -> str:
    """The command as another machine would type it: absolute paths reduced to their last part."""
    if not arguments:
        return ""
    words = [PureWindowsPath(arguments[0]).name]  # also splits at "/"
    for word in arguments[1:]:
        if words[-1] == "-c":
            word = "..."  # a program, not an argument
        option, equals, value = word.partition("=")
        if equals and _is_absolute(value):
            word = f"{option}={PureWindowsPath(value).name}"
        elif _is_absolute(word):
            word = PureWindowsPath(word).name
        words.append(word)
    return " ".join(f'"{word}"' if " " in word else word for word in words)


def _is_absolute(word: str) -> bool:
    climbs_out = PurePosixPath(word).parts[:1] == ("..",)  # so it names the machine just as well
    return PurePosixPath(word).is_absolute() or PureWindowsPath(word).is_absolute() or climbs_out


def _version_or_none(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _output_of(command: list[str]) -> str | None:
    """What a small helper program prints, or None where it is not installed, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _driver_version() -> str | None:
    answer = _output_of(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"])
    return answer.splitlines()[0] if answer else None


def _git_state() -> dict:
    """{"git_commit", "git_dirty"} of the checkout this package lies in; both None where it is installed elsewhere."""
    root = Path(__file__).resolve().parents[1]
    unknown = {"git_commit": None, "git_dirty": None}
    if not (root / ".git").exists():  # an installed copy may lie inside someone else's repository
        return unknown
    commit = _output_of(["git", "-C", str(root), "rev-parse", "HEAD"])
    changes = _output_of(["git", "-C", str(root), "status", "--porcelain"])
    return unknown if commit is None else {"git_commit": commit, "git_dirty": bool(changes)}


def progress(iterable: Iterable | None = None, **options):
    """A tqdm bar with rate and time left, shown in a terminal or a notebook and nowhere else.

    TQDM_DISABLE=1 in the environment turns it off there too: stored outputs should hold no bars.
    """
    from tqdm.auto import tqdm

    watched = sys.stderr.isatty() or in_notebook()
    silenced = os.environ.get("TQDM_DISABLE", "") not in ("", "0")
    return tqdm(iterable, disable=silenced or not watched, **options)


def in_notebook() -> bool:
    """Whether this process is a notebook's kernel."""
    if "IPython" not in sys.modules:
        return False
    shell = sys.modules["IPython"].get_ipython()
    return getattr(shell, "kernel", None) is not None


# ------------------------------------------------------------------------------------------------ files


def prepare_output_folder(path: str | Path) -> Path:
    """Make the folder, with its parents, and prove that it can be written by writing. Raises InputError if not.

    Called before a long run begins, so that the mistake costs a second and not an hour.
    """
    folder = Path(path).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except FileExistsError:
        raise InputError(f"{path} is a file, not a folder: choose another output folder") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot write to the output folder {path}: {reason}; choose another one") from None
    return folder


def write_text_atomic(path: str | Path, text: str) -> None:
    """Write UTF-8 text so that the file is, at every moment, either the old one or the new one, never half of it."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; free some space or choose another place") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_jsonl(path: str | Path, records: Iterable[dict]) -> None:
    """Write records, one JSON object a line, in place of what the file held; its folder is made where it is missing."""
    prepare_output_folder(Path(path).parent)
    write_text_atomic(path, "".join(json.dumps(record) + "\n" for record in records))


def append_jsonl(path: str | Path, records: Iterable[dict]) -> None:
    """Append records, one JSON object a line. After a crash that left half a line, the new ones start on their own."""
    lines = "".join(json.dumps(record) + "\n" for record in records)
    if not lines:
        return
    try:
        with open(path, "ab+") as file:
            if file.seek(0, os.SEEK_END) > 0:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    lines = "\n" + lines
            file.write(lines.encode())
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; free some space or choose another place") from None


def read_jsonl(path: str | Path) -> list[dict]:
    """The records of a JSON-lines file. A line that a crash cut short is skipped with a warning that names it."""
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    records, broken = [], []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if isinstance(record, dict):
            records.append(record)
        else:
            broken.append(number)
    if len(broken) > 1 and not records:
        raise InputError(f"{path} holds no JSON lines: name a file that this package wrote")
    for number in broken:
        warnings.warn(f"{Path(path).name}: line {number} is cut short, skipped", stacklevel=2)
    return records
