"""Symbolic analysis (the paper's second idea): trace once with symbolic batch and TP, evaluate as formulas."""
