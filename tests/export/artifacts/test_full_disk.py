"""A disk that fills up while an artefact is written: one line, and no file of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from export.artifacts import ARTIFACT_KINDS
from export.artifacts.shared.exporter import ExportContext
from pipeline.models.network.segmentor import Segmentor
from pipeline.models.network.weights import SegmentorInfo
from serving.contract.errors import UserError
from serving.contract.files import atomic_dir


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx_fp32", "onnx_fp16"])
def test_an_export_leaves_what_was_there_before(
    kind: str, segmentor: Segmentor, info: SegmentorInfo, tmp_path: Path, small_disk: Callable[[Path, str], None]
) -> None:
    """As the stage does it."""
    disk = tmp_path / "disk"
    folder = disk / kind
    small_disk(disk, "1m")
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"of yesterday")

    def export() -> None:
        with atomic_dir(folder) as temporary:
            entry = ARTIFACT_KINDS.resolve(kind)
            entry.exporter()(segmentor, ExportContext(kind, temporary, info), entry.options())

    with pytest.raises(UserError, match=r"^[^\n]*No space left on device[^\n]*$"):
        export()
    assert [path for path in disk.rglob("*") if path.is_file()] == [folder / "model.onnx"]
    assert (folder / "model.onnx").read_bytes() == b"of yesterday"
    small_disk(disk, "50m")
    export()
    assert (folder / "model.onnx").stat().st_size > 1_000_000
