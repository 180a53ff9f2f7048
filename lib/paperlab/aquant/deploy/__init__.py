"""Deployment: threshold tables, integer-only inference, saved states, ONNX, Triton kernels, and what borders cost."""
