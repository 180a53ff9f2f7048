"""The compiler's answer to Tempo: what `torch.compile`'s partitioner keeps under an activation-memory budget.

The partition needs no GPU and no code generation, so any model is accounted for on the meta device. The times
that go with it do need one: recomputed operators are fused there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn


def _saved_bytes(forward: fx.GraphModule, outputs: int) -> int:
    """Bytes of the storages a forward graph returns for its backward, inputs and parameters left out."""
    (returned,) = next(node for node in forward.graph.nodes if node.op == "output").args
    computed = [node for node in returned[outputs:] if isinstance(node, fx.Node) and node.op != "placeholder"]
    tensors = [value for node in computed if isinstance(value := node.meta["val"], Tensor)]
    storages = {tensor.untyped_storage()._cdata: tensor.untyped_storage() for tensor in tensors}
    return sum(storage.nbytes() for storage in storages.values())


def compiled_bytes(model: nn.Module, batch: Mapping[str, Any], budget: float = 1.0) -> int:
    """Bytes a compiled `model` keeps for backward under `torch._functorch.config.activation_memory_budget`.

    A budget of 1 recomputes only what fusion makes free, 0 keeps nothing but the inputs. Raises `ValueError` for
    a budget outside [0, 1].
    """
    if not 0 <= budget <= 1:
        raise ValueError(f"budget is {budget}; it must lie in [0, 1]")
    from torch._dynamo.backends.common import aot_autograd
    from torch._functorch import config
    from torch._functorch.aot_autograd import make_boxed_func
    from torch._functorch.partitioners import min_cut_rematerialization_partition
    from torch._inductor.decomposition import select_decomp_table

    saved: list[int] = []

    def partition(joint: Any, inputs: Any, *, num_fwd_outputs: int, **kwargs: Any) -> Any:
        parts = min_cut_rematerialization_partition(joint, inputs, num_fwd_outputs=num_fwd_outputs, **kwargs)
        saved.append(_saved_bytes(parts[0], num_fwd_outputs))
        return parts

    def interpret(graph: fx.GraphModule, _: Any) -> Any:
        return make_boxed_func(graph.forward)

    backend = aot_autograd(fw_compiler=interpret, decompositions=select_decomp_table(), partition_fn=partition)
    torch._dynamo.reset()
    with config.patch(activation_memory_budget=budget):
        torch.compile(model, backend=backend)(**batch)
    return sum(saved)
