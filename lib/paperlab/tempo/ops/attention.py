"""Softmax, dropout and the product with V as one op that keeps P, the mask and V only.

Softmax's gradient needs its output, not its input; the dropped probabilities Dp are rebuilt by one multiplication.
Backward rebuilds Dp, takes dV = Dp^T dO, frees Dp and only then forms dDp = dO V^T: two matmuls, and never more
than two buffers of P's size at a time. Scaling, padding and causal masks are applied to the scores before the op.
Shapes: B batch, A heads, S queries, T keys, D head size.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from paperlab.tempo.dropin.encoder import attention_function, register_attention
from paperlab.tempo.ops import dropout
from paperlab.tempo.ops.dispatch import autocast_dtype, no_autocast, promoted_dtype, row_backend
from paperlab.tempo.ops.dropout import MaskMode
from paperlab.tempo.ops.kernels import Backend

Form = Literal["plain", "rounded", "upcast"]
FORMS: dict[str, Form] = {
    **dict.fromkeys(("albert", "bert", "camembert", "distilbert", "electra", "roberta", "xlm_roberta"), "plain"),
    "gpt2": "rounded",
    **dict.fromkeys(("deit", "llama", "mistral", "qwen2", "qwen3", "vit"), "upcast"),
}
"""Where a model's eager attention rounds P: not before the matmul, after softmax, or after an fp32 softmax.

