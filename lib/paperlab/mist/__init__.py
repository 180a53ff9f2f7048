"""Mist: memory-parallelism co-optimization of distributed training (EuroSys 2025, arXiv 2503.19050).

The paper's body could not be read; the algorithms follow its released artifact, whose published predictions and
measurements serve as tests. A patent application (US20260057245A1) covers parts of the method; this is an independent
re-implementation for research. From the paper's parts to files:

    variables of a plan, plan files                  plan.py; run.py executes a file under torchrun
    workloads, clusters                              models.py, clusters.py
    symbolic performance analysis                    symbolic, over the models' own code in blocks.py, kernels.py,
                                                     collectives.py
    times, memory, interference, pipeline            cost
    intra- and inter-stage tuning                    search
    Megatron-LM, DeepSpeed, Aceso, heuristics        baselines
    overlap-centric execution                        runtime
    what the artifact publishes                      published.py
    every table and figure                           experiments.py; drawn by plots.py, accuracy_plots.py,
                                                     gantt.py; from studies; sizes in config.py
    measured on a GPU                                gpu_evidence.py, from gpu
    the idea, interactively                          what_if.py, exercises.py
"""

from paperlab.mist.clusters import Cluster, cluster
from paperlab.mist.config import Config
from paperlab.mist.models import ModelSpec, falcon, gpt, llama
from paperlab.mist.plan import ClusterSize, Plan, Prediction, StagePlan
from paperlab.mist.search.tuner import tune

__all__ = [
    "Cluster",
    "ClusterSize",
    "Config",
    "ModelSpec",
    "Plan",
    "Prediction",
    "StagePlan",
    "cluster",
    "falcon",
    "gpt",
    "llama",
    "tune",
]
