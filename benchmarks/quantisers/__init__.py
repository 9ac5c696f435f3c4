"""ONNX Runtime's and NNCF's quantisation of one network, in every runtime."""
