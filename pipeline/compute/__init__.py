"""What torch computes with: device, threads, precision, random streams."""
