"""From images to the tensor an engine takes, and from its outputs to masks, as the manifest describes both.

Contrail's own engines take uint8 images and give uint8 masks: nothing happens here. Engines from elsewhere may want
normalised floats and give logits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serving.contract.errors import UserError
from serving.contract.manifest import InputSpec, Manifest, OutputSpec
from serving.images.geometry import resize_nearest

Array = NDArray[Any]
UInt8 = NDArray[np.uint8]

_ROUNDING = 0.01  # probabilities in reduced precision may leave 0..1 by so much
_MOST_COARSE = 32  # pixels of an image per value of an output: beyond, it says nothing of places


def to_input(images: UInt8, spec: InputSpec) -> Array:
    """The tensor that an engine takes.

    Args:
        images: `[B,h,w,3]` uint8 RGB, placed.
        spec: the engine's input.

    Returns:
        `[B,h,w,3]` or `[B,3,h,w]` of the spec's dtype, contiguous; `images` itself for Contrail's own contract.

    Example:
        >>> images = np.full((1, 2, 2, 3), 255, np.uint8)
        >>> spec = InputSpec(dtype="float32", layout="NCHW", mean=(127.5, 127.5, 127.5), std=(127.5, 127.5, 127.5))
        >>> tensor = to_input(images, spec)
        >>> tensor.shape, tensor.dtype.name, float(tensor.max())
        ((1, 3, 2, 2), 'float32', 1.0)
    """
    tensor: Array = images
    if spec.dtype != "uint8":
        tensor = images.astype(np.float32)
        if spec.mean is not None:
            tensor -= np.asarray(spec.mean, np.float32)
        if spec.std is not None:
            tensor *= 1 / np.asarray(spec.std, np.float32)
    if spec.color == "BGR":
        tensor = tensor[..., ::-1]
    if spec.layout == "NCHW":
        tensor = tensor.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(tensor, dtype=spec.dtype)


def require_shapes(outputs: Mapping[str, Array], manifest: Manifest, batch: int, size: tuple[int, int]) -> None:
    """Refuse outputs that cannot be laid over the images that went in.

    Args:
        outputs: by name, as the runtime gave them.
        manifest: of the engine.
        batch: number of images.
        size: their height and width, in pixels.

    Raises:
        UserError: empty, of another number of images or axes, or of a size that is no whole part of the images'.
    """
    for spec in manifest.outputs:
        shape = outputs[spec.name].shape
        sides = shape[2:4] if spec.layout == "NCHW" else shape[1:3]
        whole = len(shape) == len(spec.layout) and shape[0] == batch and 0 not in shape
        if whole and _covers(sides, size):
            continue
        other = {"NCHW": "NHWC", "NHWC": "NCHW"}.get(spec.layout, "")
        turned = other and len(shape) == 4 and _covers(shape[2:4] if other == "NCHW" else shape[1:3], size)
        raise UserError(
            f"output {spec.name!r} has shape {list(shape)} for {batch} image(s) of {size[0]}x{size[1]}; expected "
            f"{spec.layout} of {batch}, and their height and width or a whole part of them"
            + (f": is its layout {other}?" if turned else "")
        )


def to_masks(outputs: Mapping[str, Array], manifest: Manifest, size: tuple[int, int]) -> UInt8:
    """The masks in an engine's outputs, at the size of its input.

    Logits and probabilities of lower resolution are upsampled bilinearly (pixel centres, `align_corners=False`) before
    the argmax, masks by nearest.

    Args:
        outputs: by name, as the runtime gave them; see `require_shapes`.
        manifest: of the engine.
        size: height and width of the input, in pixels.

    Returns:
        `[B,h,w]` uint8 class indices.

    Raises:
        UserError: the output's channels or values are not what the manifest says.
    """
    spec = manifest.mask_output
    values = outputs[spec.name]
    if spec.content == "mask":
        return _to_classes(_single_channel(values, spec), manifest, size)
    scores = _scores(values, manifest)
    if scores.shape[1] == 1 and spec.content == "logits":
        return (_upsample(scores, size)[:, 0] > 0).astype(np.uint8)
    if spec.content == "sigmoid" or scores.shape[1] == 1:
        foregrounds = _upsample(scores, size)
        best: UInt8 = (foregrounds.argmax(axis=1) + 1).astype(np.uint8)
        best[foregrounds.max(axis=1) <= 0.5] = 0
        return best
    classes: UInt8 = _upsample(scores, size).argmax(axis=1).astype(np.uint8)
    return classes


def to_layers(outputs: Mapping[str, Array], manifest: Manifest, size: tuple[int, int]) -> UInt8 | None:
    """One mask per foreground of an engine whose classes may overlap: 255 where its probability is above 0.5, else 0.

    Returns:
        `[B,h,w,C-1]` uint8 for the classes after the background; None where the output is no sigmoid of several.
    """
    if not manifest.overlapping:
        return None
    foregrounds = _upsample(_scores(outputs[manifest.mask_output.name], manifest), size)
    return np.where(np.moveaxis(foregrounds, 1, -1) > 0.5, 255, 0).astype(np.uint8)


def to_confidences(outputs: Mapping[str, Array], manifest: Manifest, size: tuple[int, int]) -> UInt8 | None:
    """The confidence of every pixel's class, `[B,h,w]` uint8 in 0..255; None where the engine gives none.

    Raises:
        UserError: the values are neither whole numbers in 0..255 nor fractions in 0..1.
    """
    spec = manifest.confidence_output
    if spec is None:
        return None
    values = _single_channel(outputs[spec.name], spec)
    if values.dtype != np.uint8:
        low, high = values.min(), values.max()
        whole = values.dtype.kind in "iu"
        if not (low >= (0 if whole else -_ROUNDING) and high <= (255 if whole else 1 + _ROUNDING)):
            raise UserError(
                f"output {spec.name!r} holds {values.dtype} from {low:.4g} to {high:.4g}, which are no confidences; "
                "expected whole numbers in 0..255 or fractions in 0..1"
            )
        if not whole:
            values = np.clip(values.astype(np.float32), 0, 1) * 255 + 0.5
        values = values.astype(np.uint8)
    return np.stack([resize_nearest(value, *size) for value in values])


def _scores(values: Array, manifest: Manifest) -> Array:
    """`[B,C,h,w]` floats, of which the manifest says what they are.

    Raises:
        UserError: another number of channels, NaN or infinity (minus infinity may rule a class out), or values that the
            content cannot have.
    """
    spec = manifest.mask_output
    if spec.layout == "NHW":
        scores = values[:, None]
    else:
        scores = values if spec.layout == "NCHW" else np.moveaxis(values, -1, 1)
    channels, classes = scores.shape[1], manifest.num_classes
    wanted = {classes - 1} if spec.content == "sigmoid" else {classes, 1} if classes == 2 else {classes}
    if channels not in wanted:
        other = {"NCHW": "NHWC", "NHWC": "NCHW"}.get(spec.layout, "")
        turned = other and values.shape[-1 if other == "NHWC" else 1] in wanted
        raise UserError(
            f"output {spec.name!r} of shape {list(values.shape)} holds {channels} classes per pixel ({spec.layout}); "
            f"the manifest names {classes}" + (f": is its layout {other}?" if turned else "")
        )
    low, high = scores.min(), scores.max()
    if np.isnan(low) or (spec.content == "logits" and np.isposinf(high)):
        what = "NaN" if np.isnan(low) else "infinity"
        raise UserError(f"output {spec.name!r} holds {what}: the engine overflowed or is damaged")
    if spec.content != "logits" and not (low >= -_ROUNDING and high <= 1 + _ROUNDING):
        raise UserError(
            f"output {spec.name!r} holds values from {low:.4g} to {high:.4g}, which are no probabilities: are they "
            "logits?"
        )
    if spec.content == "logits" and channels == 1 and low >= 0 and 0 < high <= 1:
        raise UserError(
            f"output {spec.name!r} holds values from {low:.4g} to {high:.4g}, all foreground if they are logits: are "
            "they probabilities (sigmoid)?"
        )
    return scores


def _to_classes(values: Array, manifest: Manifest, size: tuple[int, int]) -> UInt8:
    """Class indices as uint8, whatever integer or float type they came in; refuses what names no class."""
    low, high = values.min(), values.max()
    if not (low >= 0 and high < manifest.num_classes):
        raise UserError(
            f"output {manifest.mask_output.name!r} holds class {high if low >= 0 else low}; the manifest names "
            f"{manifest.num_classes} classes: is it the manifest of another engine?"
        )
    masks = values.astype(np.uint8, copy=False)
    if values.dtype.kind == "f" and (masks != values).any():
        raise UserError(
            f"output {manifest.mask_output.name!r} holds fractions, which are no classes: are they probabilities?"
        )
    if masks.shape[1:] == size:
        return masks
    return np.stack([resize_nearest(mask, *size) for mask in masks])


def _single_channel(values: Array, spec: OutputSpec) -> Array:
    """`[B,h,w]` of an output that holds one value per pixel."""
    if spec.layout == "NHW":
        return values
    axis = 1 if spec.layout == "NCHW" else 3
    if values.shape[axis] != 1:
        raise UserError(
            f"output {spec.name!r} of shape {list(values.shape)}: {spec.content} in {spec.layout} has 1 channel, got "
            f"{values.shape[axis]}"
        )
    return values.squeeze(axis)


def _covers(sides: tuple[int, ...], size: tuple[int, int]) -> bool:
    """Whether an output of this size is the image's, or the image's over (or times) one whole number.

    Anything else may be a part cut out of the middle (an unpadded U-Net), or height and width exchanged.
    """
    if sides == size:
        return True
    for step in range(2, _MOST_COARSE + 1):
        if all(side in (full // step, -(-full // step)) for side, full in zip(sides, size, strict=True)):
            return True
        if all(side == full * step for side, full in zip(sides, size, strict=True)):
            return True
    return False


def _upsample(scores: Array, size: tuple[int, int]) -> Array:
    """`[B,C,h,w]` floats at another resolution."""
    if scores.shape[2:] == size:
        return scores
    height, width = size
    # Minus infinity, which rules a class out, times a weight of 0 would be NaN, which is the largest to an argmax.
    finite = np.maximum(scores.astype(np.float32), np.finfo(np.float32).min)
    # Pillow's filter for enlarging "F" images is the two-tap one over pixel centres with clamped edges.
    resized = [
        np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.BILINEAR))
        for plane in finite.reshape(-1, *scores.shape[2:])
    ]
    return np.stack(resized).reshape(*scores.shape[:2], height, width)
