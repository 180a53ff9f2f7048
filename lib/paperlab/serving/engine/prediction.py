"""How well the simulator, calibrated on this machine's engine, predicts traces that the calibration has not seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from paperlab.serving.deployment import Deployment
from paperlab.serving.engine.calibrate import calibrate
from paperlab.serving.engine.llm import LLM
from paperlab.serving.events import EventLog
from paperlab.serving.lengths import LengthSource, Mixture, uniform
from paperlab.serving.metrics import tokens
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
SEEN = uniform((8, 512), (4, 64), "uniform")  # covers the lengths of the others, in other proportions
UNSEEN = (uniform((8, 64), (16, 80), "chat"), uniform((200, 500), (2, 16), "documents"))


def unseen_traces() -> tuple[LengthSource, ...]:
    """Return length sources that the calibration has not seen: many short prompts, few long ones, and both."""
    return (*UNSEEN, Mixture("both", UNSEEN, (0.6, 0.4)))


def prediction_study(
    policies: Sequence[str] = ("vllm-like", "sglang-like", "nexus"),
    traces: Sequence[LengthSource] | None = None,
    *,
    model: ModelShape = SMALL,
    rounds: int = 8,
    requests: int = 8,
    utilization: float = 0.5,
    limits: Limits | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Serve and simulate each trace under each policy, after calibrating on another workload of the same engine.

    Arrivals are Poisson at `utilization` of the requests per second that the engine reaches when all come at once.
    A trace comes in `rounds` of `requests` each, and before and after each round the calibration's own workload runs:
    so both see the same machine, though other programs may slow it down meanwhile.

    Returns:
        One row per policy, trace and metric (`ttft`, `tbt`): rate_per_s, measured_s, simulated_s (means over all
        rounds), error (simulated / measured - 1), and noise: the relative standard error of the calibration runs'
        pace (measured over predicted seconds). An error of that order says nothing about the model.
    """
    import pandas as pd

    chosen, rows = limits or Limits(token_budget=256, max_sequences=32), []
    for policy in policies:
        engine = LLM(model, make_policy(policy, limits=chosen), seed=seed)
        _paced(engine, SEEN, requests, utilization, seed)  # warms up
        for source in traces or unseen_traces():
            make_seen = _paced(engine, SEEN, requests, utilization, seed)
            make_unseen = _paced(engine, source, requests, utilization, seed)
            unseen = [make_unseen(seed + 1 + index) for index in range(rounds)]
            training, measured = [engine.serve(make_seen(seed + 100))], []
            for index, trace in enumerate(unseen):
                measured.append(engine.serve(trace))
                training.append(engine.serve(make_seen(seed + 101 + index)))
            options = calibrate(training, engine.shape)
            simulated = [simulate(policy, workload=trace, limits=chosen, **options) for trace in unseen]
            ours, theirs, noise = _means(measured), _means(simulated), _noise(training, options)
            for metric, measured_s in ours.items():
                error = theirs[metric] / measured_s - 1
                row = (policy, source.name, metric, unseen[0].rate_per_s, measured_s, theirs[metric], error, noise)
                rows.append(row)
    names = ["policy", "trace", "metric", "rate_per_s", "measured_s", "simulated_s", "error", "noise"]
    return pd.DataFrame(rows, columns=names)


def _paced(
    engine: LLM, source: LengthSource, requests: int, utilization: float, seed: int
) -> Callable[[int], Workload]:
    """Return what makes Poisson workloads, by seed, at a share of what the engine serves when all is there at once."""
    flood = workload(source, requests=requests, seed=seed, arrivals="at_once")
    rate_per_s = utilization * float(engine.serve(flood).summary()["requests_per_s"].iloc[0])
    return lambda each: workload(source, requests=requests, seed=each, rate_per_s=rate_per_s)


def _means(logs: Sequence[EventLog]) -> dict[str, float]:
    """Return mean TTFT over the requests and mean TBT over the gaps of all `logs`."""
    ttft_s = np.concatenate([log.per_request()["ttft_s"].to_numpy() for log in logs])
    return {"ttft": float(ttft_s.mean()), "tbt": float(np.concatenate([tokens(log).gaps_s for log in logs]).mean())}


def _noise(logs: Sequence[EventLog], options: dict[str, Any]) -> float:
    model = Deployment(**options).device_model
    paces = []
    for log in logs:
        predicted_s = sum(model.seconds(model.load(step.shape)) for step in log.steps)
        paces.append(sum(step.end_s - step.start_s for step in log.steps) / predicted_s)
    return float(np.std(paces, ddof=1) / np.mean(paces) / np.sqrt(len(paces)))
