"""Mist: memory-parallelism co-optimization of distributed training (EuroSys 2025, arXiv 2503.19050)."""

from paperlab.mist.models import ModelSpec, falcon, gpt, llama
from paperlab.mist.plan import ClusterSize, Plan, Prediction, StagePlan

__all__ = ["ClusterSize", "ModelSpec", "Plan", "Prediction", "StagePlan", "falcon", "gpt", "llama"]
