"""What is asked of a conversion, and what became of every module it looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from paperlab.tempo.ops.gelu_fit import Evaluator, check_options

Technique = Literal["gelu", "layernorm", "attention"]
Action = Literal["replaced", "skipped"]
Selection = bool | Collection[int]
TECHNIQUES: tuple[Technique, ...] = ("gelu", "layernorm", "attention")
OUTSIDE = -1  # the layer of what lies outside the encoder stack


@dataclass(frozen=True)
class Change:
    """What became of one module (layer -1: outside the encoder stack), and why it was skipped or what it was."""

    module: str
    technique: Technique
    layer: int
    action: Action
    reason: str


@dataclass(frozen=True)
class Report:
    """Every module that Tempo looked at; prints as a summary, `frame` is the whole table."""

    changes: tuple[Change, ...] = ()

    @property
    def frame(self) -> pd.DataFrame:
        """One row per module: module, technique, layer, action, reason."""
        return pd.DataFrame([vars(c) for c in self.changes], columns=list(Change.__annotations__))

    def replaced(self, technique: Technique) -> list[str]:
        """Paths of the modules that `technique` converted."""
        return [c.module for c in self.changes if c.technique == technique and c.action == "replaced"]

    def __str__(self) -> str:
        counts = Counter((c.technique, c.action, c.reason) for c in self.changes)
        lines = [f"{name}: {n} {action} ({reason})" for (name, action, reason), n in counts.items()]
        return "\n".join(lines) or "nothing is patched"


@dataclass(frozen=True)
class Options:
    """What `apply` was asked for; see there."""

    gelu: Selection = True
    layernorm: Selection = True
    attention: Selection = True
    layers: Collection[int] | None = None
    evaluator: Evaluator = "fit"
    packed: bool = False
    python_gelu: bool = False
    max_error: float | None = None
    low_precision_output: bool = True

    def __post_init__(self) -> None:
        check_options("none", self.evaluator)

    def covers(self, technique: Technique, layer: int) -> bool:
        """Whether `technique` is wanted in `layer` (-1: outside the encoder stack)."""
        selection = getattr(self, technique)
        if isinstance(selection, bool):
            return selection and (self.layers is None or layer in self.layers)
        return layer in selection
