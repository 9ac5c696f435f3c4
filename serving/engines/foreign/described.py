"""Models from elsewhere: a manifest made from what the user says on the command line and what the file says itself."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import get_args

from serving.contract.errors import UserError
from serving.contract.files import why_no_file
from serving.contract.manifest import (
    METADATA_KEY,
    InputDtype,
    Layout,
    Manifest,
    OutputContent,
    OutputLayout,
    read_manifest,
    sidecar_path,
)
from serving.contract.schema import Problems, build
from serving.engines.foreign.guesses import channel_layout, class_count, fixed_size
from serving.engines.foreign.guesses import output_layout as guess_layout
from serving.engines.foreign.onnx_file import OnnxFile, TensorInfo, output_operators, read_onnx

_INPUT_FLAGS = ("input_layout", "color", "mean", "std", "stride", "resize")
_FLAGS = ("output_name", "output_content", "output_layout", "classes", *_INPUT_FLAGS)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that describe a model without a manifest of ours."""
    group = parser.add_argument_group("models from elsewhere (ONNX without our manifest)")
    group.add_argument(
        "--manifest", type=Path, help="a hand-written manifest.json, in place of the one beside the file"
    )
    group.add_argument(
        "--output-content",
        choices=[each for each in get_args(OutputContent) if each != "confidence"],
        help="what the output holds per pixel; sigmoid: a foreground each, beside a background",
    )
    group.add_argument(
        "--classes", help="number of classes, their names (a,b,c), or a text file with one name per line"
    )
    group.add_argument("--input-layout", choices=get_args(Layout))
    group.add_argument("--color", choices=("RGB", "BGR"))
    group.add_argument("--mean", help="R,G,B subtracted, in 0..255 units; 0,0,0 where nothing is")
    group.add_argument("--std", help="R,G,B divided by, in 0..255 units; 1,1,1 where nothing is")
    group.add_argument("--stride", type=int, help="height and width are padded to multiples of it (default 32)")
    group.add_argument(
        "--resize", metavar="HxW", help="size that images are resized to (default: the model's, if fixed)"
    )
    group.add_argument("--output-name", help="the output to use, where there are several")
    group.add_argument("--output-layout", choices=get_args(OutputLayout))


def manifest_from(arguments: argparse.Namespace, engine_path: Path, *, typed: Sequence[str] = ()) -> Manifest | None:
    """The manifest that the user gave or described; None when they did neither (the one beside the file holds).

    Args:
        arguments: as parsed; see `add_arguments`.
        engine_path: the engine file.
        typed: the program's name and its arguments as they were typed, for the command line that an error proposes.

    Raises:
        UserError: described in two ways at once, or not enough to run it.
    """
    given = {flag: getattr(arguments, flag) for flag in _FLAGS if getattr(arguments, flag) is not None}
    if arguments.manifest is not None:
        if given:
            raise UserError(f"{_flags(given)} beside --manifest: describe the model in one of the two ways")
        return read_manifest(arguments.manifest)
    sidecar = sidecar_path(engine_path)
    is_described = os.path.lexists(sidecar)
    if is_described or why_no_file(engine_path):
        if given and is_described:
            raise UserError(f"{_flags(given)}: {sidecar} describes this model already; leave the options out")
        return None
    file = _foreign_file(engine_path, required=bool(given))
    if file is None:
        return None
    try:
        if not given:
            raise UserError(f"{engine_path}: no {sidecar.name} beside it, and nothing said of it")
        return describe(
            file,
            engine_path,
            content=arguments.output_content,
            classes=arguments.classes,
            input_layout=arguments.input_layout,
            color=arguments.color or "RGB",
            mean=parse_numbers("--mean", arguments.mean),
            std=parse_numbers("--std", arguments.std),
            stride=arguments.stride,
            resize=parse_size("--resize", arguments.resize),
            output_name=arguments.output_name,
            output_layout=arguments.output_layout,
        )
    except UserError as error:
        from serving.engines.foreign.proposal import proposal  # only now: cold starts of our own engines need none

        advice = proposal(file, output_operators(engine_path), given, typed)
        raise UserError(f"{error}\n{advice}") from error


