"""Tempo's operators: GELU and LayerNorm from their outputs, attention with recomputed dropout, and their kernels."""
