"""COCO-Stuff, 171 classes of things and stuff."""
