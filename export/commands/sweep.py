"""`python -m export.commands.sweep --methods A B --seeds 0 1 2`: methods over several seeds, as one experiment of DVC.

The branches that params.yaml lacks are set by `dvc exp run -S '+branches...'`, in a clone of the checkout below
`runs/sweep` that shares DVC's cache: params.yaml stays as it is, whatever happens. A sweep that was stopped goes on by
the same command: finished branches are in the cache, the one that was being trained goes on from its last checkpoint.
The report, over all branches of params.yaml and of the sweep, is the clone's.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from export.targets.config import CompileConfig, ExportConfig, needed_compiles, needed_exports
from export.targets.references import shown
from pipeline.layout.branches import BranchConfig, branch_name
from pipeline.layout.paths import METRICS_DIR, REPORTS_DIR, RUNS_DIR
from pipeline.params import Params, load_params
from serving.contract.command import program_name
from serving.contract.errors import UserError, did_you_mean, run_command

FOLDER = RUNS_DIR / "sweep"
_CODE = ("pipeline", "export", "serving")  # where a file that git does not know yet would be missed
_MADE = ("dvc.lock", f"{METRICS_DIR.as_posix()}/")  # what a run makes: of no concern to the next one


def overrides(params: Params, methods: Sequence[str], seeds: Sequence[int]) -> list[str]:
    """What `dvc exp run -S` is to set, so that every method and the baseline train with every seed.

    Args:
        params: what the sweep starts from; lines that it has are not set again.
        methods: names from the section `methods`.
        seeds: of everything that is drawn at random.

    Returns:
        `+SECTION.KEY={...}` for every line that branches, exports and compiles lack.

    Raises:
        UserError: unknown methods, or seeds below 0; all are named.
    """
    problems = [
        f"METHODS: {name!r} is not in the section methods of params.yaml{did_you_mean(name, params.methods)}"
        for name in methods
        if name not in params.methods
    ]
    problems += [f"SEEDS: expected at least 0, got {seed}" for seed in seeds if seed < 0]
    if problems:
        raise UserError("\n".join(problems))
    branches = dict(params.branches)
    for seed in seeds:
        for method in (params.certify.baseline, *methods):
            branch = BranchConfig(method, params.methods[method].loss, seed)
            branches.setdefault(branch.name, branch)
    exports = needed_exports(branches, params.artifacts, params.targets, params.deploy)
    compiles = needed_compiles(branches, params.targets, params.deploy)
    there: dict[str, Collection[str]] = {
        "branches": params.branches,
        "exports": params.exports,
        "compiles": params.compiles,
    }
    wanted: dict[str, Mapping[str, BranchConfig | ExportConfig | CompileConfig]] = {
        "branches": branches,
        "exports": exports,
        "compiles": compiles,
    }
    return [
        f"+{section}.{key}={shown(entry)}"
        for section, entries in wanted.items()
        for key, entry in entries.items()
        if key not in there[section]
    ]


def run_sweep(root: Path, methods: Sequence[str], seeds: Sequence[int]) -> int:
    """Run a sweep, or go on with it; the status of `dvc exp run`.

    Args:
        root: of the checkout.
        methods: names from the section `methods`.
        seeds: one branch of each method for each.

    Raises:
        UserError: a method or seed is wrong, the checkout is no git repository, has changes that are not committed, or
            a sweep of it runs already.
    """
    settings = [part for each in overrides(load_params(root / "params.yaml"), methods, seeds) for part in ("-S", each)]
    _require_committed(root)
    folder = root / FOLDER
    folder.parent.mkdir(exist_ok=True)
    with _only_one(folder.with_suffix(".lock")) as lock:
        commit = _clone(root, folder)
        name = f"sweep-{hashlib.sha256(' '.join([commit, *settings]).encode()).hexdigest()[:8]}"
        _forget(folder, name)  # one that finished is looked through again, and takes a moment
        command = [sys.executable, "-m", "dvc", "exp", "run", "--name", name, *settings]
        status = subprocess.run(command, cwd=folder, check=False, pass_fds=[lock]).returncode
        if status == 0:
            reference = _reference(folder, name)
            _git(root, "fetch", "--quiet", str(folder), f"+{reference}:{reference}")
    reports = (FOLDER / REPORTS_DIR / "report.html", FOLDER / REPORTS_DIR / "report.md")
    if status == 0:
        trained = ", ".join(branch_name(method, seed) for method in methods for seed in seeds)
        sys.stdout.write(f"{trained}: {reports[0]}, {reports[1]}\nkept as `dvc exp show` and `dvc exp apply {name}`\n")
    else:
        sys.stderr.write(f"error: the sweep ended early, above is why; {FOLDER} keeps what is done: run it again\n")
    return status


def _require_committed(root: Path) -> None:
    try:
        changed = _git(root, "status", "--porcelain", "--untracked-files=all").splitlines()
    except FileNotFoundError:
        raise UserError("no program git: an experiment is kept in a git repository") from None
    paths = [
        path
        for state, path in ((line[:2], line[3:]) for line in changed)
        if not path.startswith(_MADE) and (state != "??" or path.partition("/")[0] in _CODE)
    ]
    if paths:
        listed = ", ".join(paths[:5]) + (f" and {len(paths) - 5} more" if len(paths) > 5 else "")
        raise UserError(f"a sweep runs what is committed: commit first, or undo, the changes of {listed}")


@contextmanager
def _only_one(path: Path) -> Iterator[int]:
    """Hold a lock, whose descriptor DVC inherits: should this process be killed alone, DVC's goes on and holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield descriptor
    except BlockingIOError:
        raise UserError(f"{path}: a sweep of this checkout runs already; wait until it ends, or end it") from None
    finally:
        os.close(descriptor)


