"""The model card of a branch: YAML that Hugging Face reads, then what a person must know before using the engines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from export.machine.hardware import device_summary
from export.pages.document import Block, Bullets, Heading, Paragraph, Table, to_markdown
from export.pages.formatting import (
    DASH,
    code,
    escaped,
    interval,
    megabytes,
    milliseconds,
    number,
    percent,
    prose,
    shortened,
)
from export.report.cards.branch import BranchReport
from export.report.cards.licences import WEIGHTS_LICENCES, data_licence, hub_licence
from export.report.evidence.quantisation import quantisation_blocks
from export.report.verdict import seeds_note
from serving.contract.errors import shown

RUNTIME_PACKAGES = ("onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "tensorrt-rtx", "numpy")


def model_card(
    branch: BranchReport, files: Mapping[str, tuple[int, str]], model: Mapping[str, Any], class_names: tuple[str, ...]
) -> str:
    """MODEL_CARD.md.

    Args:
        branch: what the report says.
        files: name in the branch's folder -> bytes and SHA-256, of everything that ships but the card.
        model: section `model` that it was trained with (`backbone`, `head`, `pretrained`); empty where nobody noted it.
        class_names: of the dataset.
    """
    blocks: list[Block] = [
        Heading(1, f"{branch.name}: semantic segmentation, trained on {branch.report['dataset']['name']}"),
        Paragraph(_what(branch, model)),
        Heading(2, "Engines"),
        *_engines(branch),
        Heading(2, "What was checked"),
        *_checks(branch),
        Heading(2, "Intended use"),
        *_use(branch, class_names),
        Heading(2, "Data and licence"),
        *_licences(branch, model),
        Heading(2, "Limits"),
        Bullets(_limits(branch)),
        Heading(2, "Runtimes and machine"),
        *_machine(branch),
        Heading(2, "Files"),
        Paragraph("`contrail verify-card` compares them with this list and with MODEL_CARD.intoto.json."),
        Table(
            ("file", "bytes", "SHA-256"),
            [(code(shown(name)), str(size), f"`{sha256}`") for name, (size, sha256) in sorted(files.items())],
        ),
    ]
    return f"---\n{_metadata(branch, model)}---\n\n{to_markdown(blocks)}"


def _metadata(branch: BranchReport, model: Mapping[str, Any]) -> str:
    """The YAML between the rules, as huggingface_hub writes it: one result per engine with a mIoU."""
    dataset = branch.report["dataset"]
    results = [
        EvalResult(
            task_type="image-segmentation",
            task_name="Semantic segmentation",
            dataset_type=dataset["name"],
            dataset_name=dataset["name"],
            dataset_split=dataset["split"],
            metric_type="mean_iou",
            metric_name=f"mIoU of {row['target']} ({row['artifact']}, {row['runtime']}, {row['precision']})",
            metric_value=round(row["miou"], 6),
        )
        for row in branch.targets
        if row["miou"] is not None
    ]
    data = ModelCardData(
        license=hub_licence(dataset["name"], model.get("backbone"), model.get("pretrained")),
        library_name="contrail-seg",
        pipeline_tag="image-segmentation",
        tags=["semantic-segmentation", "onnx", branch.method],
        metrics=["mean_iou"],
        model_name=branch.name,
        eval_results=results or None,
    )
    return data.to_yaml().rstrip("\n") + "\n"


def _what(branch: BranchReport, model: Mapping[str, Any]) -> str:
    network = f"backbone `{model['backbone']}`, head `{model['head']}`" if model else "network not noted"
    part = "the baseline that other methods are compared with" if branch.is_baseline else "a training method's network"
    return (
        f"Method `{branch.method}`, seed {branch.seed} ({part}); {network}. What only training needed was stripped. "
        "Every engine takes `image` uint8 `[B,H,W,3]` RGB and gives `mask` uint8 `[B,H,W]`, one class index per pixel: "
        "normalisation, upsampling and argmax are inside."
    )


def _engines(branch: BranchReport) -> list[Block]:
    rows = [
        (
            f"`{row['target']}`",
            f"`{_file(branch, row)}`" if row["path"] else DASH,
            row["runtime"],
            row["precision"] or DASH,
            row["status"],
            percent(row["miou"], 2),
            number(row["miou_drop_points"], 3),
            percent(row["agreement"], 3),
            milliseconds(row["latency_ms"]["p50"]),
            megabytes(row["engine_bytes"]),
        )
        for row in branch.targets
    ]
    header = ("target", "file", "runtime", "precision", "status", "mIoU, %", "drop, points", "agreement, %")
    dataset = branch.report["dataset"]
    blocks: list[Block] = [
        Paragraph(
            f"mIoU on {dataset.get('images') or 'the'} {dataset['split']} images of `{dataset['name']}`, at the "
            "resolution of the labels; drop and agreement are against the stripped network in PyTorch. Use those whose "
            "status is ok."
        ),
        Table((*header, "p50, ms", "MB"), rows, left=5),
    ]
    reasons = [
        f"`{row['target']}`: {row['status']}, {prose(shortened(str(row['reason'])))}"
        for row in branch.targets
        if row["status"] != "ok"
    ]
    return [*blocks, *([Bullets(reasons)] if reasons else []), *quantisation_blocks({"targets": branch.targets})]


def _file(branch: BranchReport, row: Mapping[str, Any]) -> str:
    """Of an engine, relative to the branch's folder."""
    path = PurePosixPath(row["path"])
    return "/".join(path.parts[-2:]) if branch.name in path.parts else path.as_posix()


