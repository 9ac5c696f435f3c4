"""What the values in label files mean: looked at file by file, settled from all of them together."""
