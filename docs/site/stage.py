"""Copy what the site is built of into one folder: `python docs/site/stage.py FOLDER`.

Pages link to each other and to files of the checkout by relative paths, as GitHub shows them; in a folder with the same
arrangement every link leads where it did. Pages of the reference are made of `REFERENCE`.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Beside the pages: what they link to or show, but no engines.
LINKED = ("params.yaml", "dvc.yaml", "pyproject.toml", "CITATION.cff", "LICENSE")
FOLDERS = ("docs", "examples", "studies")
SUFFIXES = (".md", ".png", ".svg", ".jpg", ".json", ".yaml", ".css", ".js", ".py", ".sh")
LEFT_OUT = ("docs/site/mkdocs.yml", "docs/site/stage.py", "docs/site/docstrings.py")

# Page -> title, what it is about, and the modules or names whose docstrings it shows.
REFERENCE = {
    "serving": (
        "Reference: serving",
        "What a program on a device imports. `from serving import Predictor, read_image` has the usual names.",
        (
            "serving.engines.predictor",
            "serving.contract.manifest",
            "serving.contract.errors",
            "serving.images.image_io",
            "serving.images.geometry",
            "serving.render",
            "serving.golden.golden",
            "serving.golden.selftest",
            "serving.card.checking",
            "serving.engines.runtimes.runtime",
        ),
    ),
    "pipeline": (
        "Reference: training",
        "What a new loss, head or dataset is made of, and what a script reads.",
        (
            "pipeline.params",
            "pipeline.losses.shared.term",
            "pipeline.losses.shared.row_contrast",
            "pipeline.losses.info_nce",
            "pipeline.losses.sampling",
            "pipeline.models.network.head",
            "pipeline.models.network.config",
            "pipeline.models.network.weights",
            "pipeline.data.datasets.shared.dataset",
            "pipeline.data.datasets.shared.prepared",
            "pipeline.evaluation.metrics",
            "pipeline.evaluation.evaluation",
            "pipeline.training.config",
        ),
    ),
    "export": (
        "Reference: export",
        "What a new kind of artefact or a new check is made of, and what the certificate computes.",
        (
            "export.artifacts.shared.kind",
            "export.artifacts.shared.exporter",
            "export.checks.examination.context",
            "export.checks.verification",
            "export.graph.structure",
            "export.graph.costs",
            "export.targets.config",
            "export.latency.config",
            "export.certificate.certificate",
            "export.report.gate",
        ),
    ),
}


def staged_files() -> list[str]:
    """Names of the files of the checkout that the site holds."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return sorted(
        name
        for name in listed
        if (name in LINKED or (name.endswith(".md") and "/" not in name) or name.split("/")[0] in FOLDERS)
        and (name in LINKED or name.endswith(SUFFIXES))
        and name not in LEFT_OUT
        and (ROOT / name).is_file()
    )


def reference_page(name: str) -> str:
    """Markdown of one page of the reference, for mkdocstrings."""
    title, about, modules = REFERENCE[name]
    return f"# {title}\n\n{about}\n\n" + "\n".join(f"::: {module}\n" for module in modules)


def stage(folder: Path) -> None:
    """Make the folder anew."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in staged_files():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    for name in REFERENCE:
        page = folder / "docs" / "reference" / f"{name}.md"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(reference_page(name), encoding="utf-8")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    stage(parser.parse_args().folder)


if __name__ == "__main__":
    main()
