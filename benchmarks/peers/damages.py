"""How many of the damages that our checks must catch others' checks of an exported file see.

The damages are those of `tests/export/checks/test_damages.py`, on its small network. Every rule judges the damaged file
by what it computes for one image beside PyTorch, with the logits as a further output, which is more than the file
ships: each gets what helps it most. A file that cannot be opened or run counts as caught.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.peers.environments import PROGRAMS, Environment
from export.artifacts.onnx_fp32.export import export
from export.artifacts.shared.exporter import ExportContext
from export.artifacts.shared.options import OutputOptions
from export.checks.examination.config import VerifyConfig
from export.checks.examination.context import CheckContext
from export.checks.examination.images import scene
from export.checks.examination.reference import Reference
from export.checks.verification import run_checks
from export.graph.deploy import LOGITS_NAME
from export.report.config import GateConfig
from pipeline.data.datasets.shared.prepared import load_prepared
from pipeline.data.preparing.config import PrepareConfig
from pipeline.data.preparing.preparation import prepare
from pipeline.evaluation.inference import segmentor_predictor
from pipeline.models.network.config import ModelConfig
from pipeline.models.network.segmentor import Segmentor, build_segmentor
from pipeline.models.network.weights import SegmentorInfo, tensors_sha256
from tests.export.checks import test_damages
from tests.export.conftest import CLASS_NAMES, PALETTE, wake

Outputs = Mapping[str, NDArray[np.generic]]
Rule = Callable[[Outputs, Outputs], bool]
HEIGHT, WIDTH = 96, 128


def agreement(found: Outputs, expected: Outputs) -> bool:
    """D-FINE-seg 0.6.2, `run_parity_sem_seg`: at least 99 % of the mask's pixels equal, on an image of the data."""
    return float((found["mask"] == expected["mask"]).mean()) >= 0.99


def lightly(found: Outputs, expected: Outputs) -> bool:
    """LightlyTrain 0.18.0, `export_onnx(verify=True)`: logits within 5e-3 + 10 %, 99 % of the mask equal.

    The tolerance of the logits is that of `torch.onnx.export(verify=True)`, as its source says.
    """
    logits = torch.from_numpy(np.asarray(found[LOGITS_NAME], np.float32))
    wanted = torch.from_numpy(np.asarray(expected[LOGITS_NAME], np.float32))
    close = bool(torch.isclose(logits, wanted, rtol=1e-1, atol=5e-3, equal_nan=True).all())
    return close and agreement(found, expected)


def tutorial(found: Outputs, expected: Outputs) -> bool:
    """PyTorch's tutorial on ONNX: logits within 1e-5 + 0.1 %."""
    return bool(np.allclose(found[LOGITS_NAME], expected[LOGITS_NAME], rtol=1e-3, atol=1e-5))


# Rule -> whether it looks at an image of the data (or at noise).
RULES: dict[str, tuple[Rule, bool]] = {
    "dfine-seg": (agreement, True),
    "lightly-train": (lightly, False),
    "pytorch tutorial": (tutorial, False),
}


def measured(polygraphy: Environment) -> dict[str, object]:
    """Damage -> tool -> whether it is caught, how many each catches, and who refuses the file without a damage.

    Of a rule that refuses the sound file as well, what it catches says nothing.
    """
    with tempfile.TemporaryDirectory(prefix="contrail-peers-") as name:
        folder = Path(name)
        segmentor, info = _network()
        sound = export(segmentor, ExportContext("onnx_fp32", folder / "sound", info), OutputOptions())
        files = _damaged(sound, folder)
        images = {True: scene(HEIGHT, WIDTH, np.random.default_rng(5)), False: _noise()}
        expected = {of_data: _expected(segmentor, info, image) for of_data, image in images.items()}
        passes: dict[str, dict[str, bool]] = {rule: {} for rule in RULES}
        for damage, file in files.items():
            for rule, (judge, of_data) in RULES.items():
                found = _outputs(file, images[of_data])
                passes[rule][damage] = found is not None and judge(found, expected[of_data])
        passes["polygraphy"] = _polygraphy(polygraphy, files, images[False], expected[False], folder)
        passes["contrail"] = _ours(files, Reference(segmentor, info), folder)
    refuses = {tool: not verdicts.pop("sound") for tool, verdicts in passes.items()}
    caught = {damage: {tool: not passes[tool][damage] for tool in passes} for damage in passes["contrail"]}
    counts = {tool: sum(each[tool] for each in caught.values()) for tool in passes}
    return {"damages": len(caught), "caught": counts, "refuses_the_sound_file": refuses, "of_each": caught}


