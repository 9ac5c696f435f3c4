"""Card and statement of every branch that has engines, as files that belong beside them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from export.report.cards.branch import branch_report
from export.report.cards.card import model_card
from export.report.cards.statement import statement
from export.report.gate import Finding
from pipeline.layout.branches import BranchConfig
from pipeline.layout.paths import branch_dir, stripped_dir
from serving.card.checking import CARD_NAME, STATEMENT_NAME, shipped_sha256
from serving.contract.errors import UserError
from serving.contract.files import file_sha256, json_bytes, read_json


def card_files(
    report: Mapping[str, Any],
    findings: Sequence[Finding],
    branches: Mapping[str, BranchConfig],
    class_names: tuple[str, ...],
    params_path: Path,
) -> dict[Path, bytes]:
    """Both files, by their path, of every branch that there is. Nothing is written.

    Args:
        report: report.json.
        findings: of the gate (`judge`).
        branches: section of params.yaml.
        class_names: of the dataset.
        params_path: params.yaml.

    Raises:
        UserError: a file cannot be read.
    """
    params_sha256 = file_sha256(params_path)
    contents: dict[Path, bytes] = {}
    for each in branches.values():
        folder = branch_dir(each.method, each.seed)
        hashed = shipped_sha256(folder)
        if not hashed:
            continue
        branch = branch_report(report, findings, each.method, each.seed)
        files = {name: ((folder / name).stat().st_size, sha256) for name, sha256 in hashed.items()}
        card = model_card(branch, files, _model(each), class_names).encode()
        hashed[CARD_NAME] = hashlib.sha256(card).hexdigest()
        contents[folder / CARD_NAME] = card
        contents[folder / STATEMENT_NAME] = json_bytes(statement(branch, hashed, params_sha256))
    return contents


def _model(branch: BranchConfig) -> Mapping[str, Any]:
    """The network that was trained; empty where the stripped segmentor is not here."""
    path = stripped_dir(branch.method, branch.seed) / "segmentor.json"
    if not path.exists():
        return {}
    found = read_json(path, made_by="strip")
    model = found.get("model") if isinstance(found, Mapping) else None
    if not isinstance(model, Mapping) or not {"backbone", "head"} <= set(model):
        raise UserError(f"{path}: expected what `strip` writes, got no network in `model`: run strip again")
    return model
