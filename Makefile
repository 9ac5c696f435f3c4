# `make repro` and `make test` each work alone on a fresh machine with Python 3.11, git and make.
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# A machine with an NVIDIA GPU gets the extra `gpu` (onnxruntime-gpu), any other `cpu`: never both in one environment.
EXTRA ?= $(shell nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu)
# Another wheel index for torch and torchvision, such as PyTorch's own CPU wheels.
TORCH_INDEX ?=
TORCH := torch==2.13.0 torchvision==0.28.0

# Two spinning threads on a busy machine are 20 times slower than one.
export OMP_WAIT_POLICY := PASSIVE
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help install repro test test-all lint format recipe recipes readme clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(VENV)/.installed  ## create .venv with everything pinned in pyproject.toml

$(VENV)/.installed: pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) not found; install Python 3.11 or set PYTHON=/path/to/python3.11" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH)
	$(BIN)/python -m pip install --quiet --editable '.[$(EXTRA),dev]'
	touch $@

repro: install  ## run the pipeline on the dataset that params.yaml names
	@python -m pipeline.commands.validate
	dvc repro

test: install  ## the quick test suite
	OMP_NUM_THREADS=1 python -m pytest -m 'not slow'

test-all: install  ## every test
	OMP_NUM_THREADS=1 python -m pytest

lint: install  ## ruff, mypy --strict, import-linter
	ruff check .
	ruff format --check .
	mypy
	lint-imports

format: install  ## format the code
	ruff check --fix .
	ruff format .

recipe: install  ## merge recipes/NAME.yaml into params.yaml: make recipe NAME=camvid-cpu
	@python -m export.commands.recipe apply $(if $(NAME),$(NAME),$(error NAME is missing: make recipe NAME=..., see make recipes))

recipes: install  ## list the recipes
	@python -m export.commands.recipe list

readme: install  ## write README's results block from reports/report.json
	@python -m export.commands.readme

clean:  ## remove what the pipeline made (not .venv, not DVC's cache)
	rm -rf artifacts reports runs data predictions
