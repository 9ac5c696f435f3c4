"""The program `contrail`: every command that users run, as a verb; `contrail VERB ...` is `python -m MODULE ...`.

Modules are named here and imported only when their verb is run, so that serving's verbs start without torch, and so
that the same program works where only a part of Contrail is installed.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from serving.contract.command import PROGRAM, require_one_distribution
from serving.contract.errors import UserError, did_you_mean, run_command

DISTRIBUTION = "contrail-seg"


@dataclass(frozen=True)
class Command:
    """What a verb stands for.

    Attributes:
        module: holds `main`, which reads `sys.argv` and returns the exit status.
        summary: for the list of verbs.
        distribution: what pip installs to have it.
    """

    module: str
    summary: str
    distribution: str = DISTRIBUTION


COMMANDS = {
    "infer": Command("serving.infer", "segment images with an exported engine"),
    "inspect": Command("serving.inspect", "say what an engine file is, and verify it against its manifest"),
    "selftest": Command("serving.selftest", "test on this machine that an engine computes what it computed in the lab"),
    "verify-card": Command(
        "serving.verify_card", "check a folder of engines against its model card and statement, without running any"
    ),
    "serve": Command("serving.server.__main__", "serve engines over HTTP"),
    "bulk": Command("serving.bulk.__main__", "segment the images below a URI on many machines, with Ray Data"),
    "check": Command("export.check", "run every check on one engine file"),
    "compare": Command("export.compare", "compare two reports"),
    "describe-data": Command(
        "pipeline.commands.describe_data", "look at a folder of images and labels, before training"
    ),
    "import": Command("pipeline.commands.import_data", "make a folder to train on of what a labelling tool exported"),
    "triton": Command("export.triton", "write an engine into a model repository of Triton's"),
    "describe": Command("pipeline.commands.describe", "what trains and what ships, and what each costs"),
    "evaluate": Command("pipeline.commands.evaluate", "evaluate a trained branch by the full protocol"),
    "recipe": Command("export.commands.recipe", "list the recipes, or merge one into params.yaml"),
    "sweep": Command("export.commands.sweep", "train methods with several seeds, as one experiment of DVC"),
    "validate": Command("pipeline.commands.validate", "say everything that is wrong with params.yaml"),
    "readme": Command("export.commands.readme", "write README's results block from a report"),
    "study": Command("studies.study", "train and compare methods over several seeds"),
    "experiment": Command("studies.run", "run an experiment of studies/, or go on with it"),
}

# `dvc repro` runs them in their order; one alone: `contrail stage NAME`.
STAGES = {
    "device": Command("export.stages.device", "record what this machine is"),
    "watch": Command("pipeline.stages.watch", "notice that the dataset's files changed"),
    "prepare": Command("pipeline.stages.prepare", "turn a dataset into training labels"),
    "train": Command("pipeline.stages.train", "train one branch"),
    "strip": Command("pipeline.stages.strip", "keep what ships of a trained branch"),
    "export": Command("export.stages.export", "write an artefact of a stripped branch"),
    "compile": Command("export.stages.compile", "build a target's engine of an artefact"),
    "verify": Command("export.stages.verify", "run every check on the engines of a branch"),
    "benchmark": Command("export.stages.benchmark", "measure the latency of every engine that works"),
    "certify": Command("export.stages.certify", "compare every method with the baseline"),
    "report": Command("export.stages.report", "write the report"),
    "gate": Command("export.stages.gate", "judge the report; exit 1 when anything in it fails"),
}


def main() -> int:
    """Run the verb that `sys.argv` names; returns its exit status."""
    require_one_distribution()
    arguments = sys.argv[1:]
    if not arguments:
        sys.stderr.write(_help())
        return 2
    verb = arguments.pop(0)
    if verb in ("-h", "--help"):
        sys.stdout.write(_help())
        return 0
    if verb == "--version":
        sys.stdout.write(f"{_version()}\n")
        return 0
    if verb != "stage":
        return _run(verb, _find("command", verb, [*COMMANDS, "stage"], COMMANDS), arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(_stage_help())
        return 0 if arguments else 2
    stage = arguments.pop(0)
    return _run(f"stage {stage}", _find("stage", stage, STAGES, STAGES), arguments)


def script() -> None:
    """What the installed program calls."""
    run_command(main)


def _find(kind: str, name: str, known: Iterable[str], table: Mapping[str, Command]) -> Command:
    if name not in table:
        raise UserError(f"unknown {kind} {name!r}{did_you_mean(name, known)}")
    return table[name]


def _run(verb: str, command: Command, arguments: list[str]) -> int:
    try:
        module = importlib.import_module(command.module)
    except ModuleNotFoundError as error:
        if error.name is None or importlib.util.find_spec(error.name.partition(".")[0]) is not None:
            raise  # not a package that is missing but a module inside one that is there: our own mistake
        raise UserError(
            f"{PROGRAM} {verb}: the package {error.name.partition('.')[0]!r} is not installed; "
            f"pip install {command.distribution}"
        ) from None
    sys.argv = [f"{PROGRAM} {verb}", *arguments]
    status: int = module.main()
    return status


def _version() -> str:
    from importlib import metadata  # only here: it costs every start otherwise

    for name in (DISTRIBUTION, "contrail-serving"):
        try:
            return f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            continue
    raise UserError(f"not installed by pip, so that the version is not known; pip install {DISTRIBUTION}")


def _help() -> str:
    rows = {**{verb: command.summary for verb, command in COMMANDS.items()}, "stage": "run one stage of the pipeline"}
    return (
        f"usage: {PROGRAM} VERB ...\n\n{_table(rows)}\n\n`{PROGRAM} VERB --help` says what a verb takes, "
        f"`{PROGRAM} --version` which version this is.\n"
    )


def _stage_help() -> str:
    rows = {name: command.summary for name, command in STAGES.items()}
    return f"usage: {PROGRAM} stage NAME ...\n\n{_table(rows)}\n\n`dvc repro` runs what has changed, in order.\n"


def _table(rows: Mapping[str, str]) -> str:
    width = max(map(len, rows))
    return "\n".join(f"  {name:{width}}  {said}" for name, said in rows.items())


if __name__ == "__main__":
    script()
