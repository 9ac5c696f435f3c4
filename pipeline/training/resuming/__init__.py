"""The state of an unfinished training on disk, and how a later run goes on from it, bit for bit."""
