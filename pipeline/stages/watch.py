"""Notice that the dataset's folder changed, so that it is prepared again: `python -m pipeline.stages.watch`."""

from __future__ import annotations

import argparse
import dataclasses
import json

from pipeline.data.preparing.watching import Snapshot, take_snapshot
from pipeline.layout.dataset_root import resolve_root
from pipeline.layout.paths import OUTPUT_PATHS, WATCHED_PATH
from pipeline.params import PARAMS_PATH, load_params, read_yaml
from serving.contract.command import program_name
from serving.contract.errors import UserError, run_command

NOTHING = Snapshot(files=0, size_bytes=0, sha256="")  # a generated dataset, which has no folder


def main() -> int:
    """Write data/watched.json. This stage always runs; what it writes changes only when the data did."""
    argparse.ArgumentParser(prog=program_name("pipeline.stages.watch"), description=__doc__).parse_args()
    # Of params.yaml only what is needed: to check all of it would take longer than to look at the data.
    section = read_yaml(PARAMS_PATH).get("prepare") or {}
    if not isinstance(section, dict) or not isinstance(section.get("root"), (str, type(None))):
        load_params()  # says what is wrong
        raise UserError("params.yaml: prepare.root: expected a folder")
    root = resolve_root(section.get("root"))
    content = section.get("hash", "times") == "content"
    snapshot = NOTHING if root is None else take_snapshot(root, content=content, leave_out=OUTPUT_PATHS)
    partial = WATCHED_PATH.with_name(f".{WATCHED_PATH.name}")
    try:
        WATCHED_PATH.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(dataclasses.asdict(snapshot), indent=1, sort_keys=True) + "\n", encoding="utf-8")
        partial.replace(WATCHED_PATH)
    except OSError as error:
        raise UserError(f"{WATCHED_PATH}: cannot be written: {error.strerror or error}") from error
    return 0


if __name__ == "__main__":
    run_command(main)
