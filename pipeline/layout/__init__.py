"""Where everything that a run makes lies on disk, by branch."""
