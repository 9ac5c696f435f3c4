"""Models from elsewhere: what an ONNX file tells of itself, and what its user has to add."""
