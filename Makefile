# carelake: `make` lists the targets. Each sets up what it needs by itself, in a folder of its own ($(VENV)).
#   make PYTHON=/path/to/python3.12 ...   takes that Python      make VENV=../env ...   another environment
#   make test T="tests/vault -k tamper"   passes arguments on to pytest

VENV ?= .venv
PYTHON ?=
WORKERS ?= 2
T ?=
UV_VERSION := 0.13.9

BIN := $(VENV)/bin
UV := $(BIN)/uv
SOURCES := src tests tools $(wildcard bench)
ABOUT_MAKE := $(firstword $(MAKEFILE_LIST))
# In CI a skipped test is a failure; elsewhere it is a part that this machine lacks.
STRICT := $(if $(filter true,$(CI)),-p strict_skips)
PYTEST := PYTHONPATH=tools $(BIN)/python -m pytest $(STRICT)
LOCK := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-header --no-annotate

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test unit slow soak bench lint format types layers docs lock clean

help: ## List the targets
	@echo "carelake: raw clinical data to a governed, monitored prediction"
	@echo
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(ABOUT_MAKE)

demo: $(VENV)/.run ## Run the whole loop on a synthetic hospital (about a minute after set-up)
	@$(BIN)/carelake demo

test: lint types layers $(VENV)/.system ## Everything that must pass: lint, types, layers, all tests but the soak
	$(PYTEST) -n $(WORKERS) --dist worksteal -m "not soak" $(T)

unit: $(VENV)/.dev ## The quick tests only, for use while writing
	$(PYTEST) -n $(WORKERS) --dist worksteal -m "not slow and not soak" $(T)

slow: $(VENV)/.dev ## The slow tests only
	$(PYTEST) -n $(WORKERS) --dist worksteal -m "slow and not soak" $(T)

soak: $(VENV)/.dev ## The long drills: kill -9, full disks, hours of load
	$(PYTEST) -m soak $(T) || test $$? -eq 5

bench: $(VENV)/.dev ## The measurements, one after another; their results go to bench/results
	@set -e; for script in bench/[a-z]*.py; do \
		if [ -f "$$script" ]; then echo "== $$script"; $(BIN)/python "$$script"; fi; done

lint: $(VENV)/.dev ## Style and formatting (ruff)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)

format: $(VENV)/.dev ## Put the code in order
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

types: $(VENV)/.dev ## mypy --strict
	$(BIN)/mypy

layers: $(VENV)/.dev ## The law of imports (import-linter)
	$(BIN)/lint-imports --no-cache

docs: $(VENV)/.dev ## Write the generated pages again: docs/errors.md and docs/cli.md
	$(BIN)/python tools/write_errors.py
	$(BIN)/python tools/write_cli.py
	$(BIN)/python tools/write_aws.py
	$(BIN)/python tools/write_access.py

lock: $(VENV)/.dev ## Resolve the dependencies again; the locks hold versions and hashes, no addresses
	@# The larger set first: what the tests run beside may hold back what carelake itself runs on.
	$(LOCK) --upgrade pyproject.toml --extra dev --output-file requirements-dev.lock
	$(LOCK) --upgrade pyproject.toml --constraints requirements-dev.lock --output-file requirements.lock

clean: ## Remove the environment, caches and the demo's workspace
	rm -rf $(VENV) demo-workspace build dist .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find $(wildcard $(SOURCES)) -name __pycache__ -type d -prune -exec rm -rf {} +

# --- environments: each is a stamp file, so that a second run costs nothing ---

# An environment knows its own path: one that was moved or copied along with its clone is made anew.
PLACE := $(CURDIR) $(VENV)
ifneq ($(shell cat $(VENV)/.made 2>/dev/null),$(PLACE))
$(VENV)/.made: moved
endif
.PHONY: moved

$(VENV)/.made: tools/find_python.sh tools/check_machine.py
	@python="$$(PYTHON='$(PYTHON)' sh tools/find_python.sh)" && "$$python" tools/check_machine.py && \
		echo "Making $(VENV) with $$("$$python" --version)" && \
		"$$python" -m venv --clear $(VENV) && \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION) && \
		echo '$(PLACE)' > $@

$(VENV)/.run: $(VENV)/.made requirements.lock pyproject.toml
	@# Where the tests' needs are too, they stay: the larger set is brought up to date.
	@if [ -f $(VENV)/.dev ]; then $(MAKE) --no-print-directory $(VENV)/.dev; else \
		echo "Installing what carelake runs on (first time only)" && \
		$(UV) pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements.lock && \
		$(UV) pip install --quiet --python $(BIN)/python --no-deps --editable . && \
		touch $@; fi

$(VENV)/.system: $(VENV)/.dev tools/install_system.sh
	@sh tools/install_system.sh chromium redis-server bwrap=bubblewrap libseccomp.so.2=libseccomp2
	@touch $@

# The second stamp too: what the tests need holds all that running needs, in the same versions.
$(VENV)/.dev: $(VENV)/.made requirements.lock requirements-dev.lock requirements-build.lock pyproject.toml
	@echo "Installing what the tests need (first time only)"
	@$(UV) pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements-dev.lock
	@# Read as a file by tools/compile_r4.py; what it would run on is not wanted.
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --require-hashes -r requirements-build.lock
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $(VENV)/.run $@
