"""ONNX Runtime on CPUs and NVIDIA GPUs, and what its kernels really compute."""
