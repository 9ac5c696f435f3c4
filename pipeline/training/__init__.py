"""The training loop, from settings and batches to checkpoints and curves."""
