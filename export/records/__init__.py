"""Which rows a run should have, and what earlier stages recorded of them."""
