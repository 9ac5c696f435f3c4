"""Backbones, heads, the network that ships and the network that trains."""

from serving.registry import Registry

HEADS: Registry[type] = Registry(
    "head",
    {
        "light": "pipeline.models.heads.light:LightHead",
    },
)
