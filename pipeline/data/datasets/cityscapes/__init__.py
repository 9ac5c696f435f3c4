"""Cityscapes, 19 classes."""
