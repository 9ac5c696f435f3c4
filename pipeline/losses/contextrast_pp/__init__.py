"""Contextrast++: adaptive fusion and class-prioritised anchors (Sung et al. 2026)."""
