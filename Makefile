# Everything a user needs: `make quickstart` and `make test` set up what they need, then run.
# Paths are relative, so a checkout may lie anywhere, in a folder with spaces too.
PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
PIP    := $(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help quickstart test test-fast lint types format docs clean

help:
	@echo "make quickstart   raw text to report.html on this machine, in minutes (runs/quickstart)"
	@echo "make test         the whole test suite"
	@echo "make test-fast    without the slow tests: minutes instead of half an hour"
	@echo "make lint types   ruff, mypy"
	@echo "make format       rewrite the sources as ruff formats them"
	@echo "make docs         the documentation site, into build/site; a broken link is an error"
	@echo "make clean        remove the virtual environment and caches (runs/ stays)"

# ARGS: further flags, e.g. make quickstart ARGS="--config.data.workers=1"
quickstart: $(VENV)/.run
	$(PY) main.py --config=configs/quickstart.py --workdir=runs/quickstart $(ARGS)

test: $(VENV)/.dev
	$(PY) -m pytest -n 2 --durations=20 $(ARGS)

test-fast: $(VENV)/.dev
	$(PY) -m pytest -n 2 -m "not slow" $(ARGS)

lint: $(VENV)/.dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

types: $(VENV)/.dev
	$(PY) -m mypy

format: $(VENV)/.dev
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

# Not --quiet: mkdocs then drops its warnings, and --strict has nothing to fail on.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --clean $(ARGS)
	@echo "The site is in build/site; to read it: $(PY) -m http.server --directory build/site"

$(PY):
	@$(PYTHON) -c 'import sys' || { echo \
		"$(PYTHON) does not run (see above): make PYTHON=/path/to/python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo \
		"$(PYTHON) is older than Python 3.11, which hare-jax needs: make PYTHON=python3.12 ..."; exit 1; }
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

$(VENV)/.docs: pyproject.toml constraints.txt | $(PY)
	@echo "Installing into $(VENV) (a minute, once) ..."
	$(PIP) --editable '.[docs]'
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache *.egg-info
