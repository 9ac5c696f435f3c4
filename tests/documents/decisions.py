"""What the tests run in place of a command of a page, and what they add to it. Everything else runs as it stands."""

from __future__ import annotations

# Not run, since this machine lacks what they need: the page says so in the first line of the block,
# `# not run: needs GPU` (or `network`, or `second machine`). Page -> command -> what it needs.
NOT_RUN = {
    "CONTRIBUTING.md": {
        ".venv/bin/pre-commit install": "network",
        "make docs": "network",
        "make install": "network",
        "make lock": "network",
        "make lock UPGRADE=1": "network",
    },
    "docs/results/README.md": {
        "benchmarks/gpu.sh --output gpu.json": "GPU",
    },
    "docs/model-card.md": {
        "pip install model-signing": "network",
        "cp -R artifacts/pixel_contrast-s0 release && rm -r release/trained": "network",
        "model_signing sign sigstore release --signature release/model.sig": "network",
        "model_signing verify sigstore release --signature release/model.sig --identity you@example.com "
        "--identity_provider https://accounts.google.com": "network",
        "contrail verify-card release": "network",
    },
    "docs/peers.md": {
        "make peers": "network",
        "python -m benchmarks.peers artifacts/pixel_contrast-s0 --rounds 3 --images 50 --json": "network",
    },
    "docs/server.md": {
        "make rivals": "network",
    },
    "docs/serving.md": {
        "make bulk": "network",
        ".bulk/bin/contrail bulk --engine artifacts/pixel_contrast-s0/onnx_fp32/model.onnx --input photos "
        "--output masks": "network",
        "make wheel-serving": "network",
    },
    "README.md": {
        "make install": "network",
        "make install TORCH_INDEX=https://download.pytorch.org/whl/cpu": "network",
    },
    "docs/datasets.md": {
        "make formats": "network",
        "contrail import /path/to/export --output /path/to/data": "network",
    },
    "docs/losses.md": {
        "make recipe NAME=cityscapes-hrnet48-cross_entropy && dvc repro strip@cross_entropy-s0": "GPU",
        "mkdir -p teachers && cp -R artifacts/cross_entropy-s0/stripped teachers/hrnet48 && "
        "sha256sum teachers/hrnet48/segmentor.safetensors": "GPU",
        "make recipe NAME=cityscapes-lite0-distilled_hrnet48": "GPU",
    },
    "docs/engines.md": {
        "make install EXTRA=cpu,tensorrt-rtx": "network",
        "make install EXTRA=gpu,tensorrt": "network",
        "pip install -c constraints.txt nncf==3.4.0": "network",
        "python -m benchmarks.quantisers --branch pixel_contrast-s0": "network",
    },
}

# The suites that these tests are a part of: what `make` would do is printed, and nothing is run.
INSTEAD = {
    "make test": "make --dry-run test",
    "make test-all": "make --dry-run test-all",
}

# Arguments put behind those of the page, so that a benchmark or a study takes seconds. The last one counts.
TOY_ARGUMENTS = {
    "python -m benchmarks.calibration": "--images 2 --calibrations minmax --schemes symmetric",
    "python -m benchmarks.engines": "--side 64 --threads 1 --rounds 1",
    "python -m benchmarks.kills": "--runs 1 --kills 1",
    "python -m benchmarks.losses": "--quick --rounds 1",
    "python -m benchmarks.plans": "--networks default --precisions fp32",
    "python -m benchmarks.proof": "--networks default --side 64 --structure-only",
    "python -m benchmarks.server": "--seconds 0.5 --rounds 1 --requests 60",
    "python -m benchmarks.serving": "--images 4 --pairs 1 --many 6 --cold-runs 1",
    "python -m studies.features": "--step 2",
    "python -m studies.gradients": "--batches 1",
}

# Paths of the reader's -> where the scratch copy of the project has something in their place.
PATHS = {
    "/path/to/camvid": "../camvid",
    "photos/street.png": "data/prepared/streets/val/images/000000.png",
    "photos/": "data/prepared/streets/val/images/",
}

# Commands that need nothing to have run: they run in `make test`. The others run in `make test-all`, in the order of
# their page, in a copy of the project in which `make repro` has run.
QUICK = (
    "make recipes",
    "make recipe NAME=cityscapes",
    "make study-figures",
    "make study-power SD=0.64",
    "make test",
    "python -m pipeline.commands.validate",
)
