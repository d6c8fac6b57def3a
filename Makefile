# Two commands matter: `make demo` shows the main job, `make test` passes the tests. Both set everything up.
VENV ?= .venv
PY := $(VENV)/bin/python
PYTEST := $(PY) -m pytest
# What drives real kernels and clients may meet a busy machine: once more, told in the summary.
AGAIN := --reruns 1 -rR
export PYTHONDONTWRITEBYTECODE = 1
.DEFAULT_GOAL := help

help:  ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' Makefile

demo: setup  ## build an image from a Dockerfile, run it, look at it; no registry needed
	@tools/demo

test: setup check root system hostile faults  ## everything, root parts included

check: setup  ## format, lint, types, import contracts, dependencies, spelling, unit + property + house tests
	$(VENV)/bin/ruff format --check src tests bench
	$(VENV)/bin/ruff check src tests bench
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/deptry src
	$(VENV)/bin/codespell src tests docs bench tools README.md ARCHITECTURE.md CONTRIBUTING.md Makefile
	$(PYTEST) tests/unit tests/property tests/house -n 2

root: setup  ## tests that need root: mounts, namespaces, cgroups
	$(PYTEST) tests/root $(AGAIN)

system: setup  ## a real engine with real clients
	$(PYTEST) tests/system $(AGAIN)

hostile: setup  ## hostile images and racing processes
	$(PYTEST) tests/hostile $(AGAIN)

faults: setup  ## kill the engine at every failpoint, restart, look for damage
	$(PYTEST) tests/faults $(AGAIN)

compat: setup  ## the suites of docker-py and aiodocker, as their authors wrote them
	@tools/compat docker-py
	@tools/compat aiodocker

bench: setup  ## measure the budgets beside installed peers; writes docs/benchmarks.md
	$(PY) bench/run.py

setup: $(VENV)/.done  ## virtual environment and Debian packages

$(VENV)/.done: pyproject.toml tools/setup
	@tools/setup $(VENV)

clean:  ## remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .hypothesis .import_linter_cache build src/*.egg-info

.PHONY: help demo test check root system hostile faults compat bench setup clean
