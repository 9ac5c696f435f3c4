"""Contextrast: class anchors of every encoder stage with boundary-aware negatives (Sung et al., CVPR 2024)."""

from pipeline.losses.shared.boundary import boundary_aware_negatives

__all__ = ["boundary_aware_negatives"]
