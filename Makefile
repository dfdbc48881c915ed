# Everything here needs GNU make and Python 3.11 to 3.14 (with its venv module), no root and no Docker.
# Each target sets up what it needs first, so any of them may be the first command in a fresh clone.

.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
SHELL := bash

VENV := .venv
PYTHON := $(VENV)/bin/python
PIP := $(PYTHON) -m pip --disable-pip-version-check
INSTALLED := $(VENV)/.installed
BUF := node_modules/.bin/buf
BASELINE := protos/baseline.binpb

PRODUCT := adapter_service chassis console gateway intake_service orchestrator_service simulator

# One core each for two workers; a file's tests stay together, since they share their servers.
PARALLEL := -n 2 --dist loadfile

.PHONY: help
help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(INSTALLED) ## Make .venv with every package pinned (does nothing when nothing changed)

# PYTHONWARNINGS: setuptools has a page of warnings for every editable install.
$(INSTALLED): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import pip' 2>/dev/null || { \
	    python=$$(sh tools/find_python.sh) && \
	    echo "Making $(VENV) with $$python" && \
	    "$$python" -m venv --clear $(VENV); }
	@echo "Installing the pinned packages (about a minute, once)"
	@set -o pipefail; $(PIP) install --require-hashes -r requirements/dev.txt | sed -nE \
	    -e 's/^Collecting ([^ ]+).*/  \1/p' -e 's/^Installing collected.*/Unpacking them/p'
	@PYTHONWARNINGS=ignore $(PIP) install --quiet --no-build-isolation --no-deps --editable .
	@touch $@

.PHONY: run
run: setup ## Start the whole hub on this machine (Ctrl-C stops it)
	@$(VENV)/bin/hub up

# The fast tests first: a mistake shows in seconds. The last run attacks one hub and has both cores to itself, since it
# measures how long others are held up.
.PHONY: test
test: unit rules ## Run every test
	@$(PYTHON) -m pytest $(PARALLEL) tests/contract tests/integration
	@$(PYTHON) -m pytest $(PARALLEL) tests/e2e
	@$(PYTHON) -m pytest tests/security

.PHONY: unit
unit: setup ## Run the tests that need no server
	@$(PYTHON) -m pytest tests/unit tests/architecture

# Where promtool is not installed it is taken out of Debian's package; where that fails this says what to install.
.PHONY: rules
rules: setup ## Check the alerts' rules with promtool
	@$(PYTHON) tools/promtool.py check rules deploy/prometheus/hub-alerts.yml

.PHONY: lint
lint: setup protos-check ## Check style, types, contracts and what must not be in the tree
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m mypy
	@$(PYTHON) tools/check_tree.py
	@$(PYTHON) -m bandit --quiet --recursive --configfile pyproject.toml $(PRODUCT)

.PHONY: format
format: setup ## Format the code and sort its imports
	@$(PYTHON) -m ruff check --select I --fix .
	@$(PYTHON) -m ruff format .

# protos/baseline.binpb is the accepted contract. A breaking change is found by comparing with it and not with an earlier
# commit, because a fresh clone of depth 1 has none and a clone of main would be compared with itself. `make protos`
# moves the baseline only after buf has found no break. To break the contract on purpose, delete it and say so in the commit.
.PHONY: protos
protos: setup ## Generate gen/ from protos/ (refuses a breaking change)
	@if ! command -v npm >/dev/null; then \
	    $(PYTHON) tools/protos.py write && \
	    echo "npm NOT FOUND: $(BASELINE) stays as it is; run \`make protos\` again where Node.js is installed" >&2; \
	else \
	    $(MAKE) -s $(BUF) && \
	    { [ ! -f $(BASELINE) ] || $(BUF) breaking --against $(BASELINE) || \
	        { echo "This breaks the contract; to do so on purpose: rm $(BASELINE) && make protos" >&2; exit 1; }; } && \
	    $(PYTHON) tools/protos.py accept; \
	fi

# buf first: it names what broke, where the comparison with the generated files only says that something changed.
.PHONY: protos-check
protos-check: setup ## Fail when gen/ is not what protos/ says, on proto lint and on a breaking change
	@if ! command -v npm >/dev/null; then \
	    echo "npm NOT FOUND: buf lint and buf breaking were NOT run; install Node.js to run them" >&2; \
	else \
	    $(MAKE) -s $(BUF) && $(BUF) lint && $(BUF) breaking --against $(BASELINE); \
	fi
	@$(PYTHON) tools/protos.py check

# buf's binaries are packages of the registry (optional dependencies), so nothing runs at install time.
$(BUF): package.json package-lock.json
	@npm ci --ignore-scripts --loglevel=error
	@touch $@

BENCH_VENV := .cache/bench-venv
BENCH_INSTALLED := $(BENCH_VENV)/.installed

.PHONY: bench
bench: setup $(BENCH_INSTALLED) ## Measure the hub and its peers on this machine; writes docs/benchmarks.md (half an hour)
	@$(PYTHON) -m bench --write

.PHONY: bench-quick
bench-quick: setup $(BENCH_INSTALLED) ## The same in two minutes: short, and only the tuned peers
	@$(PYTHON) -m bench --quick

# The peers live apart: no other target needs them, and their pins cannot meet the hub's.
$(BENCH_INSTALLED): requirements/bench.txt | $(INSTALLED)
	@$(PYTHON) -m venv --clear $(BENCH_VENV)
	@echo "Installing the peers into $(BENCH_VENV) (once)"
	@$(BENCH_VENV)/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes -r requirements/bench.txt
	@touch $@

.PHONY: chaos
chaos: setup ## Kill processes under load and check that no request is lost or doubled
	@$(PYTHON) -m tests.chaos

# The second run needs a package that has wheels for some platforms only; where there is none this says so.
.PHONY: fuzz
fuzz: setup ## Fuzz a whole hub with 100,000 cases, then every parser, guided by coverage (6 minutes)
	@$(PYTHON) -m tests.security.fuzz --cases 100000
	@if $(PIP) install --quiet --only-binary :all: --require-hashes -r requirements/fuzz.txt; then \
	    $(PYTHON) -m tests.security.coverage_fuzz -max_total_time=120 -rss_limit_mb=1024; \
	else \
	    echo "atheris NOT INSTALLED: the fuzzing guided by coverage was NOT run" >&2; \
	fi

# Asks the public index alone, whatever this machine's pip is set to, and writes no address into the files.
LOCK := env -u PIP_FIND_LINKS -u UV_FIND_LINKS -u UV_INDEX -u UV_DEFAULT_INDEX $(VENV)/bin/uv --no-config pip compile \
	--quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
	--no-header --no-annotate

.PHONY: lock
lock: setup ## Write requirements/*.txt anew from pyproject.toml (add UPGRADE=--upgrade for newer versions)
	@$(LOCK) $(UPGRADE) pyproject.toml --output-file requirements/runtime.txt
	@$(LOCK) $(UPGRADE) pyproject.toml --group dev --constraints requirements/runtime.txt \
	    --output-file requirements/dev.txt
	@$(LOCK) $(UPGRADE) --group bench --output-file requirements/bench.txt
	@$(LOCK) $(UPGRADE) --group fuzz --output-file requirements/fuzz.txt

.PHONY: clean
clean: ## Remove what the other targets made (the state of a run, .hub, stays)
	rm -rf $(VENV) .cache node_modules build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
