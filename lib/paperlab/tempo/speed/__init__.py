"""Measured throughput and kernel times, on the CPU for the path and on a GPU for the evidence."""
