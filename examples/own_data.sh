#!/usr/bin/env bash
# From a folder of images and labels to verified engines and overlays: bash examples/own_data.sh FOLDER IMAGES OUTPUT
#   FOLDER  images and labels, in any of the arrangements of docs/datasets.md
#   IMAGES  an image or a folder of images to segment in the end
#   OUTPUT  where overlays go
# It writes recipes/own.yaml and merges it into params.yaml, as you would by hand.
set -euo pipefail
folder=$(realpath "${1:?the folder of images and labels}")
images=${2:?what to segment in the end}
output=${3:?where overlays go}

# What it is and what is wrong with it; a folder that `prepare` would refuse ends here. The section to paste comes last.
described=$(contrail describe-data "$folder" --no-sheet) || { status=$?; echo "$described"; exit "$status"; }
echo "$described"
{ echo "# Own data."; sed -n '/^prepare:/,$p' <<< "$described"; } > recipes/own.yaml
contrail recipe apply own

# Train, strip, export, verify, certify, report, judge.
dvc repro

deployed=$(python -c 'import yaml; print(yaml.safe_load(open("params.yaml"))["deploy"]["method"])')
contrail verify-card "artifacts/$deployed-s0"
contrail infer "$images" --engine "artifacts/$deployed-s0/onnx_fp32/model.onnx" --output "$output" --overlay --legend
