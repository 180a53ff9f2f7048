"""Six machine-learning-systems papers, implemented, run, compared and judged.

Importing this package is light: torch, transformers and plotting load where they are used.
Each paper is a subpackage (`paperlab.tempo`, ...); `paperlab.lab` runs notebooks and keeps the evidence.
"""

__version__ = "0.1.0"
