"""The command line to try with a model from elsewhere: filled in what its file shows, named what it does not."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from serving.engines.foreign.guesses import channel_layout, class_count, likely_content, output_layout
from serving.engines.foreign.onnx_file import OnnxFile, TensorInfo

# Where the numbers of published models come from: mean, standard deviation, who trains so.
_NORMALISATIONS = (
    ("123.675,116.28,103.53", "58.395,57.12,57.375", "ImageNet's: torchvision, timm, mmsegmentation and most others"),
    ("127.5,127.5,127.5", "127.5,127.5,127.5", "-1..1: MobileNet and DeepLab of TensorFlow, PaddleSeg"),
    ("0,0,0", "255,255,255", "0..1: YOLO, MediaPipe"),
    ("0,0,0", "1,1,1", "0..255, where the graph normalises by itself"),
)


def option_name(flag: str) -> str:
    """An argument's name as it is typed."""
    return "--" + flag.replace("_", "-")


def usual_normalisations() -> str:
    """The usual ones, in a sentence."""
    return "Usual: " + "; ".join(f"--mean={mean} --std={std} ({who})" for mean, std, who in _NORMALISATIONS)


def proposal(file: OnnxFile, operators: Mapping[str, str], given: Mapping[str, object], typed: Sequence[str]) -> str:
    """What to try, what it rests on, and what has to be found out elsewhere.

    Args:
        file: the model.
        operators: output name -> operator that makes it.
        given: the options that describe the model, as far as they were typed.
        typed: program and arguments as they were typed.
    """
    image = file.inputs[0] if file.inputs else TensorInfo("image", "unknown", None)
    names = [output.name for output in file.outputs]
    chosen = given.get("output_name") or _likely_output(file, operators)
    output = file.outputs[names.index(str(chosen))] if chosen in names else TensorInfo("output", "unknown", None)
    layout = channel_layout(image, 3)
    out_layout = output_layout(output, channels=None, image=image, input_layout=layout)
    channels = class_count(output, out_layout)
    content = likely_content(output, operators, channels)
    options: dict[str, str] = {}
    unknown: list[str] = []
    if len(names) > 1:
        options["output_name"] = str(chosen or "NAME")
    if layout is None:
        options["input_layout"] = "NCHW|NHWC"
    options["output_content"] = content or "|".join(("logits", "probabilities", "sigmoid", "mask"))
    if out_layout is None:
        options["output_layout"] = "NCHW|NHWC"
    if content == "mask" or channels is None:
        options["classes"] = "NUMBER"
        unknown.append("how many classes there are, and their names (--classes=a,b,c)")
    else:
        unknown.append("the names of the classes (--classes=a,b,c)")
    if image.dtype != "uint8":
        options |= {"mean": "R,G,B", "std": "R,G,B"}
        usual = "".join(f"\n      --mean={mean} --std={std}  {who}" for mean, std, who in _NORMALISATIONS)
        unknown.insert(
            0, f"how images are normalised; the training code or preprocessor_config.json says it. Usual:{usual}"
        )
    unknown.append("whether channels are RGB or BGR (--color=BGR for models trained on OpenCV's images)")
    added = [f"{option_name(flag)}={value}" for flag, value in options.items() if flag not in given]
    shows = [f"input {_shown(image)}" + (f" {layout}" if layout else "")]
    maker = operators.get(output.name)
    shows.append(
        f"output {_shown(output)}"
        + (f" {out_layout}" if out_layout else "")
        + (f", {channels} per pixel" if channels else "")
        + (f", made by {maker}" if maker else "")
    )
    line = f"{shlex.join(typed)} {' '.join(map(_quoted, added))}"
    listed = "".join(f"\n    {each}" for each in unknown)
    return f"to try:\n  {line}\n  the file shows: {'; '.join(shows)}\n  it does not show:{listed}"


def _likely_output(file: OnnxFile, operators: Mapping[str, str]) -> str | None:
    """The only output, or the only one that is an image; None where there is a choice."""
    if len(file.outputs) == 1:
        return file.outputs[0].name
    images = [output.name for output in file.outputs if len(output.shape or ()) in (3, 4)]
    masks = [name for name in images if operators.get(name) == "ArgMax"]
    return masks[0] if len(masks) == 1 else images[0] if len(images) == 1 else None


def _quoted(option: str) -> str:
    return option if "|" not in option else f"'{option}'"


def _shown(tensor: TensorInfo) -> str:
    axes = ",".join(str(axis) or "?" for axis in tensor.shape or ())
    return f"{tensor.name!r} {tensor.dtype} [{axes}]"
