"""Where a wrong engine goes wrong: the first tensor that leaves its tolerance, and a minimal model that shows it."""
