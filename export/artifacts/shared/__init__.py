"""What kinds of artefact share: their interface, the single-precision graph, how files are written."""
