"""Checks that run an engine and compare it with PyTorch."""
