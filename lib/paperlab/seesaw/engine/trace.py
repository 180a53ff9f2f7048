"""What an engine's ranks did in a run: a table, totals, transitions, phases, and a drawing of the lanes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paperlab.lab.files import write_atomic
from paperlab.seesaw.engine.driver import Record
from paperlab.seesaw.engine.messages import Span
from paperlab.seesaw.layout import Layout
from paperlab.serving.events import EventLog
from paperlab.serving.work import StepShape

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

COLORS = {
    "prefill": "#0173b2", "decode": "#de8f05", "mixed": "#949494", "wait": "#ececec", "swap-out": "#029e73",
    "swap-in": "#56b4e9", "load": "#cc3311", "qkv": "#332288", "attention": "#7fb8d8",
}  # fmt: skip
TEXTS = {"load": "load weights", "qkv": "keys and values made", "attention": "rest of the layer"}  # for the legend
LANES = ("compute", "layers", "out", "in")
_AXIS = {"out": "to host", "in": "from host"}
COUNTS = (
    "forwards", "prefill_tokens", "decode_tokens", "mixed_tokens", "all_reduce", "all_reduce_bytes", "all_gather",
    "sent", "sent_bytes", "kv_out_bytes", "kv_in_bytes", "loads", "weight_bytes",
)  # fmt: skip


class Trace:
    """The log of the serving core and the record of the ranks, side by side; times count from the run's start."""

    def __init__(self, log: EventLog, record: Record) -> None:
        self.log, self._record = log, record

    @property
    def spans(self) -> list[Span]:
        """Everything that was recorded, in the order of the ranks' reports."""
        return self._record.spans

    def stage_times(self) -> Iterator[tuple[str, int, StepShape, float]]:
        """Yield layout, stage, shape and seconds of each micro-batch at each stage: its slowest rank's."""
        longest: dict[tuple[int, int], float] = {}
        for span in self.spans:
            if span.job in self._record.micro_batches and span.kind in ("prefill", "decode", "mixed"):
                layout = Layout.parse(self._record.micro_batches[span.job].layout)
                key = span.job, span.rank % layout.replica_ranks // layout.tp
                longest[key] = max(longest.get(key, 0.0), span.end_s - span.start_s)
        for (job, stage), seconds in longest.items():
            batch = self._record.micro_batches[job]
            yield batch.layout, stage, batch.shape, seconds

    def beyond_stages(self) -> list[float]:
        """Return the seconds that micro-batches took beyond their stages', where no other was under way."""
        batches = self._record.micro_batches
        inside = dict.fromkeys(batches, 0.0)
        for span in self.spans:
            if span.job in inside and span.rank == 0 and span.lane == "compute":
                inside[span.job] += span.end_s - span.start_s
        ordered = sorted(batches.items(), key=lambda item: item[1].begun_s)
        found = []
        for before, (job, batch), after in zip([None, *ordered], ordered, [*ordered[1:], None], strict=False):
            alone = (before is None or before[1].ended_s <= batch.begun_s) and (
                after is None or after[1].begun_s >= batch.ended_s
            )
            if alone and Layout.parse(batch.layout).pp == 1 and batch.shape.kind == "decode":
                found.append(batch.ended_s - batch.begun_s - inside[job])
        return found

    def table(self) -> pd.DataFrame:
        """Return one row per span, by start: the fields of `messages.Span`."""
        import pandas as pd

        table = pd.DataFrame(self.spans, columns=list(Span._fields))
        for name in ("start_s", "end_s"):
            table[name] -= self._record.origin_s
        return table.sort_values(["start_s", "rank", "lane"], ignore_index=True)

    def counts(self) -> pd.DataFrame:
        """Return one row per rank: forwards and their tokens, collectives, messages, and bytes moved."""
        import pandas as pd

        found = self._record.counts
        rows = [{"rank": rank} | {name: found[rank][name] for name in COUNTS} for rank in sorted(found)]
        table = pd.DataFrame(rows, columns=["rank", *COUNTS])
        peaks = self._record.peak_weight_bytes
        return table.assign(peak_weight_bytes=[peaks.get(rank, 0) for rank in table["rank"]])

    def transitions(self) -> pd.DataFrame:
        """Return one row per re-sharding: replica, source and target layout, times, and the bytes of all its ranks."""
        import pandas as pd

        loads = [span for span in self.spans if span.kind == "load"]
        rows = []
        for switch in self.log.switches:
            start_s, end_s = switch.start_s + self._record.origin_s, switch.end_s + self._record.origin_s
            device, ranks = switch.lane.partition(".")[0], Layout.parse(switch.target).replica_ranks
            own = [span for span in loads if span.rank // ranks == int(device.removeprefix("gpu"))]
            moved = sum(span.moved_bytes for span in own if start_s <= span.start_s <= end_s)
            rows.append((device, switch.source, switch.target, switch.start_s, switch.end_s, moved))
        return pd.DataFrame(rows, columns=["device", "source", "target", "start_s", "end_s", "weight_bytes"])

    def phases(self) -> pd.DataFrame:
        """Return one row per phase of the first replica: kind, start_s, end_s, steps, tokens.

        A phase is a run of steps of one kind (prefill, decode, mixed), or a re-sharding (load). What no phase covers
        is neither computation nor loading: copies that nothing hides, and the driver.
        """
        import pandas as pd

        own = [(s.start_s, s.end_s, s.shape.kind, s.shape.tokens) for s in self.log.steps if s.lane.startswith("gpu0.")]
        own += [(s.start_s, s.end_s, "load", 0) for s in self.log.switches if s.lane.startswith("gpu0.")]
        rows: list[tuple[Any, ...]] = []
        for kind, group in groupby(sorted(own), key=lambda item: item[2]):
            items = list(group)
            start_s, end_s = items[0][0], max(item[1] for item in items)
            rows.append((kind, start_s, end_s, 0 if kind == "load" else len(items), sum(item[3] for item in items)))
        return pd.DataFrame(rows, columns=["kind", "start_s", "end_s", "steps", "tokens"])

    def draw(self, axes: Axes, start_s: float = 0.0, end_s: float | None = None, *, layers: bool = False) -> None:
        """Draw a lane per rank and direction between two times: what was computed, copied and loaded when.

        With `layers` those of prompt batches have a lane too: what each layer's swap-out runs beside (Fig. 8).
        """
        from matplotlib.patches import Patch

        table = self.table()
        end_s = float(table["end_s"].max()) if end_s is None else end_s
        shown = (table["end_s"] > start_s) & (table["start_s"] < end_s)
        table = table[shown if layers else shown & (table["lane"] != "layers")]
        keys = set(zip(table["rank"], table["lane"], strict=True))
        lanes = sorted(keys, key=lambda lane: (lane[0], LANES.index(lane[1])))
        for row in table.to_dict("records"):
            low = len(lanes) - 1 - lanes.index((row["rank"], row["lane"])) - 0.4
            bar = (row["start_s"], row["end_s"] - row["start_s"])
            axes.broken_barh([bar], (low, 0.8), facecolor=COLORS[row["kind"]], edgecolor="white", linewidth=0.2)
        axes.set(xlim=(start_s, end_s), ylim=(-0.6, len(lanes) - 0.4), xlabel="time (s)")
        axes.set_yticks(range(len(lanes)), [f"rank {rank} {_AXIS.get(lane, lane)}" for rank, lane in reversed(lanes)])
        axes.grid(axis="y", visible=False)
        kinds = [kind for kind in COLORS if kind in set(table["kind"])]
        handles = [Patch(color=COLORS[kind], label=TEXTS.get(kind, kind)) for kind in kinds]
        axes.legend(handles=handles, loc="lower right", bbox_to_anchor=(1, 1), ncols=len(kinds), fontsize=8)

    def save(self, path: Path | str) -> Path:
        """Write a trace that ui.perfetto.dev and chrome://tracing open, a process per rank; returns its path."""
        events = [
            {
                "ph": "X", "name": row["kind"], "pid": row["rank"], "tid": LANES.index(row["lane"]),
                "ts": 1e6 * row["start_s"], "dur": 1e6 * (row["end_s"] - row["start_s"]),
                "args": {name: row[name] for name in ("job", "layer", "tokens", "moved_bytes", "network_s")},
            }
            for row in self.table().to_dict("records")
        ]  # fmt: skip
        described = {key: str(value) for key, value in self.log.about.items()}
        return write_atomic(Path(path), json.dumps({"traceEvents": events, "otherData": described}))
