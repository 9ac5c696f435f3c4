"""How long inference takes: one engine, pairs of sessions, and all engines of a run."""
