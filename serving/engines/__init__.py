"""Opening an engine, exported here or elsewhere, and running images through it."""
