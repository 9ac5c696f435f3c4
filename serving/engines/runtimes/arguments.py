"""The command-line arguments that choose a runtime and set it."""

from __future__ import annotations

import argparse
import json

from serving.contract.errors import UserError
from serving.engines.runtimes import RUNTIMES


def runtime_options(arguments: argparse.Namespace) -> dict[str, object]:
    """The runtime's options that were named: `--threads`, `--provider` and every `--option KEY=VALUE`.

    Raises:
        UserError: an option that is not KEY=VALUE.
    """
    options: dict[str, object] = {}
    for name in ("threads", "provider"):
        if getattr(arguments, name) is not None:
            options[name] = getattr(arguments, name)
    for text in arguments.option:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UserError(f"--option {text}: expected KEY=VALUE")
        try:
            options[key] = json.loads(value)
        except ValueError:
            options[key] = value
    return options


def add_runtime_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose and set the runtime."""
    parser.add_argument("--runtime", help=f"one of {', '.join(RUNTIMES)} (default: the usual one for the file)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: the runtime's)")
    parser.add_argument("--provider", help="ONNX Runtime's execution provider: cpu or cuda; what else runs is an error")
    parser.add_argument("--option", metavar="KEY=VALUE", action="append", default=[], help="any option of the runtime")
