"""What datasets share: their interface, the decoding of labels, palettes."""
