"""Anyone's own images and labels in a folder."""
