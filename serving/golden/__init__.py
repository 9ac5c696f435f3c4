"""What an engine computed in the lab, kept beside it, and whether it still computes that on the machine at hand."""
