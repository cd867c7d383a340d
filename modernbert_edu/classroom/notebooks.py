"""Run the lessons one after another, each in a fresh kernel, as a reader would with Run All.

The executed copies go to their own folder; the committed ones are overwritten only when asked for (`in_place`), and
then without what differs from machine to machine for no good reason: kernel names, timestamps, widget state.
"""

import os
import re
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from modernbert_edu.classroom.scale import get_scale
from modernbert_edu.errors import InputError
from modernbert_edu.runtime import prepare_output_folder, write_text_atomic

REPOSITORY = Path(__file__).resolve().parents[2]
CELL_SECONDS = 1800  # no cell of a lesson comes near; a cell that hangs ends
ANSI_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class NotebookResult:
    """What became of one lesson. `error` is None, or the failing cell's error in one line."""

    name: str
    executed: Path
    seconds: float
    cells: int
    pictures: int
    error: str | None = None


def run_notebooks(
    folder: str | Path = "notebooks",
    out: str | Path = "build/course",
    scale: str | None = None,
    only: list[str] | None = None,
    in_place: bool = False,
    cell_seconds: int = CELL_SECONDS,
    figures: str | Path | None = None,
) -> list[NotebookResult]:
    """Run the lessons of `folder` in the order of their names and save the executed copies under `out`.

    only: names or beginnings of names ("00", "01_vanilla_bert"). A lesson that fails ends at its failing cell, its
    copy is saved all the same, and the next lesson runs. With `in_place`, lessons that succeeded also replace the
    ones in `folder`. What the lessons measure is kept under `figures`, except at quick scale. Prints a line a lesson
    and a total. Raises InputError for a folder without lessons, an unknown name in `only`, an unknown scale or an
    `out` that cannot be written.
    """
    nbformat = _import_runner()[0]
    scale = get_scale(scale).name
    folder = Path(folder)
    paths = _choose(folder, only)
    out = prepare_output_folder(out)
    if out.resolve() == folder.resolve():
        raise InputError("the executed copies would overwrite the lessons: choose another output folder")

    lessons = [_read(path, nbformat) for path in paths]
    results = []
    total = sum(_code_cells(lesson) for lesson in lessons)
    # disable=None: no bar where stderr is not a terminal.
    with tqdm(total=total, unit="cell", disable=None) as bar:
        for path, lesson in zip(paths, lessons, strict=True):
            bar.set_description(path.stem)
            result = _run_one(path, lesson, out, _environment(scale, figures), cell_seconds, bar)
            results.append(result)
            bar.write(_line(result), file=sys.stdout)
            if in_place and result.error is None:
                _clean(lesson)
                write_text_atomic(path, nbformat.writes(lesson) + "\n")
    print(_total(results))
    return results


def figures_of(folder: str | Path, out: str | Path) -> Path:
    """Where figures of the lessons in `folder` belong when no other place is named.

    The committed ones, in `figures`, are those of the committed lessons, in `notebooks`; whoever runs another folder
    gets theirs under `out`.
    """
    ours = Path(folder).resolve() == Path("notebooks").resolve()
    return Path("figures") if ours else Path(out) / "figures"


def redraw_figures(figures: str | Path, only: list[str] | None = None) -> list[Path]:
    """Every figure again from the records kept under `figures`, or those of the lessons in `only`: -> files."""
    from modernbert_edu import lessons, tour
    from modernbert_edu.measure import ablation_plots, bench_plots, headline, retrieval_curve

    drawn = []
    if not only:
        for module in (tour, headline, retrieval_curve, bench_plots, ablation_plots):
            drawn += module.redraw(figures)
    return drawn + lessons.redraw(figures, only)


def _import_runner():
    try:
        import nbclient
        import nbformat
        from ipykernel.kernelspec import get_kernel_dict
        from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
        from jupyter_client.manager import AsyncKernelManager
        from traitlets import default
        from zmq import has
    except ImportError as error:
        mend = 'python -m pip install "modernbert-edu[lessons]"'
        raise InputError(f"running the lessons needs {error.name}: {mend}") from None

    class ThisPython(KernelSpecManager):
        """Whatever kernel a notebook names, and whichever ones are registered: the Python that runs this."""

        def get_kernel_spec(self, kernel_name):
            return KernelSpec(**get_kernel_dict())

    class Kernel(AsyncKernelManager):
        @default("kernel_spec_manager")
        def _kernel_spec_manager_default(self):
            return ThisPython(parent=self)

        @default("transport_encryption")  # newer kernels warn when they are talked to in plain text
        def _transport_encryption_default(self):
            return "auto" if has("curve") else "disabled"

    return nbformat, nbclient, Kernel


