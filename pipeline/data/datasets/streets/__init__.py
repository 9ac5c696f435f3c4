"""Streets: a generated dataset of street scenes, for trying everything without a download."""
