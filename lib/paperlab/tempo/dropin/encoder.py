"""Where things are in a model: its stack of encoder layers, its attention modules, a copy without memory."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def encoder_stack(model: nn.Module) -> tuple[str, nn.ModuleList] | None:
    """Path and modules of the longest `nn.ModuleList` that lies in no other; None where there is none."""
    stacks: dict[str, nn.ModuleList] = {}
    for path, module in model.named_modules():
        nested = any(path.startswith(f"{outer}.") for outer in stacks)
        if isinstance(module, nn.ModuleList) and len(module) and not nested:
            stacks[path] = module
    return max(stacks.items(), key=lambda stack: len(stack[1]), default=None)


def layer_indices(model: nn.Module) -> dict[str, int]:
    """Index of the encoder layer each module path lies in; paths outside the stack are left out."""
    stack = encoder_stack(model)
    if stack is None:
        return {}
    path, layers = stack
    return {
        name: index
        for index, layer in enumerate(layers)
        for name, _ in layer.named_modules(prefix=f"{path}.{index}" if path else str(index))
    }


def attention_modules(model: nn.Module) -> dict[str, Any]:
    """Modules that call the Hugging Face attention interface, by path; empty for any other model."""
    return {
        path: module
        for path, module in model.named_modules()
        if hasattr(module, "config") and hasattr(module, "scaling") and _eager_function(module) is not None
    }


def _eager_function(module: nn.Module) -> Any:
    return getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)


def attention_function(name: str, module: nn.Module) -> Callable[..., Any]:
    """The attention function registered as `name`; "eager" is the one of `module`'s own modeling file."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    return ALL_ATTENTION_FUNCTIONS.get_interface(name, _eager_function(module))


def register_attention(name: str, function: Callable[..., Any], mask: str = "eager") -> None:
    """Offer `function` as `attn_implementation=name`, with masks in the format of implementation `mask`.

    On the meta device, where a padding mask has no values to look at, it is taken to hold no padding.
    """
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface
    from transformers.modeling_utils import AttentionInterface

    make_mask = ALL_MASK_ATTENTION_FUNCTIONS[mask]

    def make_mask_on_meta_too(*args: Any, attention_mask: Tensor | None = None, **kwargs: Any) -> Any:
        known = None if attention_mask is not None and attention_mask.is_meta else attention_mask
        return make_mask(*args, attention_mask=known, **kwargs)

    AttentionInterface.register(name, function)
    AttentionMaskInterface.register(name, make_mask_on_meta_too)


def own_configurations(model: nn.Module) -> list[Any]:
    """Give `model` private copies of the configurations of its attention modules, and return these.

    Hugging Face models built from one configuration object share it, so that choosing the attention of one
    would choose it for all.
    """
    shared = {id(module.config): module.config for module in attention_modules(model).values()}
    own = {key: copy.deepcopy(config) for key, config in shared.items()}
    for module in model.modules():
        if (key := id(vars(module).get("config"))) in own:
            module.config = own[key]
    return list(own.values())


def meta_copy(model: nn.Module) -> Any:
    """Copy of `model` on the meta device: same modules, modes and hooks, but no memory for its tensors."""
    memo = {id(tensor): _to_meta(tensor) for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, memo)


def _to_meta(tensor: Tensor) -> Tensor:
    empty = torch.empty_like(tensor, device="meta")
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
