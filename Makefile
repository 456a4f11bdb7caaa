# All targets use .venv and create it when needed. `make help` lists the targets.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo up test test-unit test-integration test-e2e test-ops test-hosts test-clients image-test lint fmt audit audit-update sbom licences bench chaos soak mutants docs revision lock vendor clean

PY := .venv/bin/python
# Some containers set this variable; every process would then compile every module again.
export PYTHONDONTWRITEBYTECODE :=
# Runs Python so that the kernel ends it when make is killed, even with -9. Recipes `exec` it, so make is its parent.
BOUND := exec $(PY) -c 'import ctypes, os, sys; sys.platform == "linux" and ctypes.CDLL(None).prctl(1, 9); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])'
PIP := $(BOUND) -m pip install --quiet --quiet --disable-pip-version-check --root-user-action=ignore

help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' Makefile

setup: .venv/.dreamery-dev ## create .venv with everything for running and development

demo: .venv/.dreamery ## start a temporary platform, generate images and a video with the sandbox, save them in out/
	@exec $(PY) -m api.cli.main demo --die-with-parent

up: .venv/.dreamery ## run the platform on port 8000 with data in ./data until Ctrl-C
	@exec $(PY) -m api.cli.main up --die-with-parent $(ARGS)

# Four processes, because most tests wait. Tests that share a platform run in one process:
# `tests/support/shared_platforms.py`.
test: lint ## lint, types, import contracts and all tests
	@$(BOUND) -m pytest -n 4 --dist loadfile $(ARGS)

test-unit: .venv/.dreamery-dev ## fast tests without servers
	@$(BOUND) -m pytest tests/unit tests/shape $(ARGS)

test-integration: .venv/.dreamery-dev ## tests with real Postgres, Redis and sandbox
	@$(BOUND) -m pytest tests/integration $(ARGS)

test-e2e: .venv/.dreamery-dev ## tests of the whole platform as processes
	@$(BOUND) -m pytest tests/e2e $(ARGS)

# What is missing and cannot be installed is skipped, with the reason.
test-ops: .venv/.dreamery-dev ## tests with PgBouncer, nginx, Redis, firewalls and full disks (root installs them with apt-get)
	@$(PY) -m tests.ops.debian_packages
	@$(BOUND) -m pytest tests/ops --ignore=tests/ops/hosts -n 4 --dist loadfile --session-timeout=900 $(ARGS)

# Not in the gate, because it takes minutes. It prints the figures of docs/deployment.md.
test-hosts: .venv/.dreamery-dev ## ten hosts in network namespaces: each kind is cut off, slow, and back (root; 5 minutes)
	@$(PY) -m tests.ops.debian_packages
	@$(BOUND) -m pytest tests/ops/hosts -s -p no:randomly $(ARGS)

test-clients: .venv/.dreamery-dev ## Open WebUI, unmodified, in Chromium (installs several gigabytes below .venv the first time)
	@TEST_CLIENTS=1 $(BOUND) -m pytest tests/clients -p no:randomly $(ARGS)

# As root, on Debian: apt-get install --no-install-recommends buildah debootstrap
image-test: .venv/.dreamery-dev ## build both images without Docker, run every role from them (root, buildah, debootstrap; ten minutes)
	@$(BOUND) -m tests.images $(ARGS)

lint: .venv/.dreamery-dev ## ruff, mypy, import-linter
	@$(PY) -m ruff check .
	@$(PY) -m mypy
	@PATH=".venv/bin:$$PATH" lint-imports

fmt: .venv/.dreamery-dev ## fix and format the code
	@$(PY) -m ruff check --fix-only .
	@$(PY) -m ruff format .

# The snapshot names its day. A package that it does not know counts as a failure.
audit: .venv/.dreamery-dev ## check all packages for known vulnerabilities, offline, with the snapshot of advisories
	@$(PY) -m pip check
	@$(PY) -m deploy.supply_chain.audit check

