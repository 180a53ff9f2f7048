"""Plans: what the tuner prints, what a file holds, and what the runtime runs (the paper's per-stage variables)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paperlab.lab.files import write_json
from paperlab.mist.models import ModelSpec, _exact_keys

if TYPE_CHECKING:
    import pandas as pd

    from paperlab.mist.clusters import Cluster

OFFLOADS = ("weight_offload", "grad_offload", "optimizer_offload", "activation_offload")
_FORMAT = 1


@dataclass(frozen=True)
class StagePlan:
    """One pipeline stage.

    layers: transformer blocks of the stage; the first stage also holds the embedding, the last one the head.
        Embedding and head are never checkpointed or offloaded, and sharded at most by their optimizer states.
    checkpointed: how many of them keep only their input and are recomputed; these are the stage's last blocks.
    micro_batch: sequences per data-parallel rank and micro-batch.
    dp, tp: data- and tensor-parallel size; the stage has dp·tp devices, tensor-parallel neighbors side by side.
    zero: 0 nothing sharded over dp; 1 optimizer states; 2 gradients too; 3 weights too.
    *_offload: fraction in [0, 1] of this rank's weights, gradients, optimizer states and saved activations that
        lives in host memory.
    """

    layers: int
    checkpointed: int
    micro_batch: int
    dp: int
    tp: int
    zero: int = 1
    weight_offload: float = 0.0
    grad_offload: float = 0.0
    optimizer_offload: float = 0.0
    activation_offload: float = 0.0

    def __post_init__(self) -> None:
        for name, low in (("layers", 1), ("checkpointed", 0), ("micro_batch", 1), ("dp", 1), ("tp", 1), ("zero", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise ValueError(f"{name} is {value!r}; write a whole number of at least {low}")
        if self.checkpointed > self.layers:
            raise ValueError(f"checkpointed is {self.checkpointed}; the stage has only {self.layers} layers")
        if self.zero > 3:
            raise ValueError(f"zero is {self.zero}; ZeRO has levels 0 to 3")
        for name in OFFLOADS:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                raise ValueError(f"{name} is {value!r}; write a fraction from 0 to 1")

    @property
    def gpus(self) -> int:
        """Devices of the stage."""
        return self.dp * self.tp

    @property
    def shards(self) -> tuple[int, int, int]:
        """Into how many parts weights, gradients and optimizer states are split over data-parallel ranks."""
        return tuple(self.dp if self.zero >= level else 1 for level in (3, 2, 1))  # type: ignore[return-value]


@dataclass(frozen=True)
class ClusterSize:
    """Which cluster a plan is for; `paperlab.mist.cluster` turns the name into constants."""

    name: str
    nodes: int
    gpus_per_node: int

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"name is {self.name!r}; write the cluster's name")
        for name in ("nodes", "gpus_per_node"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value!r}; write a positive whole number")

    @property
    def gpus(self) -> int:
        """All devices."""
        return self.nodes * self.gpus_per_node


@dataclass(frozen=True)
class Prediction:
    """What the cost model says of a plan: iteration time, and per stage t, d (§2.9) and the two memory peaks.

    `stable_s` is the time of one micro-batch that is neither first nor last, `extra_s` what the first and the last
    one cost on top; the peaks are of device memory, `forward_peak_at` and `backward_peak_at` say where they lie.
    """

    iteration_s: float
    stable_s: tuple[float, ...]
    extra_s: tuple[float, ...]
    forward_peak_bytes: tuple[float, ...]
    backward_peak_bytes: tuple[float, ...]
    forward_peak_at: tuple[str, ...]
    backward_peak_at: tuple[str, ...]

    def __post_init__(self) -> None:
        numbers = (self.stable_s, self.extra_s, self.forward_peak_bytes, self.backward_peak_bytes)
        texts = (self.forward_peak_at, self.backward_peak_at)
        if len({len(values) for values in (*numbers, *texts)}) != 1:
            raise ValueError("prediction: all its lists must have one entry per stage")
        if not all(isinstance(x, int | float) for x in (self.iteration_s, *(x for column in numbers for x in column))):
            raise ValueError("prediction: times and peaks must be numbers")

    @property
    def peak_bytes(self) -> tuple[float, ...]:
        """The larger of both peaks, per stage."""
        return tuple(map(max, self.forward_peak_bytes, self.backward_peak_bytes))


@dataclass(frozen=True)
class Plan:
    """How to train `model` on `cluster`: one `StagePlan` per pipeline stage.

    global_batch: sequences per iteration; accumulation: micro-batches per iteration (the paper's G).

    Raises:
        ValueError: the stages' layers, devices or batches do not add up, or tp does not divide the model.
    """

    model: ModelSpec
    cluster: ClusterSize
    global_batch: int
    accumulation: int
    stages: tuple[StagePlan, ...]
    prediction: Prediction | None = None

    def __post_init__(self) -> None:
        for name in ("global_batch", "accumulation"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value!r}; write a positive whole number")
        if not self.stages:
            raise ValueError("stages is empty; a plan has at least one stage")
        if (layers := sum(stage.layers for stage in self.stages)) != self.model.layers:
            raise ValueError(f"stages hold {layers} layers together; {self.model.name} has {self.model.layers}")
        if (gpus := sum(stage.gpus for stage in self.stages)) != self.cluster.gpus:
            raise ValueError(f"stages use {gpus} devices together; the cluster has {self.cluster.gpus}")
        if self.accumulation < len(self.stages):
            raise ValueError(f"accumulation is {self.accumulation}; {len(self.stages)} stages need at least as many")
        for index, stage in enumerate(self.stages):
            if (batch := stage.micro_batch * stage.dp * self.accumulation) != self.global_batch:
                raise ValueError(
                    f"stage {index}: micro_batch x dp x accumulation is {batch}; global_batch is {self.global_batch}"
                )
            self.model.check_tp(stage.tp)
        if self.prediction is not None and len(self.prediction.stable_s) != len(self.stages):
            raise ValueError(f"prediction has {len(self.prediction.stable_s)} stages; the plan {len(self.stages)}")

    def table(self) -> pd.DataFrame:
        """Return one row per stage: its variables and, where predicted, its times (s) and peaks (MiB)."""
        import pandas as pd

        frame = pd.DataFrame([asdict(stage) for stage in self.stages])
        frame.insert(0, "stage", range(len(self.stages)))
        if (found := self.prediction) is not None:
            frame["stable_s"], frame["extra_s"] = found.stable_s, found.extra_s
            frame["forward_peak_MiB"] = [value / 2**20 for value in found.forward_peak_bytes]
            frame["backward_peak_MiB"] = [value / 2**20 for value in found.backward_peak_bytes]
        return frame

    def explain(self, on: Cluster | None = None) -> str:
        """Return in a few lines what the plan's time and its peaks are made of, and what does not fit.

        `on` is the cluster to judge it on; by default the published one that the plan names.
        """
        from paperlab.mist.cost.explain import explain

        return explain(self, on)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values; `from_dict` inverts it."""
        return {"format": _FORMAT, **asdict(self), "model": self.model.to_dict()}

    @classmethod
    def from_dict(cls, values: Any) -> Plan:
        """Build a plan from `to_dict`'s values; ValueError names the wrong key or value."""
        values = _exact_keys(values, {"format", *(f.name for f in fields(cls))}, "plan")
        if values["format"] != _FORMAT:
            raise ValueError(f"format is {values['format']!r}; this version reads {_FORMAT}")
        if not isinstance(values["stages"], list):
            raise ValueError(f"stages is {values['stages']!r}; write a list")
        return cls(
            ModelSpec.from_dict(values["model"]),
            _read(ClusterSize, values["cluster"], "cluster"),
            values["global_batch"],
            values["accumulation"],
            tuple(_read(StagePlan, stage, f"stages[{index}]") for index, stage in enumerate(values["stages"])),
            None if values["prediction"] is None else _read(Prediction, values["prediction"], "prediction"),
        )

    def save(self, path: str | Path) -> Path:
        """Write the plan as JSON, atomically, and return the path."""
        return write_json(Path(path), self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Read a plan file.

        Raises:
            ValueError: not JSON, or not a plan; the message names the file and what is wrong.
        """
        try:
            return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: not a plan file: {error}") from None
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from None


def _read(cls: Any, values: Any, where: str) -> Any:
    """Build one dataclass from a mapping with exactly its fields, lists as tuples."""
    values = _exact_keys(values, {f.name for f in fields(cls)}, where)
    try:
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from None
