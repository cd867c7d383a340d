# make setup | course | lab | test | lint | clean. Needs Python 3.11 or newer and make; everything else goes to .venv.

PYTHON ?= python3
SCALE ?= quick
ARGS ?=

VENV := .venv
PY := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
PIP := $(PY) -m pip --disable-pip-version-check --no-input install

.DEFAULT_GOAL := help
.PHONY: help setup course lab test lint clean

help:
	@echo "make setup                make .venv and install the pinned requirements (the others do it when needed)"
	@echo "make course SCALE=quick   run every lesson in order; executed copies go to build/course (quick, laptop, gpu)"
	@echo "make lab                  open the lessons in JupyterLab"
	@echo "make test                 the tests, then every lesson cell by cell; ARGS=... is passed to pytest"
	@echo "make lint                 ruff: check and format, notebooks included"
	@echo "make clean                remove what the above left behind, except .venv"
	@echo "PYTHON=python3.12 chooses the Python that .venv is made with."

setup: $(INSTALLED)
	@echo "ready: $$($(PY) --version) in $(VENV); next: make course, make lab or make test"

course: $(INSTALLED)
	$(PY) -m modernbert_edu notebooks --scale $(SCALE) $(ARGS)

lab: $(INSTALLED)
	$(PY) -m jupyter lab notebooks $(ARGS)

test: $(INSTALLED)
	$(PY) -m pytest tests notebooks --durations=15 $(ARGS)

lint: $(INSTALLED)
	$(PY) -m ruff check modernbert_edu tests notebooks
	$(PY) -m ruff format --check modernbert_edu tests notebooks

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find modernbert_edu tests notebooks \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +

# The stamp is written last, so an interrupted install is taken up again and a finished one is not repeated.
# A .venv that cannot run pip (interrupted, moved, its Python removed or too old) is made anew.
$(INSTALLED): requirements.txt pyproject.toml
	@command -v "$(PYTHON)" >/dev/null 2>&1 || { echo "make: no '$(PYTHON)' here: install Python 3.11 or newer, or name one: make setup PYTHON=python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: '$(PYTHON)' is older than Python 3.11: name a newer one: make setup PYTHON=python3.12" >&2; exit 1; }
	@$(PY) -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || "$(PYTHON)" -m venv --clear $(VENV) || { echo "make: '$(PYTHON) -m venv' failed (above): on Debian or Ubuntu install python3-venv, then run make again" >&2; exit 1; }
	@echo "installing requirements.txt into $(VENV): a few minutes the first time"
	@$(PIP) -r requirements.txt || { echo "make: pip could not install requirements.txt (above): check the network and the disk, then run make again; it goes on where it stopped" >&2; exit 1; }
	@$(PIP) --no-deps -e . || { echo "make: pip could not install this package into $(VENV) (above): run make again" >&2; exit 1; }
	@touch $@
