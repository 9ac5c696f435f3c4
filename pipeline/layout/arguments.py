"""The command-line arguments that name a branch, the same for every stage and command."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping

from pipeline.layout.branches import BranchConfig
from serving.contract.errors import UserError, did_you_mean


def add_branch_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--branch NAME`, and `--method` with `--seed`, which say the same."""
    parser.add_argument("--branch", help="a name from the section `branches` of params.yaml")
    parser.add_argument("--method", help="instead of --branch: a name from the section `methods` of params.yaml")
    parser.add_argument("--seed", type=int, help="with --method")


def named_branch(
    arguments: argparse.Namespace, branches: Mapping[str, BranchConfig], methods: Collection[str]
) -> tuple[str, int]:
    """The method and seed that the arguments name.

    A method with a seed need not be among the branches: what trains and exports by hand is not DVC's business.

    Raises:
        UserError: none or both are named, or there is no such branch or method.
    """
    name, method, seed = arguments.branch, arguments.method, arguments.seed
    if name is not None and (method is not None or seed is not None):
        raise UserError("--branch: names method and seed already; leave --method and --seed out")
    if name is not None:
        if name not in branches:
            raise UserError(f"--branch: no branch {name!r} in params.yaml{did_you_mean(name, branches)}")
        return branches[name].method, branches[name].seed
    if method is None or seed is None:
        raise UserError("name the branch: --branch NAME, or --method NAME --seed N")
    if method not in methods:
        raise UserError(f"--method: no method {method!r} in params.yaml{did_you_mean(method, methods)}")
    if seed < 0:
        raise UserError(f"--seed: expected at least 0, got {seed}")
    return method, seed
