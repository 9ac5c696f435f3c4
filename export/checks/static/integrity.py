"""Is this the whole file that was exported, from the weights that it claims?"""

from __future__ import annotations

import json

from export.checks.examination.context import CheckContext, CheckResult, SkippedError
from pipeline.models.network.weights import tensors_sha256
from serving.contract.errors import UserError
from serving.contract.files import file_sha256
from serving.contract.manifest import METADATA_KEY, Manifest, verify_sidecar
from serving.golden.golden import Golden, golden_folder


def check(context: CheckContext) -> CheckResult:
    """Hash, manifest and golden files beside the file are its own, and the weights are these weights.

    A file exported before the network was trained again is whole and consistent, yet stale: its manifest names the hash
    of other weights than those of the reference.
    """
    problems: list[str] = []
    try:
        verify_sidecar(context.engine_path)
    except UserError as error:
        problems.append(str(error))
    try:
        problems.extend(_manifests_differ(context))
    except SkippedError:
        pass  # a compiled engine has no manifest inside
    except UserError as error:
        problems.append(str(error))
    try:
        problems.extend(_golden_of_another(context))
    except UserError as error:
        problems.append(str(error))
    unknown = ""
    try:
        problems.extend(_stale(context))
    except SkippedError as error:
        unknown = f"; whether it is stale is not known ({error})"
    except UserError as error:
        problems.append(str(error))
    if problems:
        return CheckResult.decided(False, len(problems), 0, "problems", "; ".join(dict.fromkeys(problems)))
    return CheckResult.decided(True, 0, 0, "problems", f"hash, manifest and weights agree{unknown}")


def _manifests_differ(context: CheckContext) -> list[str]:
    inside = {item.key: item.value for item in context.model.metadata_props}.get(METADATA_KEY)
    if inside is None:
        return [f"no manifest inside the file (metadata_props has no {METADATA_KEY!r})"]
    embedded = Manifest.from_json(inside, source=f"{context.engine_path} (inside)")
    expected = context.manifest.without_hash()
    if embedded == expected:
        return []
    beside = json.loads(expected.to_json())
    differing = sorted(key for key, value in json.loads(embedded.to_json()).items() if beside.get(key) != value)
    return [f"the manifest inside the file differs from the one beside it in {', '.join(differing)}"]


def _golden_of_another(context: CheckContext) -> list[str]:
    """What the engine is to be tested with elsewhere, where it has any. Raises UserError for what cannot be read."""
    folder = golden_folder(context.engine_path)
    if not folder.exists():
        return []
    made_with, there = Golden.load(folder).engine_sha256, file_sha256(context.engine_path)
    if made_with == there:
        return []
    return [f"golden files of another engine: made with sha256 {made_with[:16]}..., this one has {there[:16]}..."]


def _stale(context: CheckContext) -> list[str]:
    """What in the manifest does not fit the reference."""
    info = context.reference.info
    weights = tensors_sha256(context.reference.segmentor.state_dict())
    expected = {**info.provenance, "weights_sha256": weights}
    found = context.manifest.provenance
    differing = [key for key, value in expected.items() if found.get(key) != value]
    if context.manifest.class_names != info.class_names:
        differing.append("class_names")
    if differing:
        return [
            f"stale: its manifest names another {', '.join(differing)} than the stripped segmentor has; "
            "run the export again"
        ]
    return []
