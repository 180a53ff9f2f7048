"""Drop-in: rewrite a model in place to use Tempo's operators, undo it, and say what was done.

A converted module stays the same object: its class is exchanged for the in-place one, so parameters,
state-dict keys, hooks, mode and every reference to it survive, as do `deepcopy`, `pickle` and checkpointing.
Attention is converted through Hugging Face's attention interface, in a configuration that the model no longer
shares with others built from it. No global function is touched.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from paperlab.tempo.dropin.encoder import (
    attention_function,
    attention_modules,
    layer_indices,
    own_configurations,
    register_attention,
)
from paperlab.tempo.dropin.report import TECHNIQUES, Options, Report, Selection
from paperlab.tempo.dropin.survey import gelu_form, survey
from paperlab.tempo.ops import attention as tempo_attention
from paperlab.tempo.ops.gelu import InplaceGELU
from paperlab.tempo.ops.layernorm import InplaceLayerNorm

STATE, ORIGINAL, CHOICE = "_tempo_state", "_tempo_original", "_tempo_attention"
BY_LAYER = "tempo_by_layer"  # the attention implementation of a partly converted model


@dataclass
class _State:
    """Kept on a patched model: unpickling it registers the attention functions the model refers to."""

    options: Options
    report: Report
    implementations: dict[str, str]  # the attention each attention module had before, by path

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.implementations:
            _register()


def _register() -> None:
    tempo_attention.register()
    register_attention(BY_LAYER, _attention_by_layer)


def _attention_by_layer(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    return attention_function(getattr(module, CHOICE), module)(module, *args, **kwargs)


def _check_layers(model: nn.Module, wanted: Options) -> None:
    existing = range(1 + max(layer_indices(model).values(), default=-1))
    for name in ("layers", *TECHNIQUES):
        chosen = getattr(wanted, name)
        if chosen is None or isinstance(chosen, bool):
            continue
        if not isinstance(chosen, Collection) or any(index not in existing for index in chosen):
            raise ValueError(f"{name} is {chosen!r}; it must hold encoder layers, 0 to {len(existing) - 1} here")


def _exchange_class(module: nn.Module, replacement: nn.Module) -> None:
    added = {key: value for key, value in vars(replacement).items() if key not in vars(module)}
    vars(module).update(added, **{ORIGINAL: (type(module), tuple(added))})
    module.__class__ = type(replacement)


def _restore_class(module: nn.Module) -> None:
    original, added = vars(module).pop(ORIGINAL)
    caches = [key for key in vars(module) if hasattr(type(module), key) and not hasattr(original, key)]
    for key in {*added, *caches}:
        del vars(module)[key]
    module.__class__ = original


def _convert_attention(model: nn.Module, chosen: Collection[str]) -> dict[str, str]:
    """Point the model's own configurations to Tempo; returns what each attention module had before."""
    _register()
    own_configurations(model)
    attentions = attention_modules(model)
    before = {path: module.config._attn_implementation for path, module in attentions.items()}
    everywhere = len(chosen) == len(attentions)
    for path, module in attentions.items():
        if not everywhere:
            setattr(module, CHOICE, "tempo" if path in chosen else before[path])
        module.config._attn_implementation = "tempo" if everywhere else BY_LAYER
    return before


def apply(
    model: nn.Module,
    *,
    gelu: Selection = True,
    layernorm: Selection = True,
    attention: Selection = True,
    layers: Collection[int] | None = None,
    **options: Any,
) -> Report:
    """Convert `model` in place to Tempo's operators and report what was replaced, skipped and why.

    `gelu`, `layernorm` and `attention` are True, False, or the indices of the encoder layers to convert;
    `layers` restricts those that are True to some layers (and leaves the rest of the model alone). `options`:
    `evaluator` ("fit", "paper", "newton"), `packed` (one bit per GELU input instead of one byte), `python_gelu`,
    `max_error` and `low_precision_output` of `InplaceLayerNorm`. Applying again replaces the earlier patch. Raises
    `ValueError` where nothing can be converted or a layer does not exist, `TypeError` on an unknown option.
    """
    wanted = Options(gelu, layernorm, attention, layers, **options)
    _check_layers(model, wanted)
    revert(model)
    found = survey(model, wanted)
    if not any(change.action == "replaced" for change in found.changes):
        reasons = "; ".join(sorted({c.reason for c in found.changes})) or "no GELU, LayerNorm or attention module"
        raise ValueError(f"model: {type(model).__name__} has nothing that Tempo converts ({reasons})")
    norms: list[Any] = [model.get_submodule(path) for path in found.replaced("layernorm")]
    for norm in norms:
        twin = InplaceLayerNorm.from_module(
            norm, max_error=wanted.max_error, low_precision_output=wanted.low_precision_output
        )
        _exchange_class(norm, twin)
        norm.peers = tuple(norms)
    for path in found.replaced("gelu"):
        form, _ = gelu_form(activation := model.get_submodule(path))
        assert form is not None  # `survey` lets no other through
        _exchange_class(activation, InplaceGELU(form, wanted.evaluator, wanted.packed))
    chosen = found.replaced("attention")
    implementations = _convert_attention(model, chosen) if chosen else {}
    vars(model)[STATE] = _State(wanted, found, implementations)
    return found


def revert(model: nn.Module) -> None:
    """Undo `apply` in place; a model that is not patched is left as it is."""
    state = vars(model).pop(STATE, None)
    if state is None:
        return
    for module in model.modules():
        if ORIGINAL in vars(module):
            _restore_class(module)
        vars(module).pop(CHOICE, None)
    for path, implementation in state.implementations.items():
        attention: Any = model.get_submodule(path)
        attention.config._attn_implementation = implementation


def rename_attention(model: nn.Module, names: Mapping[str, str]) -> None:
    """Exchange attention implementations of `model` by name, also those that a patch holds for later."""
    own_configurations(model)
    for module in attention_modules(model).values():
        current = module.config._attn_implementation
        module.config._attn_implementation = names.get(current, current)
        if (choice := vars(module).get(CHOICE)) is not None:
            setattr(module, CHOICE, names.get(choice, choice))
    if (state := vars(model).get(STATE)) is not None:
        before = state.implementations
        state.implementations = {path: names.get(name, name) for path, name in before.items()}


def preview(model: nn.Module, **options: Any) -> Report:
    """What `apply` with these options would do; the model is not changed."""
    with reverted(model):
        return survey(model, Options(**options))


def report(model: nn.Module) -> Report:
    """What `apply` did to `model`; empty where it is not patched."""
    state = vars(model).get(STATE)
    return state.report if state else Report()


@contextmanager
def reverted(model: nn.Module) -> Iterator[nn.Module]:
    """The model without its patch for the length of a `with` block, whatever happens inside."""
    state = vars(model).get(STATE)
    revert(model)
    try:
        yield model
    finally:
        if state is not None:
            apply(model, **vars(state.options))
