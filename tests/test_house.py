"""The files around the package say the same things, hold no trace of a machine, and work on a bare one."""

import ast
import functools
import os
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DEPENDENCIES = [Requirement(text) for text in PROJECT["dependencies"]]
EXTRAS = {name: [Requirement(text) for text in texts] for name, texts in PROJECT["optional-dependencies"].items()}


def names(requirements):
    return {canonicalize_name(requirement.name) for requirement in requirements}


def pins():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(text) for text in (line.partition("#")[0].strip() for line in lines) if text]


# ------------------------------------------------------------------------------- versions and imports


def test_every_requirement_is_pinned_within_its_range():
    ranges = {canonicalize_name(entry.name): entry for entry in sum(EXTRAS.values(), DEPENDENCIES)}
    for pin in pins():
        operators = [specifier.operator for specifier in pin.specifier]
        assert operators == ["=="], f"{pin} is not pinned"
        version = next(iter(pin.specifier)).version
        assert ranges[canonicalize_name(pin.name)].specifier.contains(version), f"{pin} is outside pyproject's range"


def test_requirements_are_everything_but_flash_attn():
    assert names(pins()) == names(sum(EXTRAS.values(), DEPENDENCIES)) - {"flash-attn"}
    assert len(pins()) == len(names(pins())), "one is named twice"


def test_the_extras_promised_to_the_reader_exist():
    assert {"flash", "peers", "lessons", "test"} <= EXTRAS.keys()
    assert PROJECT["scripts"] == {"modernbert-edu": "modernbert_edu.__main__:main"}


def third_party_imports(source, everywhere):
    """Top-level names of the packages that a module imports; `everywhere` also looks into its functions."""
    found = set()

    def visit(node):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                found.update(alias.name.split(".")[0] for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.level == 0:
                found.add(child.module.split(".")[0])
            is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for_types_only = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
            if everywhere or not (is_function or for_types_only):
                visit(child)

    visit(ast.parse(source))
    return found - set(sys.stdlib_module_names) - {"modernbert_edu"}


MODULES = sorted((ROOT / "modernbert_edu").rglob("*.py"))
# How a package that may not be installed here is imported; the others are looked up.
DISTRIBUTION_OF = {"flash_attn": "flash-attn", "flash_attn_interface": "flash-attn"}
# What comes with a declared package and is imported beside it: the machinery of the kernels.
COMES_WITH = {"jupyter-client": "nbclient", "traitlets": "nbclient", "pyzmq": "ipykernel", "ipython": "ipykernel"}


@functools.cache
def installed_distributions():
    return packages_distributions()


def distributions(modules):
    installed = installed_distributions()
    found = {DISTRIBUTION_OF.get(module) or installed.get(module, [module])[0] for module in modules}
    return {COMES_WITH.get(canonicalize_name(name), canonicalize_name(name)) for name in found}


@pytest.mark.parametrize("path", MODULES, ids=[str(path.relative_to(ROOT)) for path in MODULES])
def test_imports_are_declared_and_slow_or_optional_ones_are_inside_functions(path):
    source = path.read_text(encoding="utf-8")
    declared = names(sum((EXTRAS[name] for name in EXTRAS if name != "test"), DEPENDENCIES))
    assert distributions(third_party_imports(source, everywhere=True)) <= declared
    at_once = distributions(third_party_imports(source, everywhere=False))
    assert at_once <= names(DEPENDENCIES) - {"datasets", "huggingface-hub", "matplotlib"}


def test_the_import_check_sees_what_it_should():
    source = """
import os, torch.nn as nn
from . import errors
from modernbert_edu.errors import InputError
if TYPE_CHECKING:
    import pandas
try:
    import flash_attn
except ImportError:
    pass
class Late:
    import numpy
    def method(self):
        from transformers.utils import logging
"""
    assert third_party_imports(source, everywhere=False) == {"torch", "flash_attn", "numpy"}
    assert third_party_imports(source, everywhere=True) == {"torch", "flash_attn", "numpy", "pandas", "transformers"}
    assert distributions({"flash_attn", "yaml", "traitlets"}) == {"flash-attn", "pyyaml", "nbclient"}


SLOW_OR_OPTIONAL = ["transformers", "datasets", "matplotlib", "sentence_transformers", "flash_attn", "ipywidgets"]


def test_importing_the_package_is_quick_and_quiet():
    program = f"import sys, modernbert_edu; print([m for m in {SLOW_OR_OPTIONAL} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout, done.stderr, done.returncode) == ("[]\n", "", 0)


# ------------------------------------------------------------------------------------ traces of a machine


def committed_files():
    """What git tracks or would track; without git, or outside a checkout, everything that is not made by a tool."""
    if shutil.which("git") and (ROOT / ".git").exists():
        command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
        listed = subprocess.run(command, capture_output=True, text=True)
        if listed.returncode == 0:
            return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]
    made = {".git", ".venv", "build", "dist", "runs", "__pycache__", ".pytest_cache", ".ruff_cache", ".hypothesis"}
    found = []
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in made and not name.endswith(".egg-info")]
        found += [Path(folder) / name for name in files]
    return found


