"""Section `model` of params.yaml: which network trains and ships."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.models.heads import HEADS
from pipeline.models.network import BACKBONES
from serving.contract.errors import UserError
from serving.contract.schema import Problems, Require, build


@dataclass(frozen=True)
class ModelConfig:
    """The network.

    Attributes:
        backbone: name in the registry of backbones.
        pretrained: start from ImageNet weights.
        head: name in the registry of heads.
        head_options: settings of that head, the fields of its own `Config`.
        output_stride: stride of the backbone's deepest stage; None for the one its head is made for.
    """

    backbone: str = "tf_efficientnet_lite0"
    pretrained: bool = True
    head: str = "light"
    head_options: Mapping[str, object] = field(default_factory=dict)
    output_stride: int | None = None

    def __post_init__(self) -> None:
        require = Require()
        try:
            spec = BACKBONES.resolve(self.backbone)
        except UserError as error:
            spec = None
            require(False, f"backbone: {error}")
        try:
            head = HEADS.resolve(self.head)
        except UserError as error:
            head = None
            require(False, f"head: {error}")
        if head is not None:
            problems = Problems()
            build(head.Config, self.head_options, "head_options", problems)
            for problem in problems:
                require(False, problem)
        if spec is not None and self.output_stride is not None:
            known = ", ".join(map(str, spec.output_strides))
            require(
                self.output_stride in spec.output_strides,
                f"output_stride: {self.backbone} can have {known}, got {self.output_stride}",
            )
        if spec is not None and head is not None:
            fitting = [name for name in BACKBONES if BACKBONES.resolve(name).family in head.families]
            require(
                spec.family in head.families,
                f"head: {self.head!r} does not go with the backbone {self.backbone!r}; expected {', '.join(fitting)}",
            )
        require.done()

    def head_config(self) -> Any:
        """`head_options` as an instance of the head's own `Config`."""
        problems = Problems()
        config = build(HEADS.resolve(self.head).Config, self.head_options, "head_options", problems)
        assert config is not None, problems  # __post_init__ has built it once
        return config

    def backbone_output_stride(self) -> int:
        """Stride of the backbone's deepest stage, the default resolved."""
        if self.output_stride is not None:
            return self.output_stride
        spec = BACKBONES.resolve(self.backbone)
        return spec.dense_output_stride if HEADS.resolve(self.head).dilated else spec.output_strides[0]
