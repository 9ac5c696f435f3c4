"""CamVid as its authors released it, labels drawn in 32 colours."""