def describe(
    file: OnnxFile,
    source: Path,
    *,
    content: str | None,
    classes: str | None,
    input_layout: str | None = None,
    color: str = "RGB",
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    stride: int | None = None,
    resize: tuple[int, int] | None = None,
    output_name: str | None = None,
    output_layout: str | None = None,
) -> Manifest:
    """Make a manifest for an ONNX file; what the file says itself (names, dtypes, fixed sizes) need not be given.

    Raises:
        UserError: everything that is missing or does not fit, at once.
    """
    from serving.engines.foreign.proposal import usual_normalisations  # only now, as above

    problems: list[str] = []
    image = _only_input(file, problems)
    layout = _input_layout(image, input_layout, problems)
    if image.dtype not in get_args(InputDtype):
        problems.append(
            f"input {image.name!r} is {image.dtype}; only {', '.join(get_args(InputDtype))} images can be fed"
        )
    elif image.dtype != "uint8" and (mean is None or std is None):
        missing = " and ".join(flag for flag, value in (("--mean", mean), ("--std", std)) if value is None)
        problems.append(
            f"{missing}: the model takes {image.dtype} images and does not say how they were normalised; its training "
            f"code or preprocessor_config.json does. {usual_normalisations()}"
        )
    fixed = fixed_size(image, layout)
    if resize is not None and fixed is not None and resize != fixed:
        problems.append(f"--resize {resize[0]}x{resize[1]}: the model runs at {fixed[0]}x{fixed[1]} only")
    output = _chosen_output(file, output_name, problems)
    if content is None:
        problems.append(f"--output-content: say what {output.name!r} holds: mask, logits, probabilities or sigmoid")
    names = _given_names(classes)
    channels = _expected_channels(content, names)
    found_layout = output_layout or guess_layout(output, channels=channels, image=image, input_layout=layout)
    if found_layout is None:
        problems.append(f"--output-layout: cannot be told from the shape {list(output.shape or ())}; NCHW or NHWC")
    class_names = _class_names(names, content, class_count(output, found_layout), problems)
    values = {
        "name": "described",
        "kind": "onnx",
        "precision": "unknown",
        "input": {
            "name": image.name,
            "layout": layout,
            "dtype": image.dtype,
            "color": color,
            "mean": mean,
            "std": std,
            "resize": fixed or resize,
            "stride": stride if stride is not None else 1 if fixed else 32,
        },
        "outputs": [{"name": output.name, "content": content, "layout": found_layout, "dtype": output.dtype}],
        "class_names": class_names,
        "palette": voc_palette(len(class_names)),
    }
    found = Problems(problems)
    manifest = build(Manifest, values, "described model", found) if not problems else None
    if manifest is None:
        raise UserError(f"{source}: cannot be run as described:" + "".join(f"\n  {problem}" for problem in found))
    return manifest


def voc_palette(count: int) -> list[tuple[int, int, int]]:
    """The PASCAL VOC colours: the bits of the index, highest colour bits first, dealt to R, G and B in turn."""
    palette = []
    for index in range(count):
        color = [0, 0, 0]
        for bit in range(8):
            color[bit % 3] |= (index >> bit & 1) << (7 - bit // 3)
        palette.append((color[0], color[1], color[2]))
    return palette


def parse_size(flag: str, text: str | None) -> tuple[int, int] | None:
    """`HxW` in pixels; raises UserError for anything else."""
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() and 0 < int(part) < 65536 for part in parts):
        raise UserError(f"{flag}: expected HEIGHTxWIDTH in pixels, as in 512x1024, got {text!r}")
    return int(parts[0]), int(parts[1])


def parse_numbers(flag: str, text: str | None) -> tuple[float, ...] | None:
    """Three numbers, `R,G,B`; raises UserError for anything else."""
    if text is None:
        return None
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != 3:
        raise UserError(
            f"{flag}: expected three numbers R,G,B in 0..255 units, as in 123.675,116.28,103.53, got {text!r}"
        )
    return numbers