def _checks(branch: BranchReport) -> list[Block]:
    fine = branch.checks_of("pass")
    blocks: list[Block] = [Paragraph(f"{len(fine)} of {len(branch.checks)} checks of the engines pass.")]
    rest = branch.checks_of("fail", "inconclusive")
    if rest:
        blocks.append(
            Bullets(
                [f"`{c['target']}`, {c['name']}: {c['status']}, {prose(shortened(str(c['detail'])))}" for c in rest]
            )
        )
    if branch.failed:
        blocks.append(Paragraph("**The gate fails**, so these engines are not to be released:"))
        blocks.append(
            Bullets(
                [
                    f"{escaped(each.subject)}, {prose(each.rule)}: {each.severity}, {prose(shortened(each.found))}"
                    for each in branch.failed
                ]
            )
        )
    else:
        blocks.append(Paragraph("The gate finds nothing of this branch that fails."))
    entry = branch.certificate
    if entry is None:
        reason = "it is the baseline" if branch.is_baseline else "it was not compared with the baseline"
        return [*blocks, Paragraph(f"No certificate of zero cost: {reason}.")]
    latency, certificate = entry["latency"], branch.report["certificate"]
    said = (
        f"Certificate that the training costs nothing at inference, against `{branch.report['baseline']}` on "
        f"`{certificate['target']}`: **{entry['verdict']}** (graph {entry['structure']['verdict']}, latency ratio "
        f"{number(latency['ratio'], 4)}, 95 % interval {interval(latency['ci95'], 4)}, margin "
        f"±{100 * certificate['margin']:g} %)."
    )
    return [
        *blocks,
        Paragraph(said),
        *([Bullets([prose(shortened(each)) for each in entry["reasons"]])] if entry["reasons"] else []),
    ]


def _use(branch: BranchReport, class_names: tuple[str, ...]) -> list[Block]:
    return [
        Paragraph(
            f"Labelling every pixel of RGB images like those of `{branch.report['dataset']['name']}` with one of "
            f"{len(class_names)} classes: {', '.join(map(escaped, class_names))}. Not for images of another kind "
            "without an evaluation on them, and not as the only safeguard where a wrong pixel can hurt somebody."
        ),
    ]


def _licences(branch: BranchReport, model: Mapping[str, Any]) -> list[Block]:
    dataset = branch.report["dataset"]
    backbone, pretrained = model.get("backbone"), model.get("pretrained")
    if pretrained is None:
        weights = "whether the training began from other weights was not noted"
    elif not pretrained:
        weights = "none: the training began at random"
    else:
        weights = f"`{backbone}`, {WEIGHTS_LICENCES.get(backbone or '', 'from timm: see the licence of its weights')}"
    sha256 = f" (SHA-256 of names and labels {dataset['sha256']})" if dataset.get("sha256") else ""
    return [
        Bullets(
            [
                f"Data: `{dataset['name']}`{sha256}, {data_licence(dataset['name'])}.",
                f"Weights that the training began from: {weights}.",
                "Code: Contrail, Apache-2.0. What the model's own licence may be, its data decides: the metadata says "
                "`unknown` unless all of it is known to be free.",
            ]
        )
    ]


def _limits(branch: BranchReport) -> list[str]:
    report = branch.report
    limits = [
        "Accuracy is that of the images named above; images of other cameras, places or weather were not looked at.",
    ]
    accuracy = {} if branch.certificate is None else branch.certificate["accuracy"]
    if len(accuracy.get("seeds") or ()) == 1:
        limits.append(f"The difference from the baseline rests on {seeds_note(accuracy).removeprefix('over ')}.")
    if report["profile"] == "quick":
        limits.append("Measured briefly (profile `quick`): latencies are not for a data sheet.")
    if not report["device"]["hardware"]["gpus"]:
        limits.append("Run on a CPU only; nothing here was run on a GPU.")
    limits += [
        f"Training pairs left out because they could not be read: {escaped(', '.join(row['left_out']))}."
        for row in report["training"]
        if row.get("left_out") and (row["method"], row["seed"]) == (branch.method, branch.seed)
    ]
    limits += [f"Prepare warned of the data: {prose(warning)}" for warning in report["dataset"].get("warnings") or []]
    limits.append(
        "Card and statement are unsigned: they show damage, not who wrote them. They are about these very files alone."
    )
    return limits


def _machine(branch: BranchReport) -> list[Block]:
    report, software = branch.report, branch.report["device"]["software"]
    packages = software.get("packages") or {}
    versions = [f"{name} {packages[name]}" for name in RUNTIME_PACKAGES if packages.get(name)]
    return [
        Bullets(
            [
                f"Verified and measured with {', '.join(versions) or 'no runtime noted'}.",
                f"Python {software['python']} on {prose(software['system'])}.",
                f"Machine: {prose(device_summary(report['device']))}.",
                f"Made {report['created'] or 'at an unknown time'}, profile `{report['profile']}`.",
                f"Commit: {report['commit'] or 'unknown'}.",
            ]
        )
    ]
