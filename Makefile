# Two commands do everything: `make study` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
PYTHON ?= python3
STUDY ?= studies/pocket.yaml
CELLS ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help study test check book notebooks clean

help:
	@echo "make study                      run the pocket study and build its book"
	@echo "make study STUDY=studies/X.yaml run another study (MAE_DATA names the folder of photographs)"
	@echo "make study PROFILE=slurm        run it on a Slurm cluster (book/rerun.md)"
	@echo "make test                       every test, the notebooks and the strict book build included"
	@echo "make check                      formatting, imports and the quick tests"
	@echo "make book                       build the book from the committed results"
	@echo "make notebooks                  re-execute the committed notebooks with their defaults"
	@echo "make clean                      remove runs/ and the built book (keeps .venv)"

# The stamp appears last, so an interrupted installation is simply done again.
$(READY): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { \
	  echo "make: $(PYTHON): no such program; Python 3.11 to 3.13 is needed, name one with make PYTHON=python3.11" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "make: Python 3.11 to 3.13 is needed, got $$($(PYTHON) --version 2>&1); name one with make PYTHON=python3.11" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "make: Python's venv module is missing; on Debian or Ubuntu: apt-get install python3-venv" >&2; exit 2; }
	@[ -w . ] || { echo "make: $(CURDIR): no write permission" >&2; exit 2; }
	@echo "installing into $(VENV) (once, some minutes)"
	@[ -x $(BIN)/python ] && $(BIN)/python -c 'import pip' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock \
	  || { echo "make: the installation stopped (see above: no network, or a full disk?); run the same command again" >&2; exit 2; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

study: $(READY)
	@$(BIN)/mae study run "$(STUDY)" $(if $(CELLS),--cells "$(CELLS)") $(if $(PROFILE),--profile "$(PROFILE)")

# The lock names no triton: a CUDA build of torch brings its own. A CPU build has none, and the tests
# run the kernels in its interpreter.
TRITON := triton==3.9.0
test: $(READY)
	@$(BIN)/python -c 'import triton' 2>/dev/null \
	  || $(BIN)/python -m pip install --quiet --disable-pip-version-check $(TRITON)
	@$(BIN)/python -m pytest

check: $(READY)
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/lint-imports
	@$(BIN)/python -m pytest -m "not gpu and not pocket"

book: $(READY)
	@$(BIN)/mae study book

notebooks: $(READY)
	@$(BIN)/mae study refresh

clean:
	rm -rf runs _build
