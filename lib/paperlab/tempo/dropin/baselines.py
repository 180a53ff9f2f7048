"""What Tempo is compared with: labeled baselines, each a function that configures a model in place.

Two traps are told apart everywhere. Torch up to 1.10 kept the input of softmax (the paper's era), modern torch
does not; and `F.dropout` keeps a 1-byte mask on a GPU but a noise tensor of the element type on the CPU and on
the meta device. The arms use `torch.native_dropout`, which draws the same numbers and keeps the GPU's mask.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

from paperlab.tempo.dropin import patch
from paperlab.tempo.dropin.encoder import attention_function, own_configurations, register_attention
from paperlab.tempo.dropin.survey import gelu_form


def native_dropout(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """`F.dropout` by the kernel a GPU uses: same values and generator state, one byte kept per element."""
    if training and 0.0 < p < 1.0 and not inplace:
        return torch.native_dropout(x, p, True)[0]
    return F.dropout(x, p, training, inplace)


class NativeDropout(nn.Dropout):
    """`nn.Dropout` through `native_dropout`."""

    def forward(self, x: Tensor) -> Tensor:
        """Drop elements of `x` with probability `p` in training."""
        return native_dropout(x, self.p, self.training, self.inplace)


class _EraSoftmax(torch.autograd.Function):
    """Softmax that keeps its input beside its output, as torch <= 1.10 did (PyTorch #65242)."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, dim: int) -> Tensor:
        ctx.dim = dim
        probabilities = scores.softmax(dim)
        ctx.save_for_backward(scores, probabilities)
        return probabilities

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        scores, probabilities = ctx.saved_tensors
        return torch._softmax_backward_data(gradient, probabilities, ctx.dim, scores.dtype), None


def era_softmax(scores: Tensor, dim: int = -1, _stacklevel: int = 3, dtype: torch.dtype | None = None) -> Tensor:
    """`F.softmax` with the paper era's memory: e * BAS² more bytes than today's, same values."""
    return _EraSoftmax.apply(scores if dtype is None else scores.to(dtype), dim)


class Substitute(TorchFunctionMode):
    """Runs other functions in place of some of torch's, inside a `with` block and nowhere else."""

    def __init__(self, substitutes: Mapping[Callable[..., Any], Callable[..., Any]]) -> None:
        super().__init__()
        self.substitutes = substitutes

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return self.substitutes.get(func, func)(*args, **(kwargs or {}))


def native_dropout_attention(module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    """The model's own eager attention, with a GPU's dropout mask: 9 BAS² bytes in fp32 on any device."""
    with Substitute({F.dropout: native_dropout}):
        return attention_function("eager", module)(module, *args, **kwargs)


def era_attention(module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    """The model's own eager attention in the paper's era: 13 BAS² bytes in fp32 on any device."""
    with Substitute({F.dropout: native_dropout, F.softmax: era_softmax}):
        return attention_function("eager", module)(module, *args, **kwargs)


def fused_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Hugging Face's SDPA; on the meta device the memory-efficient GPU kernel, which torch would not pick there.

    On the CPU torch has a fused kernel only without dropout and keeps attention maps with it.
    """
    if not query.is_meta:
        return attention_function("sdpa", module)(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    bias = None if attention_mask is None else torch.zeros_like(attention_mask, dtype=query.dtype)
    causal = attention_mask is None and getattr(module, "is_causal", False)
    output = torch.ops.aten._scaled_dot_product_efficient_attention(
        query, key, value, bias, True, dropout, causal, scale=scaling
    )[0]
    return output.transpose(1, 2).contiguous(), None


def register() -> None:
    """Offer the baselines as `attn_implementation="eager_native"`, "eager_era" and "sdpa_fused"; repeatable."""
    register_attention("eager_native", native_dropout_attention)
    register_attention("eager_era", era_attention)
    register_attention("sdpa_fused", fused_attention, mask="sdpa")


def use_native_dropout(model: nn.Module) -> None:
    """Turn every `nn.Dropout` of `model` into `NativeDropout`, in place."""
    for module in model.modules():
        if type(module) is nn.Dropout:
            module.__class__ = NativeDropout


def use_fused_gelu(model: nn.Module) -> None:
    """Turn GELUs that Hugging Face writes out in Python (GPT-2's `gelu_new`) into torch's fused form, in place."""
    for module in model.modules():
        form, python = gelu_form(module)
        if python:
            module.__class__, module.approximate = nn.GELU, form  # type: ignore[assignment]


def as_on_gpu(model: nn.Module) -> nn.Module:
    """Give a model on the CPU or the meta device the GPU's memory: byte dropout masks, fused SDPA; in place."""
    register()
    use_native_dropout(model)
    patch.rename_attention(model, {"eager": "eager_native", "sdpa": "sdpa_fused"})
    _without_cache(model)
    return model


def _without_cache(model: nn.Module) -> None:
    """Turn off a decoder's cache of keys and values, which training has no use for."""
    for config in own_configurations(model):
        config.use_cache = False


def _set(model: Any, attention: str) -> None:
    register()
    model.set_attn_implementation(attention)
    use_native_dropout(model)


def _checkpoint(model: Any) -> None:
    _set(model, "eager_native")
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def _tempo(**options: Any) -> Callable[[Any], None]:
    def configure(model: Any) -> None:
        _set(model, "eager_native")
        patch.apply(model, **options)

    return configure


def _tempo_on_sdpa(model: Any) -> None:
    _set(model, "sdpa_fused")
    patch.apply(model, attention=False, python_gelu=True)


def _fused_gelu(model: Any) -> None:
    _set(model, "eager_native")
    use_fused_gelu(model)


def _fused_gelu_on_sdpa(model: Any) -> None:
    _set(model, "sdpa_fused")
    use_fused_gelu(model)


ARMS: dict[str, Callable[[Any], None]] = {
    "eager, torch as it is": lambda model: model.set_attn_implementation("eager"),
    "eager, modern": lambda model: _set(model, "eager_native"),
    "eager, paper era": lambda model: _set(model, "eager_era"),
    "eager, fused GELU": _fused_gelu,
    "SDPA": lambda model: _set(model, "sdpa_fused"),
    "SDPA, fused GELU": _fused_gelu_on_sdpa,
    "checkpoint": _checkpoint,
    "GELU": _tempo(python_gelu=True, layernorm=False, attention=False),
    "LayerNorm": _tempo(gelu=False, attention=False),
    "attention": _tempo(gelu=False, layernorm=False),
    "Tempo": _tempo(python_gelu=True),
    "Tempo, bit mask": _tempo(python_gelu=True, packed=True),
    "Tempo on SDPA": _tempo_on_sdpa,
}


def configure(model: nn.Module, arm: str) -> nn.Module:
    """Configure a fresh Hugging Face `model` in place as one of `ARMS` and return it."""
    if arm not in ARMS:
        raise ValueError(f"arm is {arm!r}; it must be one of {', '.join(ARMS)}")
    _without_cache(model)
    ARMS[arm](model)
    return model
