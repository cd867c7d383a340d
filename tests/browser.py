"""A student at the keyboard: JupyterLab from `make lab`, and a page of headless Chromium with one lesson open in it.

Both live in a temporary folder: the lessons are copies, and nobody's settings of Jupyter or of the browser are read or
written. The browser is the system's; Playwright brings none.
"""

import contextlib
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
BROWSERS = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
MINUTE_MS = 60_000
# Every wait ends as soon as its condition holds. The limits are for a machine that is busy with something else.
A_CLICK, A_PAGE, A_LESSON = MINUTE_MS, 3 * MINUTE_MS, 10 * MINUTE_MS


def chromium() -> tuple[str | None, str]:
    """(the path of a Chromium or Chrome that runs headless here, or None; why not).

    It is tried: the command may only say how to get the browser (Ubuntu), or be kept from temporary folders (snap).
    """
    why = "Chromium is not installed (Debian: apt-get install chromium)"
    for path in filter(None, map(shutil.which, BROWSERS)):
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
            options = ["--headless", "--no-sandbox", f"--user-data-dir={home}/profile", "--dump-dom", "about:blank"]
            try:
                done = subprocess.run(
                    [path, *options],
                    env=os.environ | {"HOME": home},
                    capture_output=True,
                    text=True,
                    timeout=A_PAGE / 1000,
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                why = f"{path} did not start: {type(error).__name__}"
                continue
        if done.returncode == 0 and "<html" in done.stdout:
            return path, ""
        why = f"{path} did not start: exit status {done.returncode}"
    return None, why


# ------------------------------------------------------------------------------------------- JupyterLab


@contextlib.contextmanager
def make_lab(checkout: Path):
    """`make lab` in `checkout`, a folder with notebooks/. Gives (address, token, notebooks/); ends with all it started.

    The Makefile is this repository's; its Python is the one that runs the tests, so nothing is installed.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    options = f"--no-browser --allow-root --ip=127.0.0.1 --port={port} --ServerApp.port_retries=0"
    # Were this process killed outright, the server would end by itself.
    options += " --ServerApp.shutdown_no_activity_timeout=1800 --MappingKernelManager.cull_idle_timeout=1800"
    command = ["make", "--no-print-directory", "-f", str(ROOT / "Makefile"), "-o", ".venv/.installed"]
    command += ["lab", f"PY={sys.executable}", f"ARGS={options}"]
    log_file = checkout / "lab.log"
    with log_file.open("w") as log:
        lab = subprocess.Popen(
            command,
            cwd=checkout,
            env=lab_environment(checkout) | {"JUPYTER_TOKEN": token},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for_server(f"{address}/api/status?token={token}", lab, log_file)
        yield address, token, checkout / "notebooks"
    finally:
        end(lab)


def lab_environment(checkout: Path) -> dict[str, str]:
    """This process's environment with the small scale, this checkout's package, and settings that begin empty."""
    home = checkout / "home"
    # pytest's own variable would tell the lessons that nobody is there to move a slider; make's would reach our make.
    unwanted = {"MODERNBERT_EDU_STATIC", "PYTEST_CURRENT_TEST", "MFLAGS", "MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES"}
    kept = {name: value for name, value in os.environ.items() if name not in unwanted and "JUPYTER" not in name}
    settings = home / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False}))
    paths = [str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    # One thread is many times faster than two where the cores are busy with something else.
    kept.setdefault("OMP_NUM_THREADS", "1")
    return kept | {
        "MODERNBERT_EDU_SCALE": "quick",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join(paths),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "IPYTHONDIR": str(home / "ipython"),
    }


def wait_for_server(url: str, lab: subprocess.Popen, log_file: Path) -> None:
    deadline = time.monotonic() + A_PAGE / 1000
    # Straight to this machine, whatever proxy the environment names.
    straight = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while True:
        with contextlib.suppress(urllib.error.URLError, OSError):
            with straight.open(url, timeout=10) as reply:
                assert reply.status == 200
                return
        if lab.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"make lab ended or did not answer:\n{log_file.read_text()[-2000:]}")
        time.sleep(0.2)


def end(lab: subprocess.Popen) -> None:
    """End the server and its kernels, which have process groups of their own: first asked, then killed."""
    with contextlib.suppress(psutil.NoSuchProcess):
        top = psutil.Process(lab.pid)
        family = [*top.children(recursive=True), top]
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
        for process in psutil.wait_procs(family, timeout=15)[1]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        left = [process for process in psutil.wait_procs(family, timeout=15)[1] if alive(process)]
        assert not left, f"still running after make lab: {left}"
    lab.wait(timeout=60)


def alive(process: psutil.Process) -> bool:
    """Whether it runs; one that has ended and that nobody has asked for its status does not."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


# -------------------------------------------------------------------------------------------- the browser


@contextlib.contextmanager
def headless(program: str, home: Path):
    """A browser with a fresh profile and no window."""
    from playwright.sync_api import sync_playwright

    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program,
            headless=True,
            args=["--no-proxy-server"],
            env=environment | {"HOME": str(home)},
            timeout=A_PAGE,
        )
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def opened(browser, lab: tuple[str, str, Path], name: str, cells: int):
    """The notebook `name`, of so many cells, open in a new tab with its kernel idle, as a `Lesson`."""
    (address, token, folder), page = lab, browser.new_page(viewport={"width": 1400, "height": 1000})
    page.set_default_timeout(A_CLICK)
    try:
        # A workspace of its own: the default one would open beside it what was open last.
        page.goto(f"{address}/lab/workspaces/{Path(name).stem}/tree/{name}?token={token}", timeout=A_PAGE)
        lesson = Lesson(page, folder / name)
        lesson.cells.nth(cells - 1).wait_for(state="attached", timeout=A_PAGE)  # they come one after another
        lesson.wait_until_idle()
        assert lesson.cells.count() == cells
        yield lesson
    finally:
        page.close()


