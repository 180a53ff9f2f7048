"""How well the simulator, calibrated on this machine's engine, predicts traces it has not seen (measured and simulated)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from paperlab.serving.engine.calibrate import calibrate
from paperlab.serving.engine.llm import LLM
from paperlab.serving.lengths import LengthSource, Mixture, uniform
from paperlab.serving.policy import Limits, make_policy
from paperlab.serving.simulator import simulate
from paperlab.serving.workload import Workload, workload
from paperlab.transformer import ModelShape

if TYPE_CHECKING:
    import pandas as pd

# Hidden 256, four layers: iterations of some milliseconds on one core, so that traces of seconds hold hundreds of them.
SMALL = ModelShape(
    name="small", layers=4, hidden=256, heads=8, kv_heads=2, ffn=704, vocab=4096, max_positions=2048,
    mlp="gated", norm="rmsnorm", position="rope",
)  # fmt: skip
SEEN = uniform((16, 256), (4, 48), "uniform")
UNSEEN = (uniform((8, 64), (16, 80), "chat"), uniform((200, 500), (2, 16), "documents"))
METRICS = ("ttft", "tbt")


def unseen_traces() -> tuple[LengthSource, ...]:
    """Return length sources that the calibration has not seen: many short prompts, few long ones, and both."""
    return (*UNSEEN, Mixture("both", UNSEEN, (0.6, 0.4)))


def prediction_study(
    policies: Sequence[str] = ("vllm-like", "sglang-like", "nexus"),
    traces: Sequence[LengthSource] | None = None,
    *,
    model: ModelShape = SMALL,
    requests: int = 60,
    utilization: float = 0.5,
    limits: Limits | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Serve and simulate each trace under each policy; the calibration's own workload is served before and after it.

    Arrivals are Poisson at `utilization` of the requests per second that the engine reaches when all come at once;
    calibrating on both sides of a trace averages a machine that slows down or speeds up meanwhile.

    Returns:
        One row per policy, trace and metric (`ttft`, `tbt`): rate_per_s, measured_s, simulated_s (means), error
        (simulated / measured - 1).
    """
    import pandas as pd

    rows = []
    for policy in policies:
        chosen = limits or Limits(token_budget=256, max_sequences=32)
        engine = LLM(model, make_policy(policy, limits=chosen), seed=seed)
        engine.serve(workload(SEEN, requests=max(4, requests // 4), seed=seed + 1, arrivals="at_once"))  # warms up
        for source in traces or unseen_traces():
            trace = _paced(engine, source, requests, utilization, seed + 2)
            training = _paced(engine, SEEN, requests, utilization, seed + 3)
            before, measured, after = (engine.serve(work) for work in (training, trace, training))
            options = calibrate([before, after], engine.shape)
            predicted = simulate(policy, workload=trace, limits=chosen, **options)
            ours, theirs = measured.summary().iloc[0], predicted.summary().iloc[0]
            for metric in METRICS:
                pair = float(ours[f"{metric}_mean_s"]), float(theirs[f"{metric}_mean_s"])
                rows.append((policy, source.name, metric, trace.rate_per_s, *pair, pair[1] / pair[0] - 1))
    names = ["policy", "trace", "metric", "rate_per_s", "measured_s", "simulated_s", "error"]
    return pd.DataFrame(rows, columns=names)


def _paced(engine: LLM, source: LengthSource, requests: int, utilization: float, seed: int) -> Workload:
    """Return a Poisson workload at a share of what the engine serves when everything is there at once."""
    flood = workload(source, requests=max(8, requests // 3), seed=seed, arrivals="at_once")
    capacity = float(engine.serve(flood).summary()["requests_per_s"].iloc[0])
    return workload(source, requests=requests, seed=seed, rate_per_s=utilization * capacity)
