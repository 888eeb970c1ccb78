# Everything a user needs: `make quickstart` and `make test` set up what they need, then run.
# Paths are relative, so a checkout may lie anywhere, in a folder with spaces too.
PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
PIP    := $(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help quickstart test lint types format clean

help:
	@echo "make quickstart   raw text to report.html on this machine, in minutes (runs/quickstart)"
	@echo "make test         the whole test suite"
	@echo "make lint types   ruff, mypy"
	@echo "make format       rewrite the sources as ruff formats them"
	@echo "make clean        remove the virtual environment and caches (runs/ stays)"

# ARGS: further flags, e.g. make quickstart ARGS="--config.data.workers=1"
quickstart: $(VENV)/.run
	$(PY) main.py --config=configs/quickstart.py --workdir=runs/quickstart $(ARGS)

test: $(VENV)/.dev
	$(PY) -m pytest -n 2 $(ARGS)

lint: $(VENV)/.dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

types: $(VENV)/.dev
	$(PY) -m mypy

format: $(VENV)/.dev
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "hare-jax needs Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The stamps are written last: an interrupted installation is done again.
$(VENV)/.run: pyproject.toml constraints.txt | $(PY)
	@echo "Installing into $(VENV) (some minutes, once) ..."
	$(PIP) --editable '.[data]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(PY)
	@echo "Installing into $(VENV) (some minutes, once) ..."
	$(PIP) --editable '.[data,dev]'
	@touch $(VENV)/.run $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache *.egg-info
