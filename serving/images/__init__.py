"""Image files and the one geometry (resize, pad, crop, tile) that training, checks and serving share."""
