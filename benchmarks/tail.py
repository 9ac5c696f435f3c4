"""Forms of the graph's tail, from small logits to a mask: `python -m benchmarks.tail [--classes 8 19] [--json]`.

After the last convolution an engine resizes the logits to the image's size and takes the argmax over the classes: in
single precision, also in an INT8 file, since rounded logits would tie. What the same two steps cost in other forms is
measured here, in ONNX Runtime and OpenVINO with one thread, the forms taking turns; and in how many pixels their masks
differ from those of the form that ships.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from rich.table import Table

from export.machine.device import read_device
from export.machine.hardware import device_summary
from export.pages.terminal import terminal
from serving.contract.command import program_name
from serving.contract.errors import UnavailableError, UserError, run_command
from serving.engines.runtimes.openvino.engine import import_openvino, shared_core

SCALE = 8
SHIPPED = "shipped"
Infer = Callable[[NDArray[np.float32]], NDArray[Any]]


def main() -> int:
    """Measure all forms in both runtimes."""
    parser = argparse.ArgumentParser(prog=program_name("benchmarks.tail"), description=__doc__)
    parser.add_argument("--classes", type=int, nargs="+", default=[8, 19], help="numbers of classes; default: 8 19")
    parser.add_argument("--side", type=int, default=512, help="of the masks, in pixels; default: 512")
    parser.add_argument("--rounds", type=int, default=40, help="in which each form runs once; default: 40")
    parser.add_argument("--json", action="store_true", help="write JSON to standard output")
    arguments = parser.parse_args()
    if min(arguments.classes) < 2 or arguments.side < SCALE or arguments.side % SCALE or arguments.rounds < 1:
        raise UserError(f"expected --classes of at least 2, --side a multiple of {SCALE}, --rounds of at least 1")
    rows = [row for classes in arguments.classes for row in run(classes, arguments.side, arguments.rounds)]
    if arguments.json:
        found = {"device": read_device(), "side": arguments.side, "rounds": arguments.rounds, "forms": rows}
        sys.stdout.write(json.dumps(found, indent=2, default=str) + "\n")
        return 0
    console = terminal()
    table = Table("classes", "runtime", "form", "ms", "of the shipped form", "pixels that differ")
    for row in rows:
        cells = (f"{row['ms']:.2f}", f"{row['ratio']:.2f}", str(row["differing_pixels"]))
        table.add_row(str(row["classes"]), row["runtime"], row["form"], *cells)
    console.print(device_summary(read_device()))
    console.print(table)
    return 0


def run(classes: int, side: int, rounds: int) -> list[dict[str, Any]]:
    """Time every form in every runtime that is installed.

    Args:
        classes: C of the logits `[1,C,side/8,side/8]`.
        side: of the mask.
        rounds: in each of which every form runs once, after one that is not counted.

    Returns:
        One row per runtime and form: `classes`, `runtime`, `form`, `ms` (median), `ratio` (to the shipped form's time,
        median over the rounds), `differing_pixels`.
    """
    logits = np.random.default_rng(0).normal(size=(1, classes, side // SCALE, side // SCALE)).astype(np.float32)
    rows = []
    for runtime, opened in (("onnxruntime", _onnxruntime), ("openvino", _openvino)):
        try:
            forms = {name: opened(model) for name, model in models(classes).items()}
        except UnavailableError:
            continue
        masks = {name: infer(logits) for name, infer in forms.items()}
        times: dict[str, list[float]] = {name: [] for name in forms}
        for _ in range(rounds):
            for name, infer in forms.items():
                start = time.perf_counter()
                infer(logits)
                times[name].append(1e3 * (time.perf_counter() - start))
        rows += [
            {
                "classes": classes,
                "runtime": runtime,
                "form": name,
                "ms": statistics.median(taken),
                "ratio": statistics.median(a / b for a, b in zip(taken, times[SHIPPED], strict=True)),
                "differing_pixels": int((masks[name] != masks[SHIPPED]).sum()),
            }
            for name, taken in times.items()
        ]
    return rows


def models(classes: int) -> Mapping[str, ModelProto]:
    """Every form as a graph from `logits [B,C,h,w]` float32 to `mask [B,8h,8w]` uint8."""
    resize = _resize("logits", "large", [1, 1, SCALE, SCALE])
    transpose = {"perm": [0, 2, 3, 1]}
    return {
        SHIPPED: _model(classes, *resize, _argmax("large", 1), _cast()),
        "channels last": _model(
            classes,
            helper.make_node("Transpose", ["logits"], ["last"], **transpose),
            *_resize("last", "large", [1, SCALE, SCALE, 1]),
            _argmax("large", 3),
            _cast(),
        ),
        "channels last from the argmax on": _model(
            classes,
            *resize,
            helper.make_node("Transpose", ["large"], ["last"], **transpose),
            _argmax("last", 3),
            _cast(),
        ),
        "pixels on one axis": _model(
            classes,
            *resize,
            numpy_helper.from_array(np.array([0, 0, -1]), "flat_shape"),
            numpy_helper.from_array(np.array([0, 2, 3]), "axes"),
            helper.make_node("Shape", ["large"], ["shape"]),
            helper.make_node("Gather", ["shape", "axes"], ["mask_shape"]),
            helper.make_node("Reshape", ["large", "flat_shape"], ["flat"]),
            helper.make_node("ArgMax", ["flat"], ["flat_classes"], axis=1, keepdims=0),
            helper.make_node("Reshape", ["flat_classes", "mask_shape"], ["classes"]),
            _cast(),
        ),
        "class by class": _model(classes, *resize, *_class_by_class(classes)),
    }


def _class_by_class(classes: int) -> list[NodeProto | TensorProto]:
    """The largest so far and its class, over the classes one after the other."""
    parts: list[NodeProto | TensorProto] = [
        helper.make_node("Split", ["large"], [f"of_{i}" for i in range(classes)], axis=1, num_outputs=classes),
        *(numpy_helper.from_array(np.full((1, 1, 1, 1), i, np.uint8), f"class_{i}") for i in range(classes)),
        numpy_helper.from_array(np.array([1]), "axis"),
    ]
    largest, found = "of_0", "class_0"
    for i in range(1, classes):
        parts += [
            helper.make_node("Greater", [f"of_{i}", largest], [f"greater_{i}"]),
            helper.make_node("Where", [f"greater_{i}", f"class_{i}", found], [f"found_{i}"]),
        ]
        if i < classes - 1:
            parts.append(helper.make_node("Max", [f"of_{i}", largest], [f"largest_{i}"]))
        largest, found = f"largest_{i}", f"found_{i}"
    return [*parts, helper.make_node("Squeeze", [found, "axis"], ["mask"])]


def _resize(source: str, target: str, scales: list[int]) -> list[NodeProto | TensorProto]:
    return [
        numpy_helper.from_array(np.array(scales, np.float32), "scales"),
        helper.make_node(
            "Resize", [source, "", "scales"], [target], mode="linear", coordinate_transformation_mode="half_pixel"
        ),
    ]


def _argmax(source: str, axis: int) -> NodeProto:
    return helper.make_node("ArgMax", [source], ["classes"], axis=axis, keepdims=0)


def _cast() -> NodeProto:
    return helper.make_node("Cast", ["classes"], ["mask"], to=TensorProto.UINT8)


def _model(classes: int, *parts: NodeProto | TensorProto) -> ModelProto:
    graph = helper.make_graph(
        [part for part in parts if isinstance(part, NodeProto)],
        "tail",
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", classes, "height", "width"])],
        [helper.make_tensor_value_info("mask", TensorProto.UINT8, None)],
        [part for part in parts if isinstance(part, TensorProto)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def _onnxruntime(model: ModelProto) -> Infer:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda logits: np.asarray(session.run(None, {"logits": logits})[0])


def _openvino(model: ModelProto) -> Infer:
    core = shared_core(import_openvino())
    settings = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU", settings)
    request = compiled.create_infer_request()
    return lambda logits: np.array(request.infer({0: logits})[compiled.outputs[0]])


if __name__ == "__main__":
    run_command(main)