def _choose(folder: Path, only: list[str] | None) -> list[Path]:
    lessons = sorted(folder.glob("*.ipynb"))
    if not lessons:
        raise InputError(f"no lessons (*.ipynb) in {folder}: run this in the course's folder, or name theirs")
    if not only:
        return lessons
    for name in only:
        if not any(path.stem.startswith(name.removesuffix(".ipynb")) for path in lessons):
            raise InputError(f"no lesson {name!r}: there are {', '.join(path.stem for path in lessons)}")
    beginnings = tuple(name.removesuffix(".ipynb") for name in only)
    return [path for path in lessons if path.stem.startswith(beginnings)]


def _read(path: Path, nbformat):
    try:
        lesson = nbformat.read(path, as_version=4)
        nbformat.validate(lesson)
    except Exception as error:  # nbformat lets through whatever it trips over in a file that is no notebook
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 150)
        raise InputError(f"{path.name} is not a readable notebook ({reason}): restore or remove it") from None
    return lesson


def _run_one(path: Path, lesson, out: Path, environment: dict[str, str], cell_seconds: int, bar: tqdm):
    """Run `lesson` (changed in place: it gets its outputs) and save it under `out`: -> NotebookResult."""
    nbformat, nbclient, kernel = _import_runner()
    for cell in lesson.cells:
        if cell.cell_type == "code":  # or a lesson that fails half-way would show the stored outputs of its other half
            cell.outputs, cell.execution_count = [], None
    client = nbclient.NotebookClient(
        lesson,
        timeout=cell_seconds,
        record_timing=False,
        kernel_name="python3",
        kernel_manager_class=kernel,
        resources={"metadata": {"path": str(path.parent)}},
        on_cell_executed=lambda **_: bar.update(),
    )
    start, error = time.perf_counter(), None
    before = bar.n
    try:
        client.execute(env=environment)
    except nbclient.exceptions.CellExecutionError as failure:
        error = f"{failure.ename}: {failure.evalue}"
    except nbclient.exceptions.CellTimeoutError:
        error = f"a cell ran longer than {cell_seconds} s"
    except (nbclient.exceptions.DeadKernelError, RuntimeError) as failure:
        error = str(failure) or type(failure).__name__
    except AssertionError:
        # nbclient answers Ctrl-C by stopping the kernel, and then trips over its absence.
        raise KeyboardInterrupt from None
    finally:
        executed = out / path.name
        write_text_atomic(executed, nbformat.writes(lesson) + "\n")
    bar.update(before + _code_cells(lesson) - bar.n)  # the cells that a failure left out
    if error is not None:
        error = textwrap.shorten(ANSI_COLOUR.sub("", error), 200)
    seconds = time.perf_counter() - start
    return NotebookResult(path.stem, executed, seconds, _code_cells(lesson), _pictures(lesson), error)


def _environment(scale: str, figures: str | Path | None = None) -> dict[str, str]:
    """The kernel's environment: this package first on the path, pictures inline, no bars in stored outputs."""
    paths = [str(REPOSITORY), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    evidence = figures is not None and scale != "quick"  # forty steps of training are none
    kept = {"MODERNBERT_EDU_FIGURES": str(Path(figures).resolve())} if evidence else {}
    return (
        {name: value for name, value in os.environ.items() if name != "MODERNBERT_EDU_FIGURES"}
        | kept
        | {
            "MODERNBERT_EDU_SCALE": scale,
            "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
            "PYTHONHASHSEED": "0",
            "MPLBACKEND": "module://matplotlib_inline.backend_inline",
            "TQDM_DISABLE": "1",
            "MODERNBERT_EDU_STATIC": "1",  # no sliders in stored outputs
        }
    )


def _clean(lesson) -> None:
    """Remove from an executed notebook what says nothing about the lesson, so that a diff shows only what changed."""
    lesson.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    } | {key: lesson.metadata[key] for key in lesson.metadata if key not in {"kernelspec", "language_info", "widgets"}}
    for cell in lesson.cells:
        cell.metadata.pop("execution", None)


def _code_cells(lesson) -> int:
    return sum(cell.cell_type == "code" for cell in lesson.cells)


def _pictures(lesson) -> int:
    outputs = [output for cell in lesson.cells for output in cell.get("outputs", [])]
    return sum(any(kind.startswith("image/") for kind in output.get("data", {})) for output in outputs)


def _line(result: NotebookResult) -> str:
    verdict = f"FAILED: {result.error}" if result.error else "ok"
    return _columns(result.name, result.seconds, result.cells, result.pictures, verdict)


def _total(results: list[NotebookResult]) -> str:
    failed = sum(result.error is not None for result in results)
    return _columns(
        f"total: {len(results)} lesson{'s' if len(results) > 1 else ''}",
        sum(result.seconds for result in results),
        sum(result.cells for result in results),
        sum(result.pictures for result in results),
        f"{failed} failed" if failed else "all ran to the end",
    )


def _columns(name: str, seconds: float, cells: int, pictures: int, verdict: str) -> str:
    return f"{name:<28} {seconds / 60:5.1f} min  {cells:>3} cells  {pictures:>2} pictures  {verdict}"
