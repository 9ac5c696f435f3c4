"""What datasets share: their interface, the decoding of labels, palettes, and how a prepared one is read."""
