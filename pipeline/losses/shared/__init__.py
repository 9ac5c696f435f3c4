"""What losses share: their interface, InfoNCE, anchor sampling, memory bank, boundaries."""
