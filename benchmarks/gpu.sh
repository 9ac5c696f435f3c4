#!/usr/bin/env bash
# Settles on the first GPU what no CPU can, in less than 8 minutes, into one JSON file:
#   benchmarks/gpu.sh [--output FILE] [--steps NAME...] [--device cpu --toy]
# Needs Python 3.11 or 3.12 with torch 2.11 to 2.13, timm, safetensors, numpy, scipy, Pillow, PyYAML and rich; neither DVC nor a network.
# What else is there (pytest, onnx, ONNX Runtime, TensorRT) is used; a step without what it needs says so and stops no other.
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
exec "${PYTHON:-python3}" -m benchmarks.gpu "$@"
