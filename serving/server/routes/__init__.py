"""Routes: the Open Inference Protocol v2, and images by `POST /v1/segment`."""
