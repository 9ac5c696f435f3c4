"""Anchor sampling where users import it from; it lies in `pipeline.losses.shared`."""

from pipeline.losses.shared.sampling import sample_anchors

__all__ = ["sample_anchors"]
