"""CamVid with 11 classes, in the layout of the SegNet tutorial."""
