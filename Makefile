# Everything goes into .venv; it is made anew when pyproject.toml changes. `make help` lists what there is.

PYTHON ?= python3
BIN := .venv/bin
# How many processes share the tests. Half of their time is waiting: on two cores, four.
PROCESSES ?= 4
# Tests start Python some hundred times: without its cache it would compile all of Fleet each time.
unexport PYTHONDONTWRITEBYTECODE
PIP := $(BIN)/pip --disable-pip-version-check -qq install

.PHONY: help up test collected check lint format bench chaos hostile pictures clean
.DELETE_ON_ERROR:

help:
	@echo "make up      install, and run everything on this machine   (make up ARGS='--host-id laptop')"
	@echo "make check   format, lint, types, import contracts, unit tests"
	@echo "make test    all of that, and every other test, on real components"
	@echo "make format  put the code into its format"
	@echo "make bench   print the numbers"
	@echo "make chaos   break everything, count what became of the work, beside stock Celery (root; about an hour and a half)"
	@echo "make hostile try all that a part could do that somebody took over, on both brokers, and what each may do for itself"
	@echo "make pictures take the pictures of the README anew, from a real run"
	@echo "make clean   remove .venv and what was built"

up: .venv/.for-use
	@$(BIN)/fleet up $(ARGS)

check: lint
	@$(BIN)/python -m pytest -q tests/unit tests/meta

test: .venv/.for-development
	@$(MAKE) --no-print-directory --jobs 2 lint collected
	@$(BIN)/python -m pytest --numprocesses $(PROCESSES) --dist loadgroup

# What pytest makes of the tests' asserts is kept: otherwise each of its processes would make it for itself.
collected: .venv/.for-development
	@$(BIN)/python -m pytest --collect-only -qq > .venv/collected.log || { cat .venv/collected.log; exit 1; }

lint: .venv/.for-development
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-logo > .venv/imports.log || { cat .venv/imports.log; exit 1; }
	@$(BIN)/deptry . 2> .venv/deptry.log || { cat .venv/deptry.log; exit 1; }

format: .venv/.for-development
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: .venv/.for-development
	@for bench in tests/bench/[a-z]*.py; do \
		echo "== $$bench"; $(BIN)/python -m tests.bench.$$(basename $$bench .py) || exit 1; done

chaos: .venv/.for-development
	@rm -rf build/chaos
	@$(BIN)/python -m tests.chaos --results build/chaos
	@$(BIN)/python -m tests.chaos --results build/chaos --write

hostile: .venv/.for-development
	@$(BIN)/python -m pytest -q -m 'long or not long' tests/hostile

pictures: .venv/.for-development
	@$(BIN)/python -m tests.pictures

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Fleet needs Python 3.11 or newer; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null \
		|| { echo "$(PYTHON) cannot make virtual environments. On Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	@$(PYTHON) -m venv .venv

.venv/.for-use: pyproject.toml | .venv/bin/pip
	@echo "Installing Fleet into .venv (about half a minute, once) ..."
	@$(PIP) --editable .
	@touch $@

.venv/.for-development: pyproject.toml | .venv/bin/pip
	@echo "Installing Fleet and its development tools into .venv (about a minute, once) ..."
	@$(PIP) --editable '.[dev]'
	@touch $@ .venv/.for-use
