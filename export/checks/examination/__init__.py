"""What checks share: the engine under examination, the reference, images and deviations."""
