"""Tiny models that really learn, to compare training step by step, with control arms that must fail."""
