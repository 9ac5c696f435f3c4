"""What a training depends on is what dvc.yaml says that its stage depends on."""

from __future__ import annotations

from pathlib import Path

import torch
import yaml

from pipeline.data.datasets.shared.prepared import Prepared
from pipeline.losses.pixel_contrast.loss import PixelContrastConfig
from pipeline.models.network.config import ModelConfig
from pipeline.models.network.segmentor import build_segmentor
from pipeline.training.assembly import build_loss_term
from pipeline.training.methods import MethodConfig
from pipeline.training.resuming import fingerprint as module
from pipeline.training.resuming.fingerprint import ROOMS, code_files, training_fingerprint


def test_the_rooms_are_those_of_dvc_yaml(repository: Path) -> None:
    listed = yaml.safe_load((repository / "dvc.yaml").read_text())["stages"]["train"]["do"]["deps"]
    rooms = {path.replace("/", ".") for path in listed if "$" not in path and not path.endswith(".py")}
    # Where files lie, and what was prepared, whose hash is among the settings.
    assert set(ROOMS) == rooms - {"data.prepared", "pipeline.layout"}
    chosen = {"pipeline/losses/${item.loss}", "pipeline/models/heads/${model.head}.py"}
    assert chosen | {"pipeline/data/datasets/${prepare.dataset}"} == {path for path in listed if "$" in path}


def test_it_changes_with_settings_code_device_and_precision(
    tiny_prepared: Prepared, repository: Path, tmp_path: Path, monkeypatch
) -> None:
    method = MethodConfig("pixel_contrast", PixelContrastConfig())
    things = {
        "segmentor": build_segmentor(ModelConfig(pretrained=False), 3, seed=0),
        "term": build_loss_term(method, num_classes=3, ignore_index=255, training_images=8),
        "dataset": tiny_prepared.split("train").dataset,
    }
    files = code_files(**things)
    for part in ("losses/pixel_contrast/loss.py", "models/heads/light.py", "data/datasets/folder/dataset.py"):
        assert repository / "pipeline" / part in files
    assert repository / "pipeline/losses/contextrast/loss.py" not in files

    def of(settings: int = 1, device: str = "cpu", dtype: torch.dtype | None = None) -> str:
        return training_fingerprint({"seed": settings}, device=torch.device(device), dtype=dtype, **things)

    prints = {of(), of(2), of(device="cuda"), of(dtype=torch.bfloat16)}
    assert len(prints) == 4 and of() in prints
    (tmp_path / "loop.py").write_text("edited = True\n")
    monkeypatch.setattr(module, "code_files", lambda *_: [*files, tmp_path / "loop.py"])
    assert of() not in prints