# Built from parts, so that this file does not hold what it looks for.
MACHINE_PATHS = ["/".join(["", *parts, ""]) for parts in (["root"], ["home"], ["Users"], ["work", "main"], ["opt"])]
MACHINE_PATHS += ["/tmp/" + name for name in ("venv", "ipykernel_", "pytest-of-")] + [
    "C:" + "\\\\Users",
    "C:" + "\\Users",
]


def machine_paths_in(content):
    return [path for path in MACHINE_PATHS if path.encode() in content]


def test_no_committed_file_names_a_path_of_a_machine():
    files = committed_files()
    assert Path(__file__).resolve() in files and ROOT / "pyproject.toml" in files
    assert not any(".venv" in path.parts for path in files)
    traces = {str(path.relative_to(ROOT)): machine_paths_in(path.read_bytes()) for path in files}
    assert {name: found for name, found in traces.items() if found} == {}


def test_the_search_for_machine_paths_finds_one():
    assert machine_paths_in(('"File ' + "/ho" + 'me/jane/x.py"').encode()) == ["/ho" + "me/"]
    assert machine_paths_in(b"https://example.org/a and ./build/course and /tmp/x") == []


# -------------------------------------------------------------------------------------------- lint, CI


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=["check", "format"])
def test_ruff_is_content(command):
    folders = [name for name in ("modernbert_edu", "tests", "notebooks") if (ROOT / name).exists()]
    ruff = [sys.executable, "-m", "ruff", *command, "--no-cache", *folders]
    done = subprocess.run(ruff, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ci_runs_make_test():
    script = ROOT / ".ci" / "run"
    assert "make test" in script.read_text(encoding="utf-8")
    assert os.name == "nt" or os.access(script, os.X_OK)


def test_conda_installs_the_same_requirements():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert pip == ["-r requirements.txt"]
    assert "pip" in environment["dependencies"] and environment["channels"][0] == "conda-forge"


def test_licence_and_citation_agree_with_the_project():
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert PROJECT["license"] == "Apache-2.0"
    assert "Version 2.0, January 2004" in licence and "END OF TERMS AND CONDITIONS" in licence
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])
    assert any("2412.13663" in reference["url"] for reference in citation["references"])


# -------------------------------------------------------------------------------------------- Makefile

needs_make = pytest.mark.skipif(not shutil.which("make") or os.name == "nt", reason="needs make and a POSIX shell")
TARGETS = ["setup", "course", "lab", "test", "lint", "clean"]

# Stands in for Python: logs how it was called, makes a ".venv" that is a copy of itself, and fails where told to.
FAKE_PYTHON = """#!/bin/sh
echo "$*" >> "{root}/log"
case "$*" in
  -c*pip*) case "$0" in */.venv/*) exit 0 ;; esac ;;
  -c*) test ! -e "{root}/too-old" ;;
  "-m venv"*) test ! -e "{root}/no-venv" && mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
  *"pip "*"install -r requirements.txt") test ! -e "{root}/no-network" ;;
esac
"""


