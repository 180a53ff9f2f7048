"""Which modules of a model Tempo converts, and why it leaves the others alone.

Keeping the output saves something only where somebody else keeps that same output and nobody keeps the input;
where the structure of a model shows that this is not so, the module is skipped and the reason given.
"""

from __future__ import annotations

import types
from collections.abc import Collection
from itertools import pairwise
from typing import Any

from torch import nn

from paperlab.tempo.dropin.encoder import attention_modules, layer_indices
from paperlab.tempo.dropin.report import OUTSIDE, Action, Change, Options, Report, Technique
from paperlab.tempo.ops.attention import attention_form
from paperlab.tempo.ops.gelu_fit import Approximate


def gelu_form(module: nn.Module) -> tuple[Approximate | None, bool]:
    """Form of an activation module, "none" (erf) or "tanh", and whether it is written out in Python.

    The form is None for other functions that bear the name: `quick_gelu` is a sigmoid, `gelu_10` is clipped.
    """
    if isinstance(module, nn.GELU):
        return module.approximate, False  # type: ignore[return-value]
    name = type(module).__name__
    if name in ("GELUActivation", "GELUTanh"):
        return ("tanh" if name == "GELUTanh" else "none"), isinstance(module.act, types.MethodType)
    python_tanh = name in ("NewGELUActivation", "FastGELUActivation", "AccurateGELUActivation")
    return ("tanh" if python_tanh else None), python_tanh


def _technique(path: str, module: nn.Module, attentions: Collection[str]) -> Technique | None:
    if path in attentions:
        return "attention"
    if isinstance(module, nn.LayerNorm):
        return "layernorm"
    return "gelu" if "GELU" in type(module).__name__.upper() and not list(module.children()) else None


def _feeds_dropout_only(norm: nn.Module, parent: nn.Module) -> bool:
    """Whether `norm` belongs to embeddings, with an active dropout right after it."""
    embeds = any(isinstance(child, nn.Embedding) for child in parent.children())
    followers = [after for before, after in pairwise(parent.children()) if before is norm]
    return embeds and any(isinstance(after, nn.Dropout) and after.p > 0 for after in followers)


def _obstacle(module: nn.Module, technique: Technique, parent: nn.Module, outside: bool, wanted: Options) -> str:
    """Why `module` is not converted, "" where nothing is in the way."""
    if "forward" in vars(module):
        return "its forward is overridden on the instance"
    if technique == "attention":
        return _attention_obstacle(module)
    if technique == "layernorm":
        if type(module) is not nn.LayerNorm:
            return f"{type(module).__name__} is not torch's own LayerNorm"
        if _feeds_dropout_only(module, parent):
            return "only dropout reads its output, so nobody else keeps it and nothing is saved"
        return ""
    form, python = gelu_form(module)
    if form is None:
        return f"{type(module).__name__} is neither the erf nor the tanh form"
    if python and not wanted.python_gelu:
        return "written in Python, the fused form differs in the last bits; python_gelu=True converts it"
    beside_norm = any(isinstance(child, nn.LayerNorm) for child in parent.children())
    if outside and beside_norm and wanted.covers("layernorm", OUTSIDE):
        return "an in-place LayerNorm reads its output and does not keep it, so nothing is saved"
    return ""


def _attention_obstacle(module: Any) -> str:
    implementation = module.config._attn_implementation
    if implementation == "tempo":
        return "it is Tempo's already"
    if not implementation.startswith("eager"):
        return f"'{implementation}' keeps no attention map; set_attn_implementation('eager') first to convert"
    if getattr(module, "reorder_and_upcast_attn", False):
        return "reorder_and_upcast_attn has an attention of its own"
    if attention_form(module) is None:
        return f"the eager attention of {type(module).__name__} is not a form that Tempo knows"
    return ""


def survey(model: nn.Module, wanted: Options) -> Report:
    """Every module of `model` that the wanted techniques look at, with the verdict of each; changes nothing."""
    layers, attentions = layer_indices(model), attention_modules(model)
    changes = []
    for path, module in model.named_modules():
        technique, layer = _technique(path, module, attentions), layers.get(path, OUTSIDE)
        if technique is None or getattr(wanted, technique) is False:
            continue
        parent = model.get_submodule(path.rpartition(".")[0])
        if wanted.covers(technique, layer):
            reason = _obstacle(module, technique, parent, bool(layers) and layer == OUTSIDE, wanted)
        else:
            reason = "its layer is not selected"
        action: Action = "skipped" if reason else "replaced"
        changes.append(Change(path, technique, layer, action, reason or f"was {type(module).__name__}"))
    return Report(tuple(changes))
