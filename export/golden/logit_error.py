"""How far an exported graph's logits are from PyTorch's on the golden images, in a runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx

from export.golden.inputs import Network
from export.graph.deploy import LOGITS_NAME
from export.graph.inner_logits import expose_logits
from serving.contract.files import write_atomically
from serving.contract.manifest import read_sidecar
from serving.engines.runtimes import RUNTIMES
from serving.golden.golden import GoldenInput
from serving.images.geometry import place


class ExposedLogits:
    """Measures through a copy of the graph that shows its inner logits.

    Args:
        engine_path: an ONNX engine, its manifest beside it.
        inputs: the golden images.
        network: what the engine was made from.
    """

    def __init__(self, engine_path: Path, inputs: Sequence[GoldenInput], network: Network) -> None:
        self._engine_path, self._manifest = engine_path, read_sidecar(engine_path)
        self._images = [each.image for each in inputs]
        self._expected = [network.logits(image) for image in self._images]

    def __call__(self, runtime: str, options: Mapping[str, object]) -> tuple[float, float]:
        """See `LogitError`."""
        model = onnx.load(self._engine_path, load_external_data=False)
        spec = self._manifest.input
        largest = 0.0
        with tempfile.TemporaryDirectory(prefix="contrail-golden-") as folder:
            path = Path(folder, self._engine_path.name)
            write_atomically(path, expose_logits(model).SerializeToString())
            with RUNTIMES.resolve(runtime).open(path, self._manifest, options, check_hash=False) as opened:
                for image, expected in zip(self._images, self._expected, strict=True):
                    placed, _ = place(image, stride=spec.stride, resize=spec.resize)
                    found = opened.infer(placed[None])[LOGITS_NAME].astype(np.float32)[0]
                    largest = max(largest, float(np.abs(found - expected).max()))
        return largest, max(float(np.abs(expected).max()) for expected in self._expected)
