"""ONNX graphs: the one that ships, how it is traced, passes on it, its canonical form, structure and costs."""
