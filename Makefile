# Needs Python 3.11 or newer, git and make; everything else is installed into .venv.
#
#   make PYTHON=python3.13 test     with another Python (after `make clean`)
#   make test ARGS="-k order"       with arguments for pytest

PYTHON ?= python3
VENV ?= .venv
ARGS ?=

BIN := $(VENV)/bin
READY := $(VENV)/.ready
CHECK_READY := $(VENV)/.check-ready
BENCH_READY := $(VENV)/.bench-ready

EVIDENCE := docs/evidence
MEASURE := $(BIN)/python -m benchmarks
# After each: should a later one fail, no figures stand beside pages of older ones.
AND_REPORT = ; status=$$?; $(MEASURE) report >/dev/null && exit $$status

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help venv demo test faults cover check format bench evidence clean

help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

venv: $(READY) ## set up .venv, which every other target does by itself

demo: $(READY) ## show what tbus does, on this machine alone
	@$(BIN)/tbus demo $(ARGS)

test: $(READY) ## run all tests; those of a broker that is missing are skipped
	@$(BIN)/python -m pytest $(ARGS)

faults: $(READY) ## break brokers in every way, and check what holds (at most 15 minutes)
	@$(BIN)/python -m tests.faults $(ARGS)

cover: $(READY) ## run all tests and show which lines and branches they did not reach
	@$(BIN)/coverage run -m pytest $(ARGS)
	@$(BIN)/coverage report

check: $(CHECK_READY) ## lint, format, types, and which module may import which
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/flake8 src tests
	@$(BIN)/mypy --strict --no-error-summary
	@$(BIN)/lint-imports

format: $(CHECK_READY) ## format the code, and mend what ruff can mend safely
	@$(BIN)/ruff check --quiet --fix .
	@$(BIN)/ruff format --quiet .

bench: $(BENCH_READY) ## measure tbus beside its peers, and print it (about forty minutes)
	@$(BIN)/python -m benchmarks $(or $(ARGS),all)

evidence: $(BENCH_READY) ## measure the figures of docs/evidence, and make its pages (about 90 minutes)
	$(MEASURE) versus-nats memory memory-waiting fairness tasks --json $(EVIDENCE)/benchmarks.json $(AND_REPORT)
	$(MEASURE) kafka-publish kafka-pipeline kafka-consume kafka-publish-pinned kafka-consume-pinned --json $(EVIDENCE)/kafka.json $(AND_REPORT)
	$(MEASURE) kafka-handlers --json $(EVIDENCE)/kafka-handlers.json $(AND_REPORT)
	$(MEASURE) kafka-kills kafka-loops --json $(EVIDENCE)/kafka-kills.json $(AND_REPORT)
	$(MEASURE) nats-owner-1 nats-owner-12 nats-owner-idle --json $(EVIDENCE)/owners.json $(AND_REPORT)
	$(MEASURE) pressure --rounds 1 --million --json $(EVIDENCE)/pressure.json $(AND_REPORT)
	$(MEASURE) scale --rounds 1 --json $(EVIDENCE)/scale.json $(AND_REPORT)
	$(MEASURE) leaks --cycles 1000 --json $(EVIDENCE)/leaks.json $(AND_REPORT)

clean: ## remove .venv and everything that was built
	rm -rf $(VENV) build dist site htmlcov .coverage .coverage.* .hypothesis \
		.import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find src tests benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo 'tbus needs Python 3.11 or newer, and $(PYTHON) is none:' \
			'say which with "make PYTHON=python3.13 ..."' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo '$(PYTHON) cannot make a virtual environment with pip in it: install the rest of it' \
			'(on Debian and Ubuntu: apt-get install python3-venv; on others: python3-pip)' >&2; exit 1; }
	@echo 'setting up $(VENV) (once)'
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)

$(READY): pyproject.toml | $(BIN)/python
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[all]'
	@touch $@

$(CHECK_READY): $(READY)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

$(BENCH_READY): $(READY)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@touch $@
