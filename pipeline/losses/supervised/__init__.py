"""Supervised losses: what the logits are held to by the labels, whatever else a method adds."""
