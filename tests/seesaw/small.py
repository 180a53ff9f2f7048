"""A tiny model for tests."""

from paperlab.transformer import ModelShape

TINY = ModelShape(
    name="tiny", layers=5, hidden=32, heads=8, kv_heads=2, head_dim=8, ffn=64, vocab=96, max_positions=512,
    mlp="gated", norm="rmsnorm", position="rope",
)  # fmt: skip