def _clone(root: Path, folder: Path) -> str:
    """Bring the clone to the commit of the checkout, which is returned; what a stopped run left of its files goes."""
    if not folder.exists():
        new = folder.with_suffix(".new")
        shutil.rmtree(new, ignore_errors=True)
        _git(root, "clone", "--quiet", "--no-checkout", str(root), str(new))
        for key in ("user.name", "user.email"):  # of the commit that keeps the experiment
            found = subprocess.run(["git", "config", key], cwd=root, capture_output=True, text=True, check=False).stdout
            _git(new, "config", key, found.strip() or "sweep")
        new.rename(folder)
    _git(folder, "fetch", "--quiet", str(root), "HEAD")
    _git(folder, "reset", "--quiet", "--hard", "FETCH_HEAD")
    local = root / ".dvc/config.local"
    if local.exists():
        shutil.copy(local, folder / ".dvc/config.local")
    cache = _run(root, sys.executable, "-m", "dvc", "cache", "dir").strip()
    _run(folder, sys.executable, "-m", "dvc", "cache", "dir", "--local", str((root / cache).resolve()))
    return _git(folder, "rev-parse", "HEAD").strip()


def _forget(folder: Path, name: str) -> None:
    while reference := _reference(folder, name):
        _git(folder, "update-ref", "-d", reference)


def _reference(folder: Path, name: str) -> str:
    """What git calls an experiment; empty for none."""
    names = _git(folder, "for-each-ref", "--format=%(refname)", "refs/exps").split()
    return next((each for each in names if each.rpartition("/")[2] == name), "")


def _git(folder: Path, *arguments: str) -> str:
    return _run(folder, "git", *arguments)


def _run(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"{' '.join(command)}: {' '.join(done.stderr.split()) or f'status {done.returncode}'}")
    return done.stdout


def main() -> int:
    """Run a sweep, or go on with it."""
    parser = argparse.ArgumentParser(
        prog=program_name("export.commands.sweep"), description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--methods", nargs="+", required=True, help="names from the section methods of params.yaml")
    parser.add_argument("--seeds", nargs="+", type=int, required=True, help="one branch of each method for each")
    arguments = parser.parse_args()
    return run_sweep(Path.cwd(), arguments.methods, arguments.seeds)


if __name__ == "__main__":
    run_command(main)
