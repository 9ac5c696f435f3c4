"""Commands beside the stages; imported by nobody but each other's tests."""
