# Run `make` alone to see what there is. Whatever a target needs, it makes first.
VENV   := .venv
BIN    := $(VENV)/bin
PYTHON ?= python3
DEMO   := $(VENV)/.demo
READY  := $(VENV)/.ready
# one process a core; threads within each would fight over the same cores
PYTEST  = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 8 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help env demo test test-slow test-oldest test-newest coverage bench check format lint types fix hooks clean

help: ## list these targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

demo: $(DEMO) ## explain a drawn cat and dog, with the network in the package (installs the package alone)
	$(BIN)/relume demo --output out

env: $(READY) ## make .venv with all that developers need; every target below does it too

test: $(READY) ## run the tests, which run README, docs and examples too
	$(PYTEST)

test-slow: $(READY) ## run the tests that take longer, each once for each state of the source, and write docs/slow-tests.md
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.slow

coverage: $(READY) ## run the tests and count the lines of src that they run; write the share into CONTRIBUTING.md
	$(PYTEST) --cov --cov-report=term --cov-report=json:out/coverage.json
	$(BIN)/python -m tests.covered out/coverage.json

check: format lint types test ## run everything that CI runs

format: $(READY) ## see whether the code is formatted (`make fix` formats it)
	$(BIN)/ruff format --check .

lint: $(READY) ## run ruff, and import-linter: which room may import which
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-logo

types: $(READY) ## run mypy, strict
	$(BIN)/mypy

fix: $(READY) ## format, and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

hooks: $(READY) ## let git run format, lint and types before each commit, and the tests before each push
	$(BIN)/pre-commit install

bench: $(READY) ## measure time and memory beside Captum, pytorch-grad-cam and zennit (half an hour; QUICK=1: two minutes)
	$(BIN)/python -m benchmarks.performance --output out/bench $(if $(QUICK),--quick)

test-oldest: $(VENV)-oldest/.ready ## run the tests with the oldest versions that relume claims (several GB, not part of CI)
test-newest: $(VENV)-newest/.ready ## run the tests with the newest versions it was tried with (several GB, not part of CI)
test-oldest test-newest:
	OMP_NUM_THREADS=1 $(VENV)-$(@:test-%=%)/bin/python -m pytest -n logical --maxprocesses 8

clean: ## remove the environments and everything generated
	rm -rf $(VENV) $(VENV)-oldest $(VENV)-newest out dist build .coverage* .slow .import_linter_cache
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(DEMO): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable . --constraint constraints.txt
	@touch $@

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]' --constraint constraints.txt
	@touch $(DEMO) $@

$(VENV)-%/.ready: pyproject.toml constraints-%.txt
	$(PYTHON) -m venv $(VENV)-$*
	$(VENV)-$*/bin/python -m pip install --quiet --editable '.[dev]' --constraint constraints-$*.txt
	@touch $@
