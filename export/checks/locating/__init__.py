"""Where a wrong engine goes wrong: the first tensor that leaves its tolerance."""
