"""Checking a dataset once, file by file, before anything trains on it."""
