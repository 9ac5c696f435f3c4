"""InfoNCE where users import it from; it lies in `pipeline.losses.shared`."""

from pipeline.losses.shared.info_nce import info_nce

__all__ = ["info_nce"]
