"""Model shapes, their arithmetic, and one small decoder.

| module | what it holds |
|---|---|
| `shapes` | `ModelShape`, `RopeScaling` |
| `presets` | `preset("llama3.1-8b")` and all other names in `PRESETS` |
| `hf_config` | `from_hf_config(config)` |
| `arithmetic` | parameters, forward and training FLOPs, weight, cache and step bytes |
| `model` | `Decoder`, `DenseCache`, `greedy` in torch: import them from `paperlab.transformer.model` |

Everything exported here is free of torch.
"""

from paperlab.transformer.arithmetic import (
    ForwardFlops,
    Parameters,
    element_bytes,
    forward_flops,
    hidden_bytes,
    kv_bytes_per_token,
    logits_bytes,
    parameters,
    step_bytes,
    training_flops,
    weight_bytes,
)
from paperlab.transformer.hf_config import from_hf_config
from paperlab.transformer.presets import PRESETS, preset
from paperlab.transformer.shapes import ModelShape, RopeScaling

__all__ = [
    "PRESETS",
    "ForwardFlops",
    "ModelShape",
    "Parameters",
    "RopeScaling",
    "element_bytes",
    "forward_flops",
    "from_hf_config",
    "hidden_bytes",
    "kv_bytes_per_token",
    "logits_bytes",
    "parameters",
    "preset",
    "step_bytes",
    "training_flops",
    "weight_bytes",
]
