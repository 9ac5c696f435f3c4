"""Checks that look at an engine's files and say what they are."""
