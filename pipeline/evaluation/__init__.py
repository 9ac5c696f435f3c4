"""How good masks are: metrics, evaluation on a split, intervals, paired accuracy."""
