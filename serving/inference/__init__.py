"""The machinery of `serving.infer`: what to read, where results go, and how images flow through an engine."""
