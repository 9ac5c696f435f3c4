"""The zero-cost certificate: same structure, same latency, accuracy beside it."""