audit-update: .venv/.dreamery-dev ## take the snapshot of advisories again (needs internet access), then check
	@$(PY) -m deploy.supply_chain.audit update $(ARGS)

sbom: .venv/.dreamery-dev ## write the parts of the image as CycloneDX JSON to out/; ARGS="--rootfs FOLDER" adds Debian's packages
	@$(PY) -m deploy.supply_chain.sbom $(ARGS)

licences: .venv/.dreamery-dev ## regenerate docs/licences.md from the lock file and the vendored packages
	@$(PY) -m deploy.supply_chain.licences

bench: .venv/.dreamery-dev ## benchmark a fresh platform; ARGS=--json for scripts
	@$(BOUND) -m tests.bench $(ARGS)

mutants: .venv/.dreamery-dev ## plant faults in a copy of the tree and tell which ones the tests notice (half an hour)
	@$(BOUND) -m tests.mutants $(ARGS)

chaos: .venv/.dreamery-dev ## break a platform in five ways under two loads: what is lost, paid twice, how long it pauses; ARGS=--quick
	@$(BOUND) -m tests.chaos $(ARGS)

soak: .venv/.dreamery-dev ## a constant load for ARGS="--minutes 30"; nothing may grow
	@$(BOUND) -m tests.soak $(ARGS)

revision: .venv/.dreamery-dev ## draft a migration from the tables: make revision m="add a column" (DREAMERY_DATABASE_URL set)
	@test -n "$(m)" || { echo 'Describe the change: make revision m="add a column"' >&2; exit 2; }
	@$(PY) -m alembic revision --autogenerate -m "$(m)"

docs: .venv/.dreamery-dev ## regenerate docs/configuration.md from the settings class
	@$(PY) -m api.cli.main doctor --settings --markdown >docs/configuration.md

lock: ## pin all packages of pyproject.toml again (needs uv)
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-annotate --no-header -q pyproject.toml \
		--extra build --extra otel -o requirements.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-annotate --no-header -q pyproject.toml \
		--extra build --extra otel --extra dev -o requirements-dev.lock

vendor: ## copy the console's libraries from their npm packages again (needs Node 20 and npm; users do not)
	@command -v npm >/dev/null || { echo 'make vendor needs Node 20 or newer with npm. The libraries in the repository need neither.' >&2; exit 1; }
	@node deploy/vendor/vendor.mjs

clean: ## remove .venv and caches; keep data/ and out/
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build *.egg-info

# Stamp files: a repeated run does nothing, a changed lock file installs again.
.venv/.made:
	@python=; \
	for name in $(or $(PYTHON),python3.11 python3.12 python3.13 python3 python); do \
		if "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then python=$$name; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
		echo 'Dreamery needs Python 3.11 or newer, and none was found. Install it, or name its path: make $(MAKECMDGOALS) PYTHON=/path/to/python3' >&2; \
		exit 1; \
	fi; \
	"$$python" -m venv .venv >.venv-log 2>&1 || { \
		cat .venv-log >&2; rm -f .venv-log; \
		echo "$$python cannot create a virtual environment. On Debian and Ubuntu: apt-get install python3-venv" >&2; \
		exit 1; \
	}; \
	rm -f .venv-log; touch $@

.venv/.packages: .venv/.made requirements.lock
	@echo 'Installing packages into .venv (the first time only, about a minute) ...'
	@$(PIP) --require-hashes -r requirements.lock
	@touch $@

# Not compiled: Python compiles modules at first use, and most of these are never used.
.venv/.packages-dev: .venv/.packages requirements-dev.lock
	@echo 'Installing the tools for tests and lint into .venv ...'
	@$(PIP) --no-compile --require-hashes -r requirements-dev.lock
	@touch $@

.venv/.dreamery: .venv/.packages pyproject.toml
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

.venv/.dreamery-dev: .venv/.packages-dev .venv/.dreamery
	@touch $@
