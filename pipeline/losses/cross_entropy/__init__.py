"""The baseline: the supervised loss alone."""
