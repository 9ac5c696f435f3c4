"""Pixel contrast within the batch and across images by a memory bank (ContrastiveSeg, ICCV 2021)."""
