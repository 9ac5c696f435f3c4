"""The HTTP server: the Open Inference Protocol v2, `POST /v1/segment` and a page to try it on (extra `server`)."""
