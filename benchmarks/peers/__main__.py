"""Other tools beside ours: files to masks, start, memory, size, and how many damaged engines their checks see.

`python -m benchmarks.peers BRANCH --json`, after `make peers`. Each tool turns a folder of JPEGs into masks with a
network of its own; ours does the same with the very file that the tool exported, on the same cores, in turns; the masks
must agree. BRANCH (artifacts/METHOD-sSEED) gives our own network: beside PyTorch, eager and compiled, and OpenVINO's
`benchmark_app`. The engine alone is ONNX Runtime with the image in memory already: no tool, a ceiling.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.peers.environments import PROGRAMS, ROOT, Done, Environment, ours_mb, own, run, threads
from benchmarks.peers.programs.protocol import CLASSES, HEIGHT, WIDTH
from benchmarks.serving import PICTURES
from serving.contract.command import require_at_least
from serving.contract.errors import UserError, did_you_mean, run_command

# Name of the environment, program and figures -> the distribution whose version is told.
TOOLS = {
    "ultralytics": ("ultralytics_semantic", "ultralytics"),
    "segmentation_models": ("segmentation_models", "segmentation-models-pytorch"),
    "dfine_segmentation": ("dfine_segmentation", "dfine-seg"),
    "geti_library": ("geti_library", "getitune"),
}
LOGITS = {"geti_library": "probabilities"}  # what its exported file gives; the others give masks
PARTS = ("throughput", "cold", "size", "damages")
MOST_DIFFERENT = 1e-3  # share of pixels: JPEGs are decoded by OpenCV there and by Pillow here


def main() -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__.partition("\n")[0])
    parser.add_argument("branch", type=Path, metavar="BRANCH", help="artifacts/METHOD-sSEED of a run with ONNX fp32")
    parser.add_argument("--images", type=int, default=100, help="of a round (default 100)")
    parser.add_argument("--rounds", type=int, default=5, help="in which all take turns (default 5)")
    parser.add_argument("--parts", default=",".join(PARTS), metavar="a,b", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--tools", default=",".join(TOOLS), metavar="a,b", help=f"of {', '.join(TOOLS)}")
    parser.add_argument("--json", action="store_true", help="as for every benchmark; this one prints nothing else")
    arguments = parser.parse_args()
    require_at_least(arguments, {"rounds": 1, "images": 3})
    parts, tools = _chosen("--parts", arguments.parts, PARTS), _chosen("--tools", arguments.tools, TOOLS)
    engine, stripped = arguments.branch / "onnx_fp32", arguments.branch / "stripped"
    for needed in (engine / "model.onnx", stripped / "segmentor.safetensors"):
        if {"throughput", "cold"} & set(parts) and not needed.exists():
            raise UserError(f"{needed}: no such file; name a branch that `dvc repro` made, such as artifacts/METHOD-s0")
    found: dict[str, object] = {"threads": threads(), "load_1min": round(os.getloadavg()[0], 2)}
    found |= {"size": [HEIGHT, WIDTH], "images": arguments.images, "rounds": arguments.rounds}
    if set(parts) != {"damages"}:
        found["tools"] = {tool: _made(tool) for tool in tools}
    with tempfile.TemporaryDirectory(prefix="contrail-peers-") as name:
        folder = Path(name)
        if "throughput" in parts:
            sources = _images(folder / "images", arguments.images)
            found["throughput"] = throughput(tools, engine, stripped, sources, folder, arguments.rounds)
        if "cold" in parts:
            found["cold"] = cold(tools, _images(folder / "image", 1), folder, arguments.rounds)
    if "size" in parts:
        sizes = {tool: round(Environment(tool).size_mb()) for tool in tools}
        found["size_mb"] = sizes | {"pytorch": round(Environment("pytorch").size_mb()), "contrail": round(ours_mb())}
    if "damages" in parts:
        from benchmarks.peers.damages import measured  # it brings PyTorch, which the other parts need not wait for

        found["damages"] = measured(Environment("polygraphy"))
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    return 0


def _chosen(option: str, text: str, known: Collection[str]) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in known:
            raise UserError(f"{option} {name}: no such one{did_you_mean(name, known)}")
    return names


def _images(folder: Path, count: int) -> Path:
    folder.mkdir()
    subprocess.run([sys.executable, "-c", PICTURES, folder, str(count), str(HEIGHT), str(WIDTH)], check=True)
    return folder


def _model(tool: str) -> Path:
    return ROOT / "models" / tool


def _made(tool: str) -> dict[str, object]:
    """The tool's exported network, made once, and what it is."""
    folder = _model(tool)
    told = folder / "network.json"
    if not told.exists():
        folder.mkdir(parents=True, exist_ok=True)
        done = Environment(tool).run(PROGRAMS / f"{TOOLS[tool][0]}.py", "make", folder)
        told.write_text(json.dumps(done.answer()))
    (site,) = (ROOT / tool / "lib").glob("python*/site-packages")
    (version,) = (each.version for each in importlib.metadata.distributions(name=TOOLS[tool][1], path=[str(site)]))
    found: dict[str, object] = json.loads(told.read_text())
    return {"version": version} | found


def _tool(tool: str, source: Path, target: Path) -> Done:
    return Environment(tool).run(PROGRAMS / f"{TOOLS[tool][0]}.py", "run", _model(tool), source, _empty(target))