@pytest.fixture
def bare(tmp_path):
    """A folder with nothing but the Makefile and what it installs from, and a `make` that uses the fake Python."""
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    for name in ["Makefile", "requirements.txt", "pyproject.toml"]:
        shutil.copy(ROOT / name, checkout)
    python = tmp_path / "python3"
    python.write_text(FAKE_PYTHON.format(root=tmp_path))
    python.chmod(0o755)
    # These tests may themselves run under make, which hands its variables down.
    inherited = {"MFLAGS", "MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "PYTHON", "SCALE", "ARGS"}
    environment = {name: value for name, value in os.environ.items() if name not in inherited}

    def make(*arguments):
        (tmp_path / "log").write_text("")
        command = ["make", "--no-print-directory", f"PYTHON={python}", *arguments]
        done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, env=environment)
        return done, (tmp_path / "log").read_text().splitlines()

    return checkout, make


@needs_make
def test_make_alone_prints_every_target(bare):
    done, calls = bare[1]()
    assert done.returncode == 0 and calls == []
    for target in TARGETS:
        assert f"make {target} " in done.stdout


@needs_make
@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("setup", None),
        ("course", "-m modernbert_edu notebooks --scale quick"),
        ("lab", "-m jupyter lab notebooks"),
        ("test", "-m pytest tests notebooks --durations=15"),
        ("lint", "-m ruff format --check modernbert_edu tests notebooks"),
    ],
)
def test_each_target_sets_up_by_itself_once(bare, target, expected):
    checkout, make = bare
    done, first = make(target)
    assert done.returncode == 0, done.stderr
    assert sum(" install -r requirements.txt" in call for call in first) == 1
    assert sum(call.endswith("install --no-deps -e .") for call in first) == 1
    assert expected is None or first[-1].strip() == expected
    done, second = make(target)
    assert done.returncode == 0 and not any("install" in call or "venv" in call for call in second)
    assert expected is None or second[-1].strip() == expected


@needs_make
def test_scale_and_arguments_are_passed_on(bare):
    assert (
        bare[1]("course", "SCALE=laptop", "ARGS=--only 00")[1][-1]
        == "-m modernbert_edu notebooks --scale laptop --only 00"
    )
    assert bare[1]("test", "ARGS=-k rope")[1][-1].endswith("--durations=15 -k rope")


@needs_make
@pytest.mark.parametrize("changed", ["requirements.txt", "pyproject.toml"])
def test_changed_requirements_are_installed(bare, changed):
    checkout, make = bare
    make("setup")
    stamp = (checkout / ".venv" / ".installed").stat().st_mtime
    os.utime(checkout / changed, (stamp + 10, stamp + 10))
    calls = make("setup")[1]
    assert any("install -r requirements.txt" in call for call in calls)
    assert not any("venv" in call for call in calls)  # the environment itself stays


@needs_make
@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        ("too-old", "is older than Python 3.11"),
        ("no-venv", "install python3-venv"),
        ("no-network", "pip could not install requirements.txt"),
    ],
)
def test_what_fails_is_said_in_one_line_and_taken_up_again(bare, trouble, message):
    checkout, make = bare
    marker = checkout.parent / trouble
    marker.touch()
    done = make("test")[0]
    assert done.returncode != 0
    (line,) = [line for line in done.stderr.splitlines() if message in line]
    assert line.startswith("make: ")
    assert not (checkout / ".venv" / ".installed").exists()
    marker.unlink()
    done, calls = make("test")
    assert done.returncode == 0 and "pytest" in calls[-1]


@needs_make
def test_a_missing_python_is_named(bare):
    done = bare[1]("setup", "PYTHON=python9.9")[0]
    assert done.returncode != 0 and "no 'python9.9' here: install Python 3.11 or newer" in done.stderr


@needs_make
def test_clean_keeps_the_environment(bare):
    checkout, make = bare
    make("setup")
    for name in ["modernbert_edu/__pycache__", "tests", "notebooks/.ipynb_checkpoints", "build/course"]:
        (checkout / name).mkdir(parents=True)
    (checkout / "tests" / "test_a.py").touch()
    assert make("clean")[0].returncode == 0
    left = sorted(str(path.relative_to(checkout)) for path in checkout.rglob("*") if ".venv" not in path.parts)
    sources = [
        "Makefile",
        "modernbert_edu",
        "notebooks",
        "pyproject.toml",
        "requirements.txt",
        "tests",
        "tests/test_a.py",
    ]
    assert left == sources
    assert (checkout / ".venv" / ".installed").exists()
