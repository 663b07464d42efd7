# Run `make` alone to see what there is.
VENV   := .venv
BIN    := $(VENV)/bin
PYTHON ?= python3
READY  := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help env demo test test-oldest test-newest bench check format lint types fix clean

help: ## list these targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

env: $(READY) ## make the environment in .venv (every other target does it too)
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]' --constraint constraints.txt
	@touch $(READY)

demo: $(READY) ## explain a drawn cat and dog, with the network in the package
	$(BIN)/relume demo --output out

test: $(READY) ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 8

test-oldest: $(VENV)-oldest/.ready ## run the tests with the oldest versions that relume claims (several GB, not part of CI)
	OMP_NUM_THREADS=1 $(VENV)-oldest/bin/python -m pytest -n logical --maxprocesses 8

test-newest: $(VENV)-newest/.ready ## run the tests with the newest versions it was tried with (several GB, not part of CI)
	OMP_NUM_THREADS=1 $(VENV)-newest/bin/python -m pytest -n logical --maxprocesses 8

$(VENV)-%/.ready: pyproject.toml constraints-%.txt
	$(PYTHON) -m venv $(VENV)-$*
	$(VENV)-$*/bin/python -m pip install --quiet --editable '.[dev]' --constraint constraints-$*.txt
	@touch $@

bench: $(READY) ## time and memory beside Captum, pytorch-grad-cam and zennit (half an hour; QUICK=1: two minutes)
	$(BIN)/python -m benchmarks.performance --output out/bench $(if $(QUICK),--quick)

check: format lint types test ## everything that CI runs: format, lint, types, tests (which execute README and docs)

format: $(READY) ## is the code formatted? (`make fix` formats it)
	$(BIN)/ruff format --check .

lint: $(READY) ## ruff
	$(BIN)/ruff check .

types: $(READY) ## mypy, strict
	$(BIN)/mypy

fix: $(READY) ## format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove the environment and everything generated
	rm -rf $(VENV) $(VENV)-oldest $(VENV)-newest out .pytest_cache .mypy_cache .ruff_cache .hypothesis dist build