def _ours(file: Path, source: Path, target: Path, *words: str) -> Done:
    command = [sys.executable, "-m", "serving.infer", source, "--engine", file, "--output", _empty(target), *words]
    return run([*map(str, command), "--threads", str(threads())])


def _ours_on_theirs(tool: str, source: Path, target: Path) -> Done:
    content = LOGITS.get(tool, "mask")
    told = ["--output-content", content, "--classes", str(CLASSES), "--mean", "0,0,0", "--std", "255,255,255"]
    return _ours(_model(tool) / "model.onnx", source, target, *told)


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def throughput(
    tools: list[str], engine: Path, stripped: Path, source: Path, folder: Path, rounds: int
) -> dict[str, object]:
    """Images per second and peak memory of all, in turns; ratios are medians over the rounds."""
    rates: dict[str, list[float]] = {}
    memory: dict[str, list[float]] = {}

    def note(side: str, done: Done, rate: float | None = None) -> None:
        rates.setdefault(side, []).append(done.answer()["images_per_second"] if rate is None else rate)
        memory.setdefault(side, []).append(done.resident_mb)

    def note_ours(side: str, done: Done) -> None:
        (rate,) = re.findall(r"([\d.]+) images per second", done.stdout + done.stderr)
        note(side, done, float(rate))

    for _ in range(rounds):
        note_ours("default/contrail", _ours(engine / "model.onnx", source, folder / "ours"))
        note("default/eager", own("stripped_pytorch.py", "run", stripped, source, _empty(folder / "theirs")))
        note("default/compiled", own("stripped_pytorch.py", "compiled", stripped, source, _empty(folder / "theirs")))
        note("default/engine", own("engine_alone.py", "run", engine, source, folder))
        note("default/benchmark_app", *_benchmark_app(engine / "model.onnx"))
        for tool in tools:
            note(f"{tool}/tool", _tool(tool, source, folder / "theirs"))
            note_ours(f"{tool}/contrail", _ours_on_theirs(tool, source, folder / "ours"))
            note(f"{tool}/engine", own("engine_alone.py", "run", _model(tool), source, folder))
            _require_same(tool, folder / "theirs", folder / "ours")
    found: dict[str, object] = {
        side: {
            "images_per_second": round(statistics.median(each), 2),
            "of_engine_alone": _ratio(each, rates[f"{side.partition('/')[0]}/engine"]),
            "resident_mb": round(statistics.median(memory[side])),
        }
        for side, each in rates.items()
    }
    found["contrail_over_tool"] = {tool: _ratio(rates[f"{tool}/contrail"], rates[f"{tool}/tool"]) for tool in tools}
    found["default_over_tool"] = {tool: _ratio(rates["default/contrail"], rates[f"{tool}/tool"]) for tool in tools}
    return found


def _ratio(ours: list[float], theirs: list[float]) -> dict[str, float]:
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    return {"median": round(statistics.median(ratios), 3), "low": round(min(ratios), 3), "high": round(max(ratios), 3)}


def _require_same(tool: str, theirs: Path, ours: Path) -> None:
    """Raise UserError where our masks are not the tool's: then the times would not be of the same work."""
    names, own_names = ({path.name for path in folder.glob("*.png")} for folder in (theirs, ours))
    if names != own_names:
        raise UserError(f"{tool}: it wrote {len(names)} masks and ours {len(own_names)}, of the same images")
    shares = [
        float((np.asarray(Image.open(path)) != np.asarray(Image.open(ours / path.name))).mean())
        for path in sorted(theirs.glob("*.png"))
    ]
    if not shares or statistics.mean(shares) > MOST_DIFFERENT:
        raise UserError(f"{tool}: its masks and ours differ in {statistics.mean(shares or [1]):.2%} of the pixels")


def _benchmark_app(file: Path) -> tuple[Done, float]:
    """OpenVINO's own measure of a file: as many streams of one thread as there are cores."""
    words = ["-m", str(file), "-shape", f"[1,{HEIGHT},{WIDTH},3]", "-hint", "none", "-nstreams", str(threads())]
    program = shutil.which("benchmark_app", path=str(Path(sys.executable).parent))
    if program is None:
        raise UserError("benchmark_app: not in this environment; install the extra openvino")
    done = run([program, *words, "-nthreads", str(threads()), "-t", "5", "-infer_precision", "f32"])
    (rate,) = re.findall(r"Throughput:\s+([\d.]+) FPS", done.stdout)
    return done, float(rate)


def cold(tools: list[str], source: Path, folder: Path, rounds: int) -> dict[str, object]:
    """Seconds from the start of a process to the end of one image, ours on the tool's own file."""
    seconds: dict[str, list[float]] = {}
    for _ in range(rounds + 1):  # the first one fills the cache of files
        for tool in tools:
            seconds.setdefault(f"{tool}/tool", []).append(_tool(tool, source, folder / "theirs").seconds)
            seconds.setdefault(f"{tool}/contrail", []).append(_ours_on_theirs(tool, source, folder / "ours").seconds)
    kept = {side: each[1:] for side, each in seconds.items()}
    found: dict[str, object] = {f"{side}_s": round(statistics.median(each), 2) for side, each in kept.items()}
    found["tool_over_contrail"] = {tool: _ratio(kept[f"{tool}/tool"], kept[f"{tool}/contrail"]) for tool in tools}
    return found


if __name__ == "__main__":
    run_command(main)