They differ in the last bits under autocast, so a model that is not listed is refused rather than approximated.
"""


class _Settings(NamedTuple):
    p: float
    softmax_dtype: torch.dtype
    probabilities_dtype: torch.dtype | None
    mask_mode: MaskMode
    backend: Backend


def _per_value_head(x: Tensor, value: Tensor) -> Tensor:
    """View x (B, A, S, ...) as (B, A_kv, A/A_kv*S, ...), heads that share a value head together."""
    return x if x.shape[:-2] == value.shape[:-2] else x.reshape(*value.shape[:-2], -1, x.shape[-1])


class _SoftmaxDropoutMatmul(torch.autograd.Function):
    """Keep P, the mask and V; rebuild Dp in backward."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, value: Tensor, settings: _Settings) -> Tensor:
        p, softmax_dtype, probabilities_dtype, mode, backend = settings
        # matmul would copy a strided V anyway, and keeping the copy does not hold a fused QKV alive
        value = value.contiguous()
        if p > 0.0 and mode == "philox" and backend == "triton":
            P, Dp, mask = _operations(backend).forward(scores, p, value.dtype)
        else:
            P = torch.softmax(scores, -1, dtype=softmax_dtype)
            P = P if probabilities_dtype is None else P.to(probabilities_dtype)
            Dp, mask = P, None
            if p > 0.0:
                Dp, mask, seed = dropout.drop(P, p, mode)
                P, mask = dropout.encode(P.to(value.dtype), mask, seed, mode)
        ctx.save_for_backward(P.to(value.dtype), mask, value)
        ctx.scores_dtype, ctx.settings = scores.dtype, settings
        out = _per_value_head(Dp.to(value.dtype), value) @ value
        return out.reshape(*scores.shape[:-1], value.shape[-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dO: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        P, mask, value = ctx.saved_tensors
        p, mode, backend = ctx.settings.p, ctx.settings.mask_mode, ctx.settings.backend
        operations = _operations(backend)
        dO = _per_value_head(dO, value)
        dZ = dV = None
        with no_autocast(P.device.type):
            if ctx.needs_input_grad[1]:
                Dp = operations.dropped(P, mask, p, mode)
                dV = _per_value_head(Dp, value).mT @ dO
                del Dp  # before dDp takes its place
            if ctx.needs_input_grad[0]:
                dDp = (dO @ value.mT).view(P.shape)
                dZ = operations.scores_gradient(dDp, P, mask, p, mode, ctx.scores_dtype)
        return dZ, dV, None


def _operations(backend: Backend) -> ModuleType:
    if backend == "torch":
        return dropout
    from paperlab.tempo.ops.kernels import softmax_dropout

    return softmax_dropout


def _check(scores: Tensor, value: Tensor, p: float, mode: str) -> None:
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout_p must lie in [0, 1], got {p}")
    if mode not in get_args(MaskMode):
        raise ValueError(f"mask_mode must be one of {get_args(MaskMode)}, got {mode!r}")
    *batch, _, keys = scores.shape
    *value_batch, value_keys, _ = value.shape
    grouped = len(batch) == len(value_batch) > 0 and batch[:-1] == value_batch[:-1]
    grouped = grouped and value_batch[-1] > 0 and batch[-1] % value_batch[-1] == 0
    if keys != value_keys or not (batch == value_batch or grouped):
        raise ValueError(
            f"value has shape {tuple(value.shape)}: for scores {tuple(scores.shape)} it should end in ({keys}, D) "
            "after the scores' leading dims, or after a number of heads that divides theirs"
        )


def softmax_dropout_matmul(
    scores: Tensor,
    value: Tensor,
    dropout_p: float = 0.0,
    training: bool = True,
    *,
    softmax_dtype: torch.dtype | None = None,
    probabilities_dtype: torch.dtype | None = None,
    mask_mode: MaskMode = "byte",
    backend: Backend | None = None,
) -> Tensor:
    """Give dropout(softmax(scores)) @ value, keeping P, the mask and V for backward.

    Shapes: scores (..., A, S, T) with all masks added, value (..., A or a divisor, T, D) -> (..., A, S, D).
    softmax_dtype: dtype in which softmax computes (None: that of the scores; under autocast, off the CPU, fp32).
    probabilities_dtype: dtype to which P is rounded *before* dropout (None: after it, for the matmul).
    mask_mode: "byte" (the paper's), or our extensions "bit", "sign" (-P is kept where P was dropped, no mask at
    all) and "philox" (a seed drawn from the torch generator is kept; the pattern is not that of `F.dropout`).

    Output and consumption of the torch generator equal `F.dropout`'s bit for bit, except in mode "philox". P is
    kept in V's dtype, so under autocast the Dp of backward may carry one rounding more than that of forward.
    Raises ValueError for bad shapes, p or mode, RuntimeError on double backward.
    """
    _check(scores, value, dropout_p, mask_mode)
    device = scores.device.type
    low = autocast_dtype(device)
    if low is not None and torch.float64 not in (scores.dtype, value.dtype):
        value = value.to(low)
    chosen = row_backend(value, scores.shape[-1], backend)
    p = dropout_p if training else 0.0
    settings = _Settings(p, softmax_dtype or promoted_dtype(scores), probabilities_dtype, mask_mode, chosen)
    with no_autocast(device):
        return _SoftmaxDropoutMatmul.apply(scores, value, settings)


def attention_form(module: nn.Module) -> Form | None:
    """Tell which of `FORMS` the attention of `module`, or of a class it derives from, has; None for others."""
    families = (cls.__module__.rpartition(".modeling_")[2] for cls in type(module).__mro__)
    return next((FORMS[family] for family in families if family in FORMS), None)


def _needs_eager(options: dict[str, Any]) -> bool:
    """Tell whether somebody wants the weights, or changes the scores or weights in a way of the model's own."""
    from transformers.utils import output_capturing

    # GPT-2 swallows `output_attentions`; whether its hooks collect the weights is known to the collector only
    collector = getattr(output_capturing, "_active_collector", None)
    collected = (collector.get() if collector else None) or ()
    if "attentions" in collected or "cross_attentions" in collected or options.get("output_attentions"):
        return True
    return any(options.get(name) is not None for name in ("head_mask", "position_bias", "softcap", "s_aux"))


def tempo_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attend as the model's own eager function does, bit for bit: Hugging Face's attention interface.

    Shapes: query (B, A, S, D), key, value (B, A or a divisor, T, D), mask (B, 1, S, T) additive -> (B, S, A, D).
    The weights are None, unless output_attentions, a head mask or a bias of the scores is asked for: then the
    model's eager function runs instead. `mask_mode` and `backend` as in `softmax_dropout_matmul`. Raises
    ValueError for a model whose eager attention is not in `FORMS`.
    """
    form = attention_form(module)
    if form is None:
        raise ValueError(f"attention of {type(module).__name__} is none of {', '.join(FORMS)}: use 'eager' for it")
    if _needs_eager(kwargs):
        eager = attention_function("eager", module)
        return eager(module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **kwargs)
    scores = (_per_value_head(query, key) @ key.mT).view(*query.shape[:-1], key.shape[-2])
    scores = scores * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = scores if attention_mask is None else scores + attention_mask
    out = softmax_dropout_matmul(
        scores,
        value,
        dropout,
        module.training,
        softmax_dtype=torch.float32 if form == "upcast" else None,
        probabilities_dtype=None if form == "plain" else query.dtype,
        mask_mode=kwargs.get("mask_mode", "byte"),
        backend=kwargs.get("backend"),
    )
    return out.transpose(1, 2).contiguous(), None


def register() -> None:
    """Offer `attn_implementation="tempo"` to Hugging Face models, with the masks of "eager"; repeatable."""
    register_attention("tempo", tempo_attention_forward)
