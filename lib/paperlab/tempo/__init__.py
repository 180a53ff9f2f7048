"""Tempo: memory-lean GELU, LayerNorm and attention for training transformers (NeurIPS 2022, arXiv 2210.10246).

Of the paper itself the abstract, part of the introduction (§1) and the caption of Figure 4 could be read, and the
README of the released code; the methods are re-derived. From the paper's parts to files:

    in-place GELU                        ops/gelu.py, ops/gelu_fit.py, ops/bits.py
    in-place LayerNorm                   ops/layernorm.py
    sub-layer dropout recomputation      ops/attention.py, ops/dropout.py
    fused kernels                        ops/kernels/
    drop-in replacement of layers        dropin/patch.py; baselines in dropin/baselines.py
    what is kept, largest batch          memory/accounting.py, memory/ledger.py, memory/capacity.py
    automatic application (Auto-Tempo)   memory/planner.py
    loss and fine-tuning                 training/
    throughput                           speed/; gpu_evidence.py measures on a GPU in one call
    tables and figures                   experiments.py, plots.py, from studies/; sizes in config.py
    the notebook's exercises, panel      exercises.py, what_if.py
"""

from paperlab.tempo.config import Config
from paperlab.tempo.dropin.patch import apply, report, revert
from paperlab.tempo.dropin.report import Report
from paperlab.tempo.memory.capacity import capacity, max_batch
from paperlab.tempo.memory.ledger import ledger
from paperlab.tempo.memory.peak import step_peak
from paperlab.tempo.memory.planner import plan
from paperlab.tempo.ops.attention import softmax_dropout_matmul
from paperlab.tempo.ops.gelu import InplaceGELU, inplace_gelu
from paperlab.tempo.ops.layernorm import InplaceLayerNorm, inplace_layer_norm

__all__ = [
    "Config",
    "InplaceGELU",
    "InplaceLayerNorm",
    "Report",
    "apply",
    "capacity",
    "inplace_gelu",
    "inplace_layer_norm",
    "ledger",
    "max_batch",
    "plan",
    "report",
    "revert",
    "softmax_dropout_matmul",
    "step_peak",
]
