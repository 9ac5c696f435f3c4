"""The stages from benchmark to gate, one after the other, on tiny real engines in an empty folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper

import export.stages.benchmark
import export.stages.certify
import export.stages.device
import export.stages.gate
import export.stages.report
import pipeline.stages.prepare
from export.latency.paired_latency import load_pairs, save_samples
from export.report.report import TARGET_KEYS
from pipeline.data.datasets.shared.prepared import content_sha256
from pipeline.evaluation.evaluation import Evaluation
from pipeline.layout.paths import BENCHMARK_PATH, SAMPLES_PATH
from serving.card.checking import check_folder, shipped_sha256
from serving.contract.errors import UserError
from serving.contract.files import file_sha256
from serving.contract.manifest import InputSpec, Manifest, write_sidecar

METHODS = ("cross_entropy", "pixel_contrast")
CLASSES = 11
QUICK = {"sessions": 2, "min_seconds": 0.01, "min_queries": 100, "pair_seconds": 0.001, "min_blocks": 2}
PARAMS = {
    "profile": "quick",
    "prepare": {"dataset": "streets", "options": {"train": 1, "val": 3, "test": 1, "height": 64, "width": 96}},
    "methods": {name: {"loss": name} for name in METHODS},
    "branches": {f"{name}-s0": {"method": name, "loss": name, "seed": 0} for name in METHODS},
    "artifacts": {"onnx_fp32": {"kind": "onnx_fp32"}},
    "targets": {"ort_fp32": {"artifact": "onnx_fp32", "runtime": "onnxruntime", "options": {"threads": 1}}},
    "deploy": {"method": "pixel_contrast"},
    "exports": {
        f"{name}-s0-onnx_fp32": {"branch": f"{name}-s0", "artifact": "onnx_fp32", "kind": "onnx_fp32"}
        for name in METHODS
    },
    "benchmark": {"batch_sizes": [1, 2], "quick": QUICK | {"throughput_seconds": 0.01, "warm_up_seconds": 0.05}},
    "certify": {"resamples": 1000, "margin": 0.5},  # the stages are tested here, not this machine
    "gate": {"required": ["ort_fp32"]},
}


def engine(method, *, seed, extra=False):
    path = Path(f"artifacts/{method}-s0/onnx_fp32/model.onnx")
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    tensors = [numpy_helper.from_array(generator.normal(size=(CLASSES, 3, 3, 3)).astype(np.float32), "weights")]
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "weights"], ["logits"], pads=[1, 1, 1, 1]),
        *([helper.make_node("Relu", ["logits"], ["scores"])] if extra else []),
        helper.make_node("ArgMax", ["scores" if extra else "logits"], ["index"], axis=1, keepdims=0),
        helper.make_node("Cast", ["index"], ["mask"], to=TensorProto.UINT8),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", "height", "width", 3])
    mask = helper.make_tensor_value_info("mask", TensorProto.UINT8, ["batch", "height", "width"])
    graph = helper.make_graph(nodes, "network", [image], [mask], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    names = tuple(f"class {i}" for i in range(CLASSES))
    manifest = Manifest(
        "onnx_fp32", "onnx", "fp32", names, tuple((i, i, i) for i in range(CLASSES)), InputSpec(stride=32)
    )
    return path, write_sidecar(manifest, path).sha256


def verified(method, path, sha256, **changes):
    """What the stage `verify` leaves: a row, and the counts of its evaluation."""
    folder = Path(f"reports/verify/{method}-s0")
    folder.mkdir(parents=True, exist_ok=True)
    confusions = np.random.default_rng(0).integers(1, 99, (3, CLASSES, CLASSES)).astype(np.int32)
    evaluation = Evaluation(
        confusions=confusions,
        boundary=np.ones((3, CLASSES, 2), dtype=np.int64),
        names=("a", "b", "c"),
        sequences=(None, None, None),
        protocol="single scale",
    )
    evaluation.save(folder / "ort_fp32.npz")
    check = {"name": "hash", "status": "pass", "measured": None, "threshold": None, "unit": "", "detail": ""}
    row = {
        "method": method,
        "seed": 0,
        "target": "ort_fp32",
        "artifact": "onnx_fp32",
        "path": path.as_posix(),
        "runtime": "onnxruntime",
        "precision": "fp32",
        "status": "ok",
        "reason": None,
        "sha256": sha256,
        "agreement": 1.0,
        "miou": evaluation.miou,
        "reference_miou": evaluation.miou,
        "miou_drop_points": 0.0,
        "miou_drop_ci95": [0.0, 0.0],
        "checks": [check],
    }
    dataset = {"sha256": json.loads(Path("data/prepared/dataset.json").read_text())["sha256"], "split": "val"}
    branch = path.parent.parent
    files = {(branch / name).as_posix(): sha256 for name, sha256 in shipped_sha256(branch).items()}
    record = {"dataset": dataset, "files": files, "targets": [row | changes]}
    (folder / "report.json").write_text(json.dumps(record))


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["stage"])
    Path("params.yaml").write_text(yaml.safe_dump(PARAMS))
    assert pipeline.stages.prepare.main() == 0
    for index, method in enumerate(METHODS):
        verified(method, *engine(method, seed=index))
        metrics = Path(f"metrics/train/{method}-s0.json")
        metrics.parent.mkdir(parents=True, exist_ok=True)
        metrics.write_text(json.dumps({"miou": 0.1, "contrast_steps": 9 * index, "mean_anchors": 50.0 * index}))
    assert export.stages.device.main() == 0
    return tmp_path


def run_stages():
    for stage in (export.stages.benchmark, export.stages.certify, export.stages.report):
        assert stage.main() == 0, stage  # measuring records and never judges
    return json.loads(Path("reports/report.json").read_text())


def test_everything_is_written_and_a_good_run_passes(workplace, capsys):
    report = run_stages()
    assert export.stages.gate.main() == 0
    assert "gate: passed" in capsys.readouterr().out
    for name in ("benchmark.json", "benchmark_samples.npz", "certificate.json", "certificate.md", "report.md"):
        assert (workplace / "reports" / name).stat().st_size > 0
    for name in ("certificate.png", "certificate.svg", "latency_ecdf.svg", "control_ecdf.png"):
        assert (workplace / "reports" / "plots" / name).stat().st_size > 1000, name
    page = (workplace / "reports" / "report.html").read_text()
    assert "Nothing fails" in page and "of one training each (seed 0): it says nothing about another training" in page
    assert "No images: the images that were evaluated are not those of data/prepared" in page
    assert "embeddings of pixel_contrast: artifacts/pixel_contrast-s0/stripped" in page, "what is missing is said"
    for method in METHODS:
        checked = check_folder(workplace / "artifacts" / f"{method}-s0")
        assert checked.passed and {each.name for each in checked.files} == {
            "MODEL_CARD.md",
            "onnx_fp32/manifest.json",
            "onnx_fp32/model.onnx",
        }
    assert [row["status"] for row in report["targets"]] == ["ok", "ok"]
    assert set(TARGET_KEYS) <= set(report["targets"][0])
    assert report["targets"][0]["latency_ms"]["p99"] > 0
    assert report["targets"][0]["engine_bytes"] == Path(report["targets"][0]["path"]).stat().st_size
    entry = report["certificate"]["methods"]["pixel_contrast"]
    assert entry["structure"]["identical"] and entry["accuracy"]["difference"] == 0.0
    assert [row["contrast_steps"] for row in report["training"]] == [0, 9]
    prepared = json.loads(Path("data/prepared/dataset.json").read_text())
    assert report["dataset"] == {
        "images": 3,
        "name": "streets",
        "split": "val",
        "sha256": prepared["sha256"],
        "warnings": prepared["warnings"],
        "notes": [],
    }


def test_masks_that_are_not_those_that_were_counted_are_told(workplace):
    content = json.loads(Path("data/prepared/dataset.json").read_text())
    names = tuple(entry["name"] for entry in content["splits"]["val"])
    for method in METHODS:
        path = Path(f"reports/verify/{method}-s0/ort_fp32.npz")
        found = Evaluation.load(path)
        Evaluation(found.confusions, found.boundary, names, found.sequences, found.protocol).save(path)
    assert run_stages()["pictures"] == {"differing": sorted(names)}
    assert export.stages.gate.main() == 1
    page = (workplace / "reports" / "report.html").read_text()
    assert page.count("data:image/jpeg;base64,") == len(names) == 3
    assert "the engines do not give the masks that were counted" in page


def test_what_prepare_warned_of_reaches_the_report_and_closes_the_gate(workplace, capsys):
    path = Path("data/prepared/dataset.json")
    content = json.loads(path.read_text())
    content["warnings"] = ["split overlap: a.png (train) and b.png (val) are the same image"]
    content["sha256"] = content_sha256(content)
    path.write_text(json.dumps(content))
    for method in METHODS:
        verified(method, *engine(method, seed=METHODS.index(method)))
    report = run_stages()
    assert report["dataset"]["warnings"] == content["warnings"]
    assert "a.png (train) and b.png (val)" in (workplace / "reports" / "report.md").read_text()
    assert export.stages.gate.main() == 1
    assert "a.png (train) and b.png" in " ".join(capsys.readouterr().out.split())
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["gate"]["accepted_warnings"] = ["split overlap"]
    Path("params.yaml").write_text(yaml.safe_dump(params))
    assert export.stages.gate.main() == 0
    assert "warning" in capsys.readouterr().out


def test_method_with_another_graph_closes_the_gate(workplace, capsys):
    verified("pixel_contrast", *engine("pixel_contrast", seed=1, extra=True))
    report = run_stages()
    assert report["certificate"]["methods"]["pixel_contrast"]["verdict"] == "fail"
    assert export.stages.gate.main() == 1
    assert "not the same graph" in capsys.readouterr().out


def test_engine_replaced_after_it_was_verified_closes_the_gate(workplace, capsys):
    engine("pixel_contrast", seed=5)  # with a manifest of its own: valid, but not the file that was verified
    report = run_stages()
    row = report["targets"][1]
    assert row["status"] == "failed" and "run verify again" in row["reason"]
    assert row["latency_ms"] == {"p50": None, "p90": None, "p99": None}
    assert export.stages.gate.main() == 1
    assert "FAILED" in capsys.readouterr().out


@pytest.mark.parametrize("change", ["replaced", "missing", "added"])
def test_engine_that_nothing_examined_closes_the_gate(workplace, capsys, change):
    for stage in (export.stages.benchmark, export.stages.certify):
        assert stage.main() == 0
    path = Path("artifacts/pixel_contrast-s0/onnx_fp32/model.onnx")
    if change == "replaced":
        engine("pixel_contrast", seed=5)
    elif change == "missing":
        path.unlink()
    else:
        shutil.copytree(path.parent, path.parent.with_name("onnx_old"))
    assert export.stages.report.main() == 0
    report = json.loads(Path("reports/report.json").read_text())
    assert report["unexamined"] == ([f"{path.parent.parent}/onnx_old/model.onnx"] if change == "added" else [])
    assert report["targets"][1]["status"] == ("ok" if change == "added" else "failed")
    assert export.stages.gate.main() == 1
    statement = json.loads(path.parent.with_name("MODEL_CARD.intoto.json").read_text())
    assert statement["predicate"]["result"] == "FAILED"
    words = "no target of params.yaml" if change == "added" else "examined"
    assert words in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("name", ["onnx_fp32/manifest.json", "onnx_fp32/golden/golden.npz", "stripped/segmentor.pt"])
@pytest.mark.parametrize("change", ["edited", "removed", "added"])
def test_what_ships_beside_an_engine_and_is_not_what_was_verified_closes_the_gate(workplace, capsys, name, change):
    branch = Path("artifacts/pixel_contrast-s0")
    path, engine_path = branch / name, branch / "onnx_fp32/model.onnx"
    path.parent.mkdir(exist_ok=True)
    content = path.read_bytes() if path.exists() else b"{}"
    path.unlink(missing_ok=True)
    if change != "added":
        path.write_bytes(content)
    verified("pixel_contrast", engine_path, file_sha256(engine_path))
    path.write_bytes(content)  # the benchmark opens the engine by its manifest
    for stage in (export.stages.benchmark, export.stages.certify):
        assert stage.main() == 0
    path.unlink() if change == "removed" else path.write_bytes(content + b"\n" * (change == "edited"))
    assert export.stages.report.main() == 0
    report = json.loads(Path("reports/report.json").read_text())
    found = {"edited": "is ", "removed": "is missing, verify examined ", "added": "is new since verify"}[change]
    assert list(report["changed"]) == [path.as_posix()] and report["changed"][path.as_posix()].startswith(found)
    beside = name.startswith("onnx_fp32")
    assert report["targets"][1]["status"] == ("failed" if beside else "ok")
    assert bool([check for check in report["checks"] if check["method"] == "pixel_contrast"]) != beside
    assert export.stages.gate.main() == 1
    assert "what ships is what" in " ".join(capsys.readouterr().out.split())
    predicate = json.loads((branch / "MODEL_CARD.intoto.json").read_text())["predicate"]
    assert predicate["result"] == "FAILED"
    assert f"gate: pixel_contrast-s0/{name}: what ships is what verify saw" in predicate["failedTests"]
    other = json.loads(Path("artifacts/cross_entropy-s0/MODEL_CARD.intoto.json").read_text())
    assert other["predicate"]["result"] != "FAILED"


def test_a_verification_that_does_not_say_its_files_is_to_be_made_again(workplace):
    path = Path("reports/verify/pixel_contrast-s0/report.json")
    record = json.loads(path.read_text())
    del record["files"]
    path.write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"verify/pixel_contrast-s0/report\.json: made by an older .* run verify again"):
        run_stages()


def test_numbers_of_other_data_are_refused(workplace):
    run_stages()
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["prepare"]["options"]["seed"] = 7
    Path("params.yaml").write_text(yaml.safe_dump(params))
    assert pipeline.stages.prepare.main() == 0
    with pytest.raises(UserError, match=r"verify/cross_entropy.*run verify again.*verify/pixel.*run benchmark again"):
        export.stages.report.main()


def test_half_a_report_passes_no_gate(workplace, monkeypatch):
    run_stages()
    assert export.stages.gate.main() == 0
    before = Path("reports/report.json").stat()

    def crash(*arguments):
        raise ValueError("crash")

    with monkeypatch.context() as patched:
        patched.setattr(export.stages.report, "html_page", crash)
        with pytest.raises(ValueError, match="crash"):
            export.stages.report.main()
    assert Path("reports/report.json").stat() == before, "the report is that of its pages still"
    card = Path("artifacts/pixel_contrast-s0/MODEL_CARD.md")  # written after the pages, and cannot be
    card.unlink()
    card.mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        export.stages.report.main()
    with pytest.raises(UserError, match="expected the output of `report`"):
        export.stages.gate.main()


def test_evaluations_of_other_classes_than_the_data_has_are_said(workplace):
    for stage in (export.stages.benchmark, export.stages.certify):
        assert stage.main() == 0
    for method in METHODS:
        path = Path(f"reports/verify/{method}-s0/ort_fp32.npz")
        found = Evaluation.load(path)
        few = (found.confusions[:, :3, :3], found.boundary[:, :3])
        Evaluation(*few, found.names, found.sequences, found.protocol).save(path)
    assert export.stages.report.main() == 0
    page = (workplace / "reports" / "report.html").read_text()
    assert "evaluated on 3 classes, expected 11; run verify again" in page


def test_engine_that_failed_a_check_is_measured_all_the_same_and_closes_the_gate(workplace):
    path, sha256 = engine("pixel_contrast", seed=1)
    verified("pixel_contrast", path, sha256, status="failed", reason="1 of 9 checks failed: logits")
    report = run_stages()
    assert report["targets"][1]["status"] == "failed" and report["targets"][1]["latency_ms"]["p50"] > 0
    assert export.stages.gate.main() == 1


def test_branch_that_could_not_be_evaluated_is_said(workplace):
    path, sha256 = engine("pixel_contrast", seed=1)
    missing = dict.fromkeys(("miou", "miou_drop_points"))
    verified("pixel_contrast", path, sha256, status="skipped", reason="no CUDA device", **missing)
    Path("reports/verify/pixel_contrast-s0/ort_fp32.npz").unlink()
    report = run_stages()
    entry = report["certificate"]["methods"]["pixel_contrast"]
    assert entry["latency"]["verdict"] == "inconclusive" and "was not measured for both" in entry["reasons"][0]
    assert "no such evaluation" in entry["accuracy"]["reason"]
    assert report["targets"][1]["status"] == "skipped"
    assert export.stages.gate.main() == 1


def test_evaluations_of_other_images_are_not_compared(workplace):
    folder = Path("reports/verify/pixel_contrast-s0")
    evaluation = Evaluation.load(folder / "ort_fp32.npz")
    other = Evaluation(evaluation.confusions, evaluation.boundary, ("x", "y", "z"), evaluation.sequences, "")
    other.save(folder / "ort_fp32.npz")
    entry = run_stages()["certificate"]["methods"]["pixel_contrast"]
    assert "other images" in entry["accuracy"]["reason"]


@pytest.mark.parametrize(
    ("missing", "stage", "message"),
    [
        ("reports/verify/pixel_contrast-s0/report.json", export.stages.benchmark, "expected the output of `verify`"),
        ("reports/device.json", export.stages.benchmark, "expected the output of `device`"),
        ("reports/benchmark.json", export.stages.certify, "expected the output of `benchmark`"),
        ("reports/certificate.json", export.stages.report, "expected the output of `certify`"),
        ("reports/report.json", export.stages.gate, "expected the output of `report`"),
    ],
)
def test_stage_before_its_inputs_is_one_message(workplace, missing, stage, message):
    Path(missing).unlink(missing_ok=True)
    with pytest.raises(UserError, match=message):
        stage.main()


def other_files(workplace):
    """Engines that were exported anew, and not measured since."""
    for index, method in enumerate(METHODS):
        engine(method, seed=index + 7)


def another_seed(workplace):
    """A branch that came after the measurement."""
    params = yaml.safe_load(Path("params.yaml").read_text())
    for method in METHODS:
        row = params["branches"][f"{method}-s0"]
        params["branches"][f"{method}-s1"] = row | {"seed": 1}
        export_of = params["exports"][f"{method}-s0-onnx_fp32"]
        params["exports"][f"{method}-s1-onnx_fp32"] = export_of | {"branch": f"{method}-s1"}
    Path("params.yaml").write_text(yaml.safe_dump(params))


def other_entry(**changes):
    def change(workplace):
        benchmark = json.loads(BENCHMARK_PATH.read_text())
        for entry in benchmark["comparisons"].values():
            entry.update(changes)
        BENCHMARK_PATH.write_text(json.dumps(benchmark))

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (other_files, "artifacts/cross_entropy-s0/onnx_fp32/model.onnx is not the file that was measured"),
        (other_entry(pairs=7), "pairs 7, expected 8"),
        (another_seed, "seeds [0], expected [0, 1]"),
        (other_entry(target="openvino_bf16"), "target 'openvino_bf16', expected 'ort_fp32'"),
        (other_entry(baseline="contextrast"), "baseline 'contextrast', expected 'cross_entropy'"),
    ],
)
def test_what_was_measured_of_something_else_certifies_nothing(workplace, change, said):
    assert export.stages.benchmark.main() == 0
    change(workplace)
    assert export.stages.certify.main() == 0
    certificate = json.loads(Path("reports/certificate.json").read_text())
    latency = certificate["methods"]["pixel_contrast"]["latency"]
    assert latency["verdict"] == "inconclusive" and certificate["control"]["verdict"] == "inconclusive"
    (reason,) = (reason for reason in latency["reasons"] if "what was measured is something else" in reason)
    assert said in reason and "run benchmark again" in reason


def test_samples_of_another_run_are_refused(workplace):
    assert export.stages.benchmark.main() == 0
    save_samples(SAMPLES_PATH, load_pairs(SAMPLES_PATH))  # as they are, without those of single engines
    with pytest.raises(
        UserError, match=r"samples\.npz: not the samples that reports/benchmark\.json is of: run benchm"
    ):
        export.stages.certify.main()


def test_brief_measurements_are_no_release(workplace):
    run_stages()
    params = yaml.safe_load(Path("params.yaml").read_text())
    Path("params.yaml").write_text(yaml.safe_dump(params | {"profile": "release"}))
    with pytest.raises(UserError, match=r"certify went by the profile 'quick', params.yaml says 'release': run"):
        export.stages.report.main()


def test_baseline_without_a_branch_is_one_message(workplace):
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["certify"]["baseline"] = "supervised"
    Path("params.yaml").write_text(yaml.safe_dump(params))
    with pytest.raises(UserError, match=r"certify\.baseline"):
        run_stages()
