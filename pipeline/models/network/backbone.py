"""Encoders from timm, with their weights and with padding that exports as a constant."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pipeline.compute.torchvision_shim  # noqa: F401 - timm imports torchvision

# isort: split
import timm
from timm.layers import Conv2dSame

from pipeline.models.network.catalog import BackboneSpec
from serving.contract.errors import UserError


class StaticSameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's "SAME" padding for inputs whose size is a multiple of its stride.

    "SAME" pads by max((ceil(x / s) - 1) s + (k - 1) d + 1 - x, 0) in all, the larger half at the end. With x a multiple
    of s that is max((k - 1) d + 1 - s, 0) whatever x: a constant, so that the exported graph computes no shapes.

    Args:
        original: the layer of timm whose weights and settings are taken over.
    """

    def __init__(self, original: nn.Conv2d) -> None:
        super().__init__(
            original.in_channels,
            original.out_channels,
            original.kernel_size,  # type: ignore[arg-type]
            original.stride,  # type: ignore[arg-type]
            0,
            original.dilation,  # type: ignore[arg-type]
            original.groups,
            original.bias is not None,
            device="meta",
        )
        self.weight = original.weight
        self.bias = original.bias
        (top, bottom), (left, right) = (
            _same_padding(original.kernel_size[axis], original.stride[axis], original.dilation[axis]) for axis in (0, 1)
        )
        self.same_padding = (left, right, top, bottom)

    def forward(self, features: Tensor) -> Tensor:
        """`[B,c,H,W]` -> `[B,c',H/s,W/s]`; H and W are multiples of the stride s."""
        padded = F.pad(features, self.same_padding)
        return F.conv2d(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def _same_padding(kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    total = max((kernel - 1) * dilation + 1 - stride, 0)
    return total // 2, total - total // 2


def make_padding_static(module: nn.Module) -> None:
    """Replace every dynamically padded convolution within `module` by its constant equivalent, names kept."""
    for name, child in module.named_children():
        if isinstance(child, Conv2dSame):
            setattr(module, name, StaticSameConv2d(child))
        else:
            make_padding_static(child)


class Backbone(nn.Module):
    """An encoder of four stages.

    Args:
        spec: which encoder.
        output_stride: stride of the deepest stage.
        pretrained: load ImageNet weights.

    Attributes:
        channels: channels of the stages, shallow to deep.
        strides: their strides.
        mean: RGB mean that the weights were trained with, in 0..255.
        std: likewise the standard deviation.

    Raises:
        UserError: pretrained weights are not at hand.
    """

    def __init__(self, spec: BackboneSpec, *, output_stride: int, pretrained: bool) -> None:
        super().__init__()
        arguments = dict(spec.arguments)
        if output_stride != spec.output_strides[0]:
            arguments["output_stride"] = output_stride
        from_hub = pretrained and spec.weights_package is None
        try:
            encoder = timm.create_model(
                spec.timm_name, pretrained=from_hub, features_only=True, out_indices=spec.out_indices, **arguments
            )
        except Exception as error:
            if not from_hub:
                raise
            # The hub's client raises dozens of types, from requests', huggingface_hub's and the standard library.
            raise UserError(
                f"model.pretrained: the ImageNet weights of {spec.timm_name} could not be fetched "
                f"({type(error).__name__}: {_first_line(error)}); connect to the network, or set `pretrained: false`"
            ) from error
        if pretrained and spec.weights_package is not None:
            load_packaged_weights(encoder, spec)
        make_padding_static(encoder)
        self.encoder = encoder
        self.channels: tuple[int, ...] = tuple(encoder.feature_info.channels())
        self.strides: tuple[int, ...] = tuple(encoder.feature_info.reduction())
        defaults = encoder.pretrained_cfg if isinstance(encoder.pretrained_cfg, Mapping) else encoder.default_cfg
        self.mean: tuple[float, ...] = tuple(255.0 * value for value in defaults["mean"])
        self.std: tuple[float, ...] = tuple(255.0 * value for value in defaults["std"])

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Stages `[B,C_i,H/s_i,W/s_i]`, shallow to deep, of normalised images `[B,3,H,W]`."""
        return tuple(self.encoder(images))


def load_packaged_weights(encoder: nn.Module, spec: BackboneSpec) -> None:
    """Load the ImageNet weights that an installed package holds.

    The package names the tensors otherwise than timm but has the same ones in the same order: they are matched by
    position, every shape checked.

    Raises:
        UserError: the package is not installed.
        ValueError: its tensors are not those of this encoder.
    """
    path = packaged_weights_path(spec)
    packaged = torch.load(path, map_location="cpu", weights_only=True)
    whole = timm.create_model(spec.timm_name).state_dict()  # with the classifier, which the encoder lacks
    if len(whole) != len(packaged):
        raise ValueError(f"{path}: expected the {len(whole)} tensors of {spec.timm_name}, got {len(packaged)}")
    renamed: dict[str, Tensor] = {}
    for (name, expected), (packaged_name, tensor) in zip(whole.items(), packaged.items(), strict=True):
        if expected.shape != tensor.shape:
            raise ValueError(
                f"{path}: {packaged_name} has the shape {tuple(tensor.shape)}; "
                f"expected {tuple(expected.shape)}, as {name} of {spec.timm_name}"
            )
        renamed[name] = tensor
    encoder.load_state_dict({name: renamed[name] for name in encoder.state_dict()}, strict=True)


def packaged_weights_path(spec: BackboneSpec) -> Path:
    """The weights file inside the package that `spec` names. Raises UserError when it is not installed."""
    assert spec.weights_package is not None
    try:
        package = importlib.import_module(spec.weights_package)
    except ImportError:
        raise UserError(
            f"model.pretrained: the package {spec.weights_package}, which holds the ImageNet weights of "
            f"{spec.timm_name}, is not installed; run `make install`, or set `pretrained: false`"
        ) from None
    files = sorted(Path(inspect.getfile(package)).parent.rglob("*.pth"))
    if len(files) != 1:
        raise UserError(
            f"model.pretrained: expected one .pth file in the package {spec.weights_package}, got {len(files)}; "
            "install it again, or set `pretrained: false`"
        )
    return files[0]


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0][:200]
