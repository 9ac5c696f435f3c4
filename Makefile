# `make repro` and `make test` each work alone on a fresh machine with Python 3.11, 3.12 or 3.13, git and make.
SHELL := /bin/bash
PYTHON ?= $(firstword $(foreach version,3.11 3.12 3.13,$(shell command -v python$(version))))
VENV := .venv
BIN := $(VENV)/bin
# A machine with an NVIDIA GPU gets the extra `gpu` (onnxruntime-gpu), any other `cpu`: never both in one environment.
# More with commas: make install EXTRA=gpu,tensorrt. What was installed last stays the choice of every other target.
RUNTIME = $(shell nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu)
INSTALLED := $(shell cat $(VENV)/.installed 2>/dev/null)
EXTRA ?= $(or $(INSTALLED),$(RUNTIME))
comma := ,
EXTRAS := $(subst $(comma), ,$(EXTRA))
EXTRAS := $(if $(filter cpu gpu,$(EXTRAS)),,$(RUNTIME)) $(EXTRAS)
# The two ONNX Runtimes overwrite each other; TensorRT is on an index of NVIDIA's.
OTHER_RUNTIME := $(if $(filter gpu,$(EXTRAS)),onnxruntime,onnxruntime-gpu)
TENSORRT_INDEX := $(if $(filter tensorrt,$(EXTRAS)),--extra-index-url https://pypi.nvidia.com)
# Another wheel index for torch and torchvision, such as PyTorch's own CPU wheels: the same versions, built without CUDA.
TORCH_INDEX ?=
# What the lock covers: everything but the extra `tensorrt`, which is on NVIDIA's own index.
LOCKED := $(foreach extra,cpu gpu tensorrt-rtx server triton bulk dev,--extra $(extra))
UV := uv==0.13.9
# Further arguments of pytest: make test PYTEST='--cov'
PYTEST ?=

# Two spinning threads on a busy machine are 20 times slower than one.
export OMP_WAIT_POLICY := PASSIVE
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help install formats bulk docs rivals peers lock repro demo demo-engine test test-all lint format recipe recipes sweep study study-power study-figures wheel-serving readme clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# From another index torch and torchvision come alone and first: it need not have what they need.
install: $(VENV)/.installed  ## create .venv with the versions of constraints.txt

$(VENV)/.installed: pyproject.toml constraints.txt $(if $(INSTALLED),$(if $(filter-out $(INSTALLED),$(EXTRA)),FORCE))
	@command -v "$(PYTHON)" >/dev/null || { echo "error: no Python 3.11, 3.12 or 3.13 found; install one or set PYTHON=/path/to/python3.11" >&2; exit 2; }
	"$(PYTHON)" -m venv $(VENV)
	$(if $(TORCH_INDEX),$(BIN)/python -m pip install --quiet --no-deps --index-url $(TORCH_INDEX) --constraint constraints.txt torch torchvision)
	-@$(BIN)/python -m pip uninstall --quiet --yes $(OTHER_RUNTIME) 2>/dev/null
	$(BIN)/python -m pip install --quiet $(TENSORRT_INDEX) --constraint constraints.txt --editable '.[$(foreach extra,$(EXTRAS),$(extra),)server,triton,dev]'
	$(if $(filter gpu,$(EXTRAS)),@$(MAKE) --no-print-directory gpu-seen VENV="$(VENV)")
	echo $(EXTRA) > $@

# A driver older than the CUDA that torch was built for leaves torch on the CPU, with a warning at most.
gpu-seen:
	@nvidia-smi >/dev/null 2>&1 || exit 0; $(BIN)/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || { \
	  echo "error: nvidia-smi works (driver $$(nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -n 1)), but torch" \
	  "$$($(BIN)/python -c 'import torch; print(torch.__version__, "for CUDA", torch.version.cuda)') sees no GPU: CUDA 13 needs driver 580" \
	  "or later; update the driver, give TORCH_INDEX the wheels of an older CUDA, or train on the CPU knowingly: make install EXTRA=cpu" >&2; exit 2; }

FORCE:

# Its requirements name everything, so that pip resolves nothing.
formats: .formats/.installed  ## create .formats, in which `contrail import` reads the exports of labelling tools

.formats/.installed: pipeline/data/importing/requirements.txt
	@command -v "$(PYTHON)" >/dev/null || { echo "error: no Python 3.11, 3.12 or 3.13 found; install one or set PYTHON=/path/to/python3.11" >&2; exit 2; }
	"$(PYTHON)" -m venv .formats
	.formats/bin/python -m pip install --quiet --no-deps --requirement $<
	.formats/bin/python -m pip check
	touch $@

# 700 MB, beside ONNX Runtime and nothing of the training side.
bulk: .bulk/.installed  ## create .bulk, in which `contrail bulk` runs on Ray Data

.bulk/.installed: pyproject.toml constraints.txt
	@command -v "$(PYTHON)" >/dev/null || { echo "error: no Python 3.11, 3.12 or 3.13 found; install one or set PYTHON=/path/to/python3.11" >&2; exit 2; }
	"$(PYTHON)" -m venv .bulk
	.bulk/bin/python -m pip install --quiet --constraint constraints.txt 'ray[data]' onnxruntime numpy pillow
	.bulk/bin/python -m pip install --quiet --no-deps --editable .
	touch $@

# What `python -m benchmarks.server` measures beside ours. Its requirements name everything, so that pip resolves nothing.
rivals: .rivals/.installed  ## create .rivals, in which other servers run beside ours in benchmarks.server

.rivals/.installed: benchmarks/server/requirements.txt
	@command -v "$(PYTHON)" >/dev/null || { echo "error: no Python 3.11, 3.12 or 3.13 found; install one or set PYTHON=/path/to/python3.11" >&2; exit 2; }
	"$(PYTHON)" -m venv .rivals
	.rivals/bin/python -m pip install --quiet --no-deps --requirement $<
	.rivals/bin/python -m pip check
	touch $@

# What `python -m benchmarks.peers` measures beside ours, each in an environment of its own but for PyTorch, which they share.
PEERS = ultralytics segmentation_models dfine_segmentation geti_library polygraphy

peers: .peers/.installed  ## create .peers, in which other tools run beside ours in benchmarks.peers (8 GB)

.peers/.installed: $(wildcard benchmarks/peers/requirements/*.txt)
	@command -v "$(PYTHON)" >/dev/null || { echo "error: no Python 3.11, 3.12 or 3.13 found; install one or set PYTHON=/path/to/python3.11" >&2; exit 2; }
	for name in pytorch $(PEERS); do \
	    "$(PYTHON)" -m venv .peers/$$name && \
	    .peers/$$name/bin/python -m pip install --quiet --no-deps --requirement benchmarks/peers/requirements/$$name.txt || exit; \
	done
	for name in $(filter-out polygraphy,$(PEERS)); do \
	    realpath .peers/pytorch/lib/python*/site-packages > "$$(echo .peers/$$name/lib/python*/site-packages)/pytorch.pth"; \
	done
	touch $@

# Likewise; the site itself is built without a network.
docs: .docs/.installed  ## build the documentation as a site, build/site/index.html
	.docs/bin/python docs/site/stage.py build/docs
	.docs/bin/python -m mkdocs --quiet build --strict --config-file docs/site/mkdocs.yml

.docs/.installed: docs/site/requirements.txt
	@command -v "$(PYTHON)" >/dev/null || { echo "error: no Python 3.11, 3.12 or 3.13 found; install one or set PYTHON=/path/to/python3.11" >&2; exit 2; }
	"$(PYTHON)" -m venv .docs
	.docs/bin/python -m pip install --quiet --no-deps --requirement $<
	.docs/bin/python -m pip check
	touch $@

lock:  ## write constraints.txt anew from the ranges of pyproject.toml: make lock [UPGRADE=1]
	"$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(UV)
	UV_CUSTOM_COMPILE_COMMAND="make lock" uv pip compile --quiet pyproject.toml --universal --python-version 3.11 \
	  $(LOCKED) --annotation-style line --output-file constraints.txt $(if $(UPGRADE),--upgrade)

repro: install  ## run the pipeline on the dataset that params.yaml names
	@python -m pipeline.commands.validate
	dvc repro

demo: install  ## segment three images with the trained engine of examples/demo: no training
	python -m serving.infer examples/demo/images --engine examples/demo/model.onnx --output predictions/demo --overlay --legend

# One artefact of the default run, and what it is made of: with other params.yaml, data or code it is another engine.
DEMO := examples/demo
demo-engine: install  ## train, export and quantise the engine of examples/demo anew
	dvc repro export@pixel_contrast-s0-onnx_int8_u8
	mkdir -p $(DEMO)/golden $(DEMO)/images
	cp artifacts/pixel_contrast-s0/onnx_int8_u8/{model.onnx,manifest.json} $(DEMO)/
	cp artifacts/pixel_contrast-s0/onnx_int8_u8/golden/golden.{json,npz} $(DEMO)/golden/
	cp data/prepared/streets/test/images/00000{0,1,2}.png $(DEMO)/images/
	cd $(DEMO) && sha256sum model.onnx manifest.json golden/golden.{json,npz} images/*.png > SHA256SUMS

test: install  ## the quick test suite
	OMP_NUM_THREADS=1 python -m pytest -m 'not slow' -n 2 --dist loadfile $(PYTEST)

test-all: install  ## every test
	OMP_NUM_THREADS=1 python -m pytest $(PYTEST)

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

sweep: install  ## train methods with several seeds, or go on with it: make sweep METHODS="cross_entropy pixel_contrast" SEEDS="0 1 2"
	@python -m export.commands.sweep --methods $(if $(METHODS),$(METHODS),$(error METHODS is missing: make sweep METHODS="cross_entropy pixel_contrast" SEEDS="0 1 2")) \
	  --seeds $(if $(SEEDS),$(SEEDS),$(error SEEDS is missing: make sweep METHODS="cross_entropy pixel_contrast" SEEDS="0 1 2"))

study: install  ## run the experiment studies/NAME.yaml, or go on with it: make study NAME=e3 [PAIRS=2]
	OMP_NUM_THREADS=1 python -m studies.run $(if $(NAME),$(NAME),$(error NAME is missing: make study NAME=..., see docs/results/protocol.md)) $(if $(PAIRS),--pairs $(PAIRS))

study-power: install  ## say how small an effect pairs can show: make study-power SD=0.64 N=12
	@python -m studies.power --sd $(if $(SD),$(SD),$(error SD is missing: make study-power SD=0.64 N=12)) --pairs $(if $(N),$(N),$(error N is missing: make study-power SD=0.64 N=12))

study-figures: install  ## write docs/results/studies.md and its figure from the records of the experiments
	@python -m studies.figures

# `contrail-serving`: the package serving and the program contrail alone, for devices.
DIST ?= dist
wheel-serving: install  ## build dist/contrail_serving-*.whl: serving alone
	scratch=$$(mktemp -d) && trap 'rm -rf "$$scratch"' EXIT && cp -R serving "$$scratch/serving" \
	  && find "$$scratch" -name __pycache__ -prune -exec rm -rf {} + \
	  && mv "$$scratch/serving/distribution.toml" "$$scratch/pyproject.toml" \
	  && cp docs/serving.md "$$scratch/README.md" && cp LICENSE "$$scratch/" \
	  && python -m pip wheel --quiet --no-deps --wheel-dir "$(DIST)" "$$scratch"

readme: install  ## write README's results block from reports/report.json
	@python -m export.commands.readme

clean:  ## remove what the pipeline made (not .venv, not DVC's cache)
	rm -rf artifacts reports runs data predictions