class Lesson:
    """What a student sees of an open notebook, and what a student can do with it. Cells are counted from 0."""

    def __init__(self, page, file: Path):
        self.page, self.file = page, file
        self.cells = page.locator(".jp-Notebook .jp-Cell")

    # ---- what is on the screen

    def prompts(self) -> list[str]:
        """Of each code cell: "" before it has run, "*" while it runs or waits, then its number."""
        prompts = self.page.locator(".jp-Notebook .jp-CodeCell .jp-InputArea-prompt").all_text_contents()
        return [prompt.strip().strip("[]: ") for prompt in prompts]

    def text(self, cell: int) -> str:
        """What the cell has printed."""
        return "\n".join(self.cells.nth(cell).locator(".jp-OutputArea-output pre").all_text_contents()).strip()

    def verdict(self, cell: int) -> tuple[str, tuple[int, ...]]:
        """(what a check says, without its sign; red, green and blue of the ground on which its first words stand)."""
        (badge,) = self.cells.nth(cell).locator(".jp-OutputArea-output pre b").all()
        ground = badge.evaluate("one => getComputedStyle(one).backgroundColor")
        return self.text(cell).partition(" ")[2], tuple(map(int, re.findall(r"\d+", ground)))

    def source(self, cell: int) -> str:
        return "\n".join(self.cells.nth(cell).locator(".cm-line").all_text_contents())

    def pictures(self, cell: int) -> list[dict]:
        """The cell's pictures: `src`, `pixels` (the decoded image's width, 0 if it is broken), `width` (on screen)."""
        script = "all => all.map(i => ({src: i.src, pixels: i.complete ? i.naturalWidth : 0, width: i.clientWidth}))"
        return self.cells.nth(cell).locator(".jp-OutputArea-output img").evaluate_all(script)

    def live_picture(self, cell: int) -> str:
        """The address (its bytes) of the one picture that the cell shows beside its sliders."""
        (picture,) = self.pictures(cell)
        return picture["src"]

    def errors(self) -> list[str]:
        """The error of each cell that has one ("ZeroDivisionError: ..."), from the notebook as Ctrl-S saves it.

        (On the screen an error differs from a warning in nothing but its words.)
        """
        self.page.keyboard.press("ControlOrMeta+s")
        deadline = time.monotonic() + A_CLICK / 1000
        while True:
            with contextlib.suppress(json.JSONDecodeError):  # it is being written
                cells = [c for c in json.loads(self.file.read_text())["cells"] if c["cell_type"] == "code"]
                if [str(cell["execution_count"] or "") for cell in cells] == self.prompts():
                    outputs = [output for cell in cells for output in cell["outputs"]]
                    return [f"{o['ename']}: {o['evalue']}" for o in outputs if o["output_type"] == "error"]
            assert time.monotonic() < deadline, "the saved notebook is not the one on the screen"
            self.page.wait_for_timeout(200)

    def wait_until_idle(self) -> None:
        """The status bar says so. (The circle beside the kernel's name is empty also before there is a kernel.)"""
        self.page.locator("#jp-main-statusbar").get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=A_PAGE)

    # ---- what a student does

    def run_all(self) -> None:
        """Run > Run All Cells, in a notebook that has not run; returns when no cell runs or waits any more."""
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        self._wait(
            """() => {
                const cells = [...document.querySelectorAll('.jp-Notebook .jp-CodeCell')];
                const prompts = cells.map(cell => cell.querySelector('.jp-InputArea-prompt').textContent);
                return /\\[\\d+\\]/.test(prompts[0]) && !prompts.some(prompt => prompt.includes('*'));
            }"""
        )
        self.wait_until_idle()

    def run(self, cell: int) -> None:
        """Ctrl-Enter in the cell; returns when it has a new number."""
        one = self.cells.nth(cell)
        before = one.locator(".jp-InputArea-prompt").text_content()
        one.locator(".cm-content").press("Control+Enter")
        self._wait(
            """([cell, before]) => {
                const all = document.querySelectorAll('.jp-Notebook .jp-Cell');
                const now = all[cell].querySelector('.jp-InputArea-prompt').textContent;
                return now !== before && /\\[\\d+\\]/.test(now);
            }""",
            [cell, before],
        )
        self.wait_until_idle()

    def write(self, cell: int, source: str) -> None:
        """Type `source` over what the cell holds, key by key."""
        keyboard = self.page.keyboard
        self.cells.nth(cell).locator(".cm-content").click()
        keyboard.press("ControlOrMeta+a")
        for number, line in enumerate(source.splitlines()):
            if number:
                keyboard.press("Enter")
                keyboard.press("Shift+Home")  # the editor has indented by itself: that is typed over
            keyboard.type(line)

    def move_slider(self, cell: int, name: str, key: str) -> None:
        """Press an arrow key on the handle of the slider `name`; returns when the cell's picture is another one."""
        before = self.live_picture(cell)
        self.cells.nth(cell).locator(".widget-slider").filter(has_text=name).get_by_role("slider").press(key)
        self._wait(
            """([cell, before]) => {
                const one = document.querySelectorAll('.jp-Notebook .jp-Cell')[cell];
                const picture = one.querySelector('.jp-OutputArea-output img');
                return picture && picture.complete && picture.src !== before;
            }""",
            [cell, before],
        )

    def _wait(self, script: str, argument=None) -> None:
        self.page.wait_for_function(script, arg=argument, timeout=A_LESSON, polling=200)
