"""How pytest (through nbval) runs the lessons: small, offline, with this checkout's package, comparing facts only."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    # A kernel starts with its lesson's first cell and inherits this process's environment. Set here and not at import,
    # where it would also reach the tests in tests/. The number of threads is left to whoever runs the tests.
    os.environ.setdefault("MODERNBERT_EDU_SCALE", "quick")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ["TQDM_DISABLE"] = "1"
    os.environ["PYTHONHASHSEED"] = "0"
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
    paths = [str(REPOSITORY), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))


def pytest_collectstart(collector):
    # Where a cell is compared (NBVAL_CHECK_OUTPUT), these differ from machine to machine without meaning anything.
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("stderr", "text/html", "image/svg+xml")