def _flags(given: Iterable[str]) -> str:
    """The options of a command line by the names of their values."""
    from serving.engines.foreign.proposal import option_name  # only now, as above

    return ", ".join(map(option_name, given))


def _only_input(file: OnnxFile, problems: list[str]) -> TensorInfo:
    if len(file.inputs) == 1 and len(file.inputs[0].shape or (0,) * 4) == 4:
        return file.inputs[0]
    shown = [f"{each.name} {list(each.shape or ())}" for each in file.inputs]
    problems.append(f"inputs: expected one image of four axes, the model has {', '.join(shown) or 'none'}")
    return TensorInfo("image", "float32", None)


def _chosen_output(file: OnnxFile, name: str | None, problems: list[str]) -> TensorInfo:
    names = [output.name for output in file.outputs]
    if name is None and len(names) > 1:
        problems.append(f"--output-name: the model has several outputs, choose one of {', '.join(names)}")
    elif name is not None and name not in names:
        problems.append(f"--output-name {name}: the model has {', '.join(names)}")
    elif names:
        return file.outputs[names.index(name) if name else 0]
    return TensorInfo(name or "output", "float32", None)


def _foreign_file(engine_path: Path, *, required: bool) -> OnnxFile | None:
    """What an ONNX file from elsewhere says of itself; None for other files and for our own, which lost its manifest.

    Raises:
        UserError: it cannot be read, and is `required` to be.
    """
    try:
        file = read_onnx(engine_path)
    except UserError:
        if required:
            raise
        return None
    return None if METADATA_KEY in file.metadata and not required else file


def _input_layout(image: TensorInfo, given: str | None, problems: list[str]) -> str:
    layout = given or channel_layout(image, 3)
    if layout is not None:
        return layout
    shape = image.shape or ()
    fixed = [axis for axis in shape[1:2] + shape[3:4] if isinstance(axis, int)]
    if len(fixed) == 2 and 3 not in fixed:
        problems.append(f"input {image.name!r} has shape {list(shape)}: only images of three channels can be fed")
    else:
        problems.append(f"--input-layout: cannot be told from the shape {list(shape)}; give NHWC or NCHW")
    return "NCHW"


def _expected_channels(content: str | None, names: Sequence[str] | int | None) -> int | None:
    """Values per pixel of the output, as far as its content and the number of classes tell."""
    if content == "mask":
        return 1
    count = names if isinstance(names, int) else None if names is None else len(names)
    return count if content in ("logits", "probabilities") else None


def _given_names(text: str | None) -> list[str] | int | None:
    """What --classes names: names, or only their number; None where it was not given."""
    if text is None:
        return None
    if text.isascii() and text.isdigit():
        return min(int(text), 257)  # 257: refused by the manifest
    if "," not in text and why_no_file(Path(text)) is None:
        try:
            lines = Path(text).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"--classes {text}: cannot be read as text: {error}") from error
        return [line.strip() for line in lines if line.strip()]
    if "," not in text:
        raise UserError(
            f"--classes {text}: no such file; give a number, names as a,b,c, or a file with one name per line"
        )
    return [name.strip() for name in text.split(",")]


def _class_names(
    given: list[str] | int | None, content: str | None, channels: int | None, problems: list[str]
) -> list[str]:
    """Names of all classes; with a sigmoid output, a background before the foregrounds."""
    if content == "sigmoid":
        if isinstance(given, list):
            return ["background", *given] if len(given) == channels else given
        count = given if given is not None else None if channels is None else channels + 1
        count = count + 1 if count is not None and count == channels else count
    else:
        if isinstance(given, list):
            return given
        count = given if given is not None else channels if content in ("logits", "probabilities") else None
        count = 2 if count == 1 else count
    if count is None:
        problems.append("--classes: cannot be told from the model; give their number, names, or a file of names")
        return ["class 0"]
    return [f"class {index}" for index in range(count)]
