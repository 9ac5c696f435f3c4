"""PASCAL-Context, 59 classes."""
