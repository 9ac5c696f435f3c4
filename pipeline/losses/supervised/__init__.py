"""Supervised terms by name: what the logits are held to by the labels, whatever else a method adds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serving.contract.registry import Registry

if TYPE_CHECKING:
    from pipeline.losses.supervised.term import SupervisedTerm

SUPERVISED: Registry[type[SupervisedTerm]] = Registry(
    "supervised term",
    {
        "cross_entropy": "pipeline.losses.supervised.cross_entropy:CrossEntropyTerm",
        "dice": "pipeline.losses.supervised.dice:Dice",
        "lovasz": "pipeline.losses.supervised.lovasz:Lovasz",
        "ohem_cross_entropy": "pipeline.losses.supervised.ohem_cross_entropy:OhemCrossEntropy",
        "focal": "pipeline.losses.supervised.focal:Focal",
        "boundary_cross_entropy": "pipeline.losses.supervised.boundary_cross_entropy:BoundaryCrossEntropy",
    },
)
