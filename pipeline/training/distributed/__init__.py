"""One training by several processes, its ranks: how they are started, what they share, how they end."""