def _network() -> tuple[Segmentor, SegmentorInfo]:
    config = ModelConfig(backbone="mobilenetv3_small_100", pretrained=False, head="light", head_options={"width": 16})
    segmentor = wake(build_segmentor(config, len(CLASS_NAMES), seed=0), seed=0)
    provenance = {"method": "pixel_contrast", "seed": 0, "weights_sha256": tensors_sha256(segmentor.state_dict())}
    return segmentor, SegmentorInfo(
        model=segmentor.config,
        num_classes=len(CLASS_NAMES),
        class_names=CLASS_NAMES,
        palette=PALETTE,
        ignore_index=255,
        provenance=provenance,
    )


def _noise() -> NDArray[np.uint8]:
    return np.random.default_rng(7).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def _damaged(sound: Path, folder: Path) -> dict[str, Path]:
    """The sound file and one file per damage, each in a folder of its name."""
    files = {"sound": sound}
    content = sound.read_bytes()
    manifest = sound.with_name("manifest.json").read_bytes()
    for change in test_damages.TABLE:
        file = files[change.__name__] = folder / change.__name__ / sound.name
        file.parent.mkdir()
        file.write_bytes(content)
        file.with_name("manifest.json").write_bytes(manifest)
        test_damages.damage(file, change)
    return files


def _expected(segmentor: Segmentor, info: SegmentorInfo, image: NDArray[np.uint8]) -> Outputs:
    logits = Reference(segmentor, info).logits(image[None])
    return {LOGITS_NAME: logits, "mask": logits.argmax(1).astype(np.uint8)}


def _exposed(file: Path) -> onnx.ModelProto:
    model = onnx.load(file, load_external_data=False)
    model.graph.output.append(onnx.ValueInfoProto(name=LOGITS_NAME))
    return model


def _outputs(file: Path, image: NDArray[np.uint8]) -> Outputs | None:
    """What a file computes, logits and its first other output; None where it cannot be run.

    Tools take outputs by their position, so that another name alone is not seen.
    """
    try:
        onnx.checker.check_model(str(file))
        session = onnxruntime.InferenceSession(_exposed(file).SerializeToString(), providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        values = dict(zip(names, session.run(None, {"image": image[None]}), strict=True))
    except Exception:  # noqa: BLE001 - onnxruntime's errors have no common class
        return None
    logits = values.pop(LOGITS_NAME)
    return {LOGITS_NAME: logits, "mask": next(iter(values.values()))}


def _polygraphy(
    environment: Environment,
    files: Mapping[str, Path],
    image: NDArray[np.uint8],
    expected: Outputs,
    folder: Path,
) -> dict[str, bool]:
    reference = folder / "reference.npz"
    np.savez(reference, image=image[None], logits=expected[LOGITS_NAME], mask=expected["mask"])
    exposed = []
    for damage, file in files.items():
        path = folder / "exposed" / damage / file.name
        path.parent.mkdir(parents=True)
        path.write_bytes(_exposed(file).SerializeToString())
        exposed.append(path)
    done = environment.run(PROGRAMS / "polygraphy_rule.py", "judge", reference, *exposed)
    verdicts: dict[str, bool] = json.loads(done.stdout.splitlines()[-1])
    return verdicts


def _ours(files: Mapping[str, Path], reference: Reference, folder: Path) -> dict[str, bool]:
    """Whether all checks of `export.check` pass, as they run by default."""
    root = folder / "dataset"
    for each in ("images", "labels"):
        (root / each).mkdir(parents=True)
    (root / "classes.txt").write_text("\n".join(CLASS_NAMES) + "\n")
    predict = segmentor_predictor(reference.segmentor, torch.device("cpu"))
    generator = np.random.default_rng(1)
    for index in range(10):
        image = scene(90, 125, generator)
        Image.fromarray(image).save(root / "images" / f"{index:02}.png")
        Image.fromarray(predict(image)).save(root / "labels" / f"{index:02}.png")
    prepare(PrepareConfig(dataset="folder", root=str(root)), folder / "prepared")
    split = load_prepared(folder / "prepared", root).split("val")
    passes = {}
    for damage, file in files.items():
        with CheckContext(
            file,
            runtime="onnxruntime",
            options={"threads": 1},
            reference=reference,
            split=split,
            config=VerifyConfig(images=2, max_side=128, resamples=100),
            max_miou_drop_points=GateConfig().max_miou_drop_points,
        ) as context:
            passes[damage] = all(result.status != "fail" for result in run_checks(context))
    return passes
