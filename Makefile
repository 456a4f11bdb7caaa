# Everything runs from .venv, which the first target that needs it makes. `make help` lists the targets.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo up test test-unit test-integration test-e2e lint fmt audit bench docs revision lock clean

PY := .venv/bin/python
# Set in some containers; then every process would compile every module anew.
export PYTHONDONTWRITEBYTECODE :=
# Runs Python so that the kernel ends it when make is killed, even with -9. Recipes `exec` it: make is then its parent.
BOUND := exec $(PY) -c 'import ctypes, os, sys; sys.platform == "linux" and ctypes.CDLL(None).prctl(1, 9); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])'
PIP := $(BOUND) -m pip install --quiet --quiet --disable-pip-version-check --root-user-action=ignore

help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' Makefile

setup: .venv/.dreamery-dev ## make .venv with everything for running and developing

demo: .venv/.dreamery ## start everything, make pictures and a video with the sandbox, save them in out/, stop everything
	@exec $(PY) -m api.cli.main demo --die-with-parent

up: .venv/.dreamery ## run the platform on port 8000 with its data in ./data, until Ctrl-C
	@exec $(PY) -m api.cli.main up --die-with-parent $(ARGS)

# Four at a time: most tests wait. What shares a platform stays in one process (`tests/support/shared_platforms.py`).
test: lint ## lint, types, layering and the whole test suite
	@$(BOUND) -m pytest -n 4 --dist loadfile $(ARGS)

test-unit: .venv/.dreamery-dev ## the quick tests
	@$(BOUND) -m pytest tests/unit tests/shape $(ARGS)

test-integration: .venv/.dreamery-dev ## tests with real Postgres, Redis and sandbox
	@$(BOUND) -m pytest tests/integration $(ARGS)

test-e2e: .venv/.dreamery-dev ## tests of the whole platform as processes
	@$(BOUND) -m pytest tests/e2e $(ARGS)

lint: .venv/.dreamery-dev ## ruff, mypy, import-linter
	@$(PY) -m ruff check .
	@$(PY) -m mypy
	@PATH=".venv/bin:$$PATH" lint-imports

fmt: .venv/.dreamery-dev ## repair and format the code
	@$(PY) -m ruff check --fix-only .
	@$(PY) -m ruff format .

# The list of known holes is on the net. A package it does not know counts as a failure, not as a pass (--strict).
audit: .venv/.dreamery-dev ## look for packages with known security holes (needs the internet)
	@$(PY) -m pip check
	@$(PY) -m pip_audit --strict --disable-pip --require-hashes --progress-spinner off -r requirements.lock || { \
		echo 'The audit did not pass: a package above has a known hole (make lock takes newer versions), or the list of' >&2; \
		echo 'known holes cannot be reached from here, and then nothing is known. The lint (make lint) has the S rules.' >&2; \
		exit 1; \
	}

bench: .venv/.dreamery-dev ## measure a fresh platform; ARGS=--json for scripts
	@$(BOUND) -m tests.bench $(ARGS)

revision: .venv/.dreamery-dev ## draft a migration from the tables: make revision m="add a column" (DREAMERY_DATABASE_URL set)
	@test -n "$(m)" || { echo 'Say what changes: make revision m="add a column"' >&2; exit 2; }
	@$(PY) -m alembic revision --autogenerate -m "$(m)"

docs: .venv/.dreamery-dev ## make docs/configuration.md anew from the settings class
	@$(PY) -m api.cli.main doctor --settings --markdown >docs/configuration.md

lock: ## pin every package anew from pyproject.toml (needs uv)
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-annotate --no-header -q pyproject.toml \
		--extra build --extra otel -o requirements.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-annotate --no-header -q pyproject.toml \
		--extra build --extra otel --extra dev -o requirements-dev.lock

clean: ## remove .venv and caches; data/ and out/ stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build *.egg-info

# Stamps: a repeated run costs nothing, a changed lock file installs anew.
.venv/.made:
	@python=; \
	for name in $(or $(PYTHON),python3.11 python3.12 python3.13 python3 python); do \
		if "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then python=$$name; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
		echo 'Dreamery needs Python 3.11 or newer, and none was found. Install it, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3' >&2; \
		exit 1; \
	fi; \
	"$$python" -m venv .venv >.venv-log 2>&1 || { \
		cat .venv-log >&2; rm -f .venv-log; \
		echo "$$python cannot make a virtual environment. On Debian and Ubuntu: apt-get install python3-venv" >&2; \
		exit 1; \
	}; \
	rm -f .venv-log; touch $@

.venv/.packages: .venv/.made requirements.lock
	@echo 'Installing packages into .venv (the first time only, about a minute) ...'
	@$(PIP) --require-hashes -r requirements.lock
	@touch $@

# Not compiled: Python compiles what is used at its first use, and most of it never is.
.venv/.packages-dev: .venv/.packages requirements-dev.lock
	@echo 'Installing the tools for tests and lint into .venv ...'
	@$(PIP) --no-compile --require-hashes -r requirements-dev.lock
	@touch $@

.venv/.dreamery: .venv/.packages pyproject.toml
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

.venv/.dreamery-dev: .venv/.packages-dev .venv/.dreamery
	@touch $@
