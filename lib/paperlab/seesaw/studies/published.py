"""What the paper prints: specifications, the labels of Fig. 10, the ratios of Fig. 11. Never an input of a model."""

from __future__ import annotations

# Table 1: memory in GiB, bandwidth in GiB/s, TFLOPS, NVLink.
SPECIFICATIONS = {
    "A10": (24, 600, 125, False),
    "L4": (24, 300, 121, False),
    "A100-SXM-40GB": (40, 1555, 312, True),
}
MODELS = {"llama3-15b": 4, "codellama-34b": 8, "llama2-70b": 8}  # GPUs (§6.2)
# Fig. 10 by device, workload and model: the best static layout, and Seesaw's pair.
LABELS = {
    ("A10", "arxiv", "llama3-15b"): ("D2T2", "P4→T4"),
    ("A10", "arxiv", "codellama-34b"): ("D2T2P2", "D2P4→D2T4"),
    ("A10", "arxiv", "llama2-70b"): ("T2P4", "P8→T4P2"),
    ("A10", "sharegpt", "llama3-15b"): ("D2P2", "P4→T4"),
    ("A10", "sharegpt", "codellama-34b"): ("D2T2P2", "D2P4→D2T4"),
    ("A10", "sharegpt", "llama2-70b"): ("T4P2", "P8→T4P2"),
    ("L4", "arxiv", "llama3-15b"): ("T2P2", "P4→T4"),
    ("L4", "arxiv", "codellama-34b"): ("D2T4", "D2P4→D2T4"),
    ("L4", "arxiv", "llama2-70b"): ("T4P2", "P8→T4P2"),
    ("L4", "sharegpt", "llama3-15b"): ("P4", "P4→T4"),
    ("L4", "sharegpt", "codellama-34b"): ("D2T4", "P8→T4P2"),
    ("L4", "sharegpt", "llama2-70b"): ("T4P2", "P8→T4P2"),
}
# Fig. 11, normalized to vLLM over NVLink.
A100 = {
    ("arxiv", "static", "pcie"): 0.61, ("arxiv", "re-sharding", "pcie"): 0.89,
    ("arxiv", "static", "nvlink"): 1.00, ("arxiv", "re-sharding", "nvlink"): 1.00,
    ("sharegpt", "static", "pcie"): 0.62, ("sharegpt", "re-sharding", "pcie"): 0.82,
    ("sharegpt", "static", "nvlink"): 1.00, ("sharegpt", "re-sharding", "nvlink"): 1.13,
}  # fmt: skip
