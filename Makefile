PYTHON ?= python3
PROMPT ?= a red circle moving left

BIN := .venv/bin
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2
INSTALLED := .venv/.installed

# Taken as it was typed and handed over in the environment, so that quotes and dollar signs reach the program untouched.
export DEMO_PROMPT := $(value PROMPT)
unexport PROMPT

.DEFAULT_GOAL := help
.PHONY: help demo serve test test-avx2 test-slow check bench docs clean

help:  ## Show this list.
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1	/p' Makefile | expand -t 12

demo: $(INSTALLED)  ## Make a video of PROMPT="..." with the shipped model: demo.mp4.
	$(BIN)/muybridge generate -o demo.mp4 -- "$$DEMO_PROMPT"

serve: $(INSTALLED)  ## Serve videos of the shipped models, with a page at http://127.0.0.1:7860.
	$(BIN)/muybridge serve

# One thread a worker: two workers of several threads each would fight for the same cores.
test: $(INSTALLED)  ## Run the tests, in some minutes.
	$(PYTEST) -m "not slow"

# Processors differ, and one with AVX-512 hides what happens on one without. The two variables bound what torch and
# oneDNN may use; where there is no more than that they change nothing.
test-avx2: $(INSTALLED)  ## Run the tests of the numbers as on a processor without AVX-512.
	ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 $(PYTEST) -m "not slow" tests/unit tests/golden tests/property

test-slow: $(INSTALLED)  ## Run the tests that take minutes: compilation, real widths, several processes, quality.
	$(PYTEST) -m slow

check: $(INSTALLED)  ## Run the linter, the formatter, the type checker, the import rules and the build of the docs.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright
	$(BIN)/lint-imports --no-logo --no-cache
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: $(INSTALLED)  ## Compare the speed with what a user would pick instead.
	$(BIN)/python benchmarks/unet.py

docs: $(INSTALLED)  ## Build the documentation into site/.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:  ## Remove the environment and everything built.
	rm -rf .venv build dist site src/muybridge.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache demo.mp4

# torch goes first and alone: where a build of it without CUDA can be had under the same version, that one is taken, and
# the second command keeps it. A build of your own choice, put into .venv before, is kept as well.
$(INSTALLED): pyproject.toml src/muybridge/constraints.txt
	@command -v $(PYTHON) >/dev/null || \
		{ echo "There is no '$(PYTHON)' here. Install Python 3.11 or newer, or name one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$$($(PYTHON) --version) is too old; 3.11 or newer is needed. Name another one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "$(PYTHON) cannot make environments. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c src/muybridge/constraints.txt torch
	$(BIN)/python -m pip install -c src/muybridge/constraints.txt -e '.[dev]'
	@touch $@
