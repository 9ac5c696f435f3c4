"""Commands beside the stages; imported by nobody."""
