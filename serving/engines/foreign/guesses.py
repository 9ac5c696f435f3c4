"""What can be told of a model from elsewhere by its ONNX file: layouts, number of classes, what the output holds.

Everything here is read off shapes and operators, and where they leave a choice the answer is None: a wrong guess would
be a wrong mask without a word.
"""

from __future__ import annotations

from collections.abc import Mapping

from serving.engines.foreign.onnx_file import TensorInfo

_MOST_CLASSES = 256


def channel_layout(tensor: TensorInfo, channels: int) -> str | None:
    """NCHW or NHWC by the axis that has so many channels; None when both or neither has."""
    if tensor.shape is None or len(tensor.shape) != 4:
        return None
    first, last = tensor.shape[1] == channels, tensor.shape[3] == channels
    return None if first == last else ("NCHW" if first else "NHWC")


def output_layout(
    output: TensorInfo, *, channels: int | None, image: TensorInfo, input_layout: str | None
) -> str | None:
    """The layout of an output; None where its shape leaves a choice.

    Args:
        output: of the model.
        channels: values per pixel, where they are known.
        image: the model's input.
        input_layout: of the input, where it is known.
    """
    shape = output.shape
    if shape is None:
        return None
    if len(shape) != 4:
        return "NHW" if len(shape) == 3 else None
    if channels is not None:
        found = channel_layout(output, channels)
        if found is not None or (shape[1] == channels and shape[3] == channels):
            return found
    sides = fixed_size(image, input_layout)
    if sides is not None and (shape[1:3] == sides) != (shape[2:4] == sides):
        return "NHWC" if shape[1:3] == sides else "NCHW"
    first, last = shape[1], shape[3]
    if isinstance(first, int) and isinstance(last, int):
        return None if first == last else ("NCHW" if first < last else "NHWC")
    # One axis fixed and the other not: sizes are what stays open, classes are not.
    if isinstance(first, int) != isinstance(last, int):
        return "NCHW" if isinstance(first, int) else "NHWC"
    return "NCHW" if input_layout != "NHWC" else None


def class_count(output: TensorInfo, layout: str | None) -> int | None:
    """Values per pixel of an output; None where they are not fixed."""
    if output.shape is None or layout is None:
        return None
    if layout == "NHW":
        return 1
    count = output.shape[1 if layout == "NCHW" else -1] if len(output.shape) == 4 else None
    return count if isinstance(count, int) and 0 < count <= _MOST_CLASSES else None


def fixed_size(tensor: TensorInfo, layout: str | None) -> tuple[int, int] | None:
    """(height, width) of an image tensor where both are fixed."""
    sides = (tensor.shape or ())[2:4] if layout == "NCHW" else (tensor.shape or ())[1:3]
    if len(sides) == 2 and isinstance(sides[0], int) and isinstance(sides[1], int) and min(sides[0], sides[1]) > 0:
        return sides[0], sides[1]
    return None


def likely_content(output: TensorInfo, operators: Mapping[str, str], channels: int | None) -> str | None:
    """What an output holds, by its type and the operator that makes it; None where that does not tell.

    Args:
        output: of the model.
        operators: output name -> operator, of `onnx_file.output_operators`.
        channels: values per pixel, where they are known.
    """
    operator = operators.get(output.name)
    if operator == "ArgMax" or "int" in output.dtype:
        return "mask"
    if operator in ("Softmax", "Sigmoid"):
        return {"Softmax": "probabilities", "Sigmoid": "sigmoid"}[operator]
    return "logits" if operator or channels is not None else None
