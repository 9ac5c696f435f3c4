"""From image and label files to training batches."""
