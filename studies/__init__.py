"""Studies of methods over seeds, and what explains their outcome."""
