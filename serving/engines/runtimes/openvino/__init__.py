"""OpenVINO on CPUs, GPUs and NPUs of Intel, and the argmax that it is given."""
