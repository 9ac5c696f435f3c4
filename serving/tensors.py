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


def to_masks(outputs: Mapping[str, Array], manifest: Manifest, size: tuple[int, int]) -> UInt8:
    """The masks in an engine's outputs, at the size of its input.

    Logits and probabilities of lower resolution are upsampled bilinearly (pixel centres, `align_corners=False`) before
    the argmax, masks by nearest.

    Args:
        outputs: by name, as the runtime gave them.
        manifest: of the engine.
        size: height and width of the input, in pixels.

    Returns:
        `[B,h,w]` uint8 class indices.

    Raises:
        UserError: the output's shape or values are not what the manifest says.
    """
    spec = manifest.mask_output
    values = outputs[spec.name]
    if spec.content == "mask":
        return _to_classes(_single_channel(values, spec), manifest, size)
    if spec.content == "sigmoid":
        return (_upsample(_single_channel(values, spec)[:, None], size)[:, 0] > 0.5).astype(np.uint8)
    scores = values if spec.layout == "NCHW" else np.moveaxis(values, -1, 1)
    channels = scores.shape[1]
    if channels != manifest.num_classes and (channels, manifest.num_classes) != (1, 2):
        raise UserError(
            f"output {spec.name!r} of shape {list(values.shape)} holds {channels} classes per pixel ({spec.layout}); "
            f"the manifest names {manifest.num_classes}"
        )
    scores = _upsample(scores, size)
    if np.isnan(scores).any():
        raise UserError(f"output {spec.name!r} holds NaN: the engine overflowed or is damaged")
    if channels == 1:
        return (scores[:, 0] > (0 if spec.content == "logits" else 0.5)).astype(np.uint8)
    classes: UInt8 = scores.argmax(axis=1).astype(np.uint8)
    return classes


def to_confidences(outputs: Mapping[str, Array], manifest: Manifest, size: tuple[int, int]) -> UInt8 | None:
    """The confidence of every pixel's class, `[B,h,w]` uint8 in 0..255; None where the engine gives none."""
    spec = manifest.confidence_output
    if spec is None:
        return None
    values = _single_channel(outputs[spec.name], spec)
    if values.dtype != np.uint8:
        values = (np.clip(values.astype(np.float32), 0, 1) * 255 + 0.5).astype(np.uint8)
    return np.stack([resize_nearest(value, *size) for value in values])


def _to_classes(values: Array, manifest: Manifest, size: tuple[int, int]) -> UInt8:
    """Class indices as uint8, whatever integer or float type they came in; refuses what names no class."""
    low, high = values.min(), values.max()
    if not (low >= 0 and high < manifest.num_classes):
        raise UserError(
            f"output {manifest.mask_output.name!r} holds class {high if low >= 0 else low}; the manifest names "
            f"{manifest.num_classes} classes: is it the manifest of another engine?"
        )
    masks = values.astype(np.uint8, copy=False)
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


def _upsample(scores: Array, size: tuple[int, int]) -> Array:
    """`[B,C,h,w]` floats at another resolution."""
    if scores.shape[2:] == size:
        return scores
    height, width = size
    # Pillow's filter for enlarging "F" images is the two-tap one over pixel centres with clamped edges.
    resized = [
        np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.BILINEAR))
        for plane in scores.reshape(-1, *scores.shape[2:]).astype(np.float32)
    ]
    return np.stack(resized).reshape(*scores.shape[:2], height, width)
