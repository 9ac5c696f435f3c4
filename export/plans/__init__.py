"""TensorRT plans compiled from ONNX artefacts."""
