# Two commands do everything on a machine with Python 3.11 or newer, pip and make:
#
#   make demo    own virtual environment, then the digits example, twice
#   make test    own virtual environment, then ruff, mypy --strict, the import rules and pytest;
#                fingerprints and core also on every other Python >= 3.11 found
#
# Everything lands in .venv/ and build-demo/; `make clean` removes both.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help demo test lint types walls unit pythons faults bench clean

# The first interpreter that is new enough, unless PYTHON names one.
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13 python3.14 python; do \
	if $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then echo $$p; break; fi; done)
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --quiet
DEMO_DIR := build-demo
DEMO := $(PY) examples/digits/digits.py --plant-dir $(DEMO_DIR)/plant --out-dir $(DEMO_DIR)/output

help:
	@sed -n 's/^#   //p' Makefile

# A venv that comes without pip (some systems cut it out) gets it from the system's pip.
# `pip install --group` needs pip 25.1.
$(VENV)/stamp-pip:
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer was found; name one: make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { $(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --python $(PY) install --quiet pip; }
	@echo "installing into $(VENV) ..."
	@$(PIP) install --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/stamp-demo: $(VENV)/stamp-pip pyproject.toml
	@$(PIP) install --editable . --group examples
	@touch $@

$(VENV)/stamp-dev: $(VENV)/stamp-pip pyproject.toml
	@$(PIP) install --editable . --group dev
	@touch $@

demo: $(VENV)/stamp-demo
	@rm -rf $(DEMO_DIR)
	@echo "== first run: everything is new"
	@$(DEMO)
	@echo "== second run: nothing has changed, so only the final artifact is made again"
	@$(DEMO)
	@echo "== the picture and the metrics are in $(DEMO_DIR)/output"

# All four, even if an early one fails: a run should tell everything that is wrong.
test: $(VENV)/stamp-dev
	@$(MAKE) --no-print-directory --keep-going lint types walls pythons unit

lint: $(VENV)/stamp-dev
	$(PY) -m ruff check .

types: $(VENV)/stamp-dev
	$(PY) -m mypy --strict

walls: $(VENV)/stamp-dev
	$(PY) -m pytest -q tests/test_architecture.py

# By two processes: each test has folders of its own, and most wait for the disk or for a program half of the time.
unit: $(VENV)/stamp-dev
	$(PY) -m pytest -q --numprocesses 2 --dist worksteal $(PYTEST_ARGS)

# Bytecode differs from version to version: fingerprints and traces are tried on every other one that is here.
pythons: $(VENV)/stamp-dev
	@$(PY) tests/other_pythons.py $(VENV)

# The long campaign of docs/design/reliability.md: about two hours on two cores.
faults: $(VENV)/stamp-dev
	$(PY) -m tests.faults.campaign $(FAULTS_ARGS)

bench: $(VENV)/stamp-dev
	$(PY) benchmarks/run.py --output docs/benchmarks.md $(BENCH_ARGS)
	$(PY) benchmarks/arrays.py --output docs/benchmarks-arrays.md $(BENCH_ARGS)

clean:
	rm -rf $(VENV) $(DEMO_DIR)
