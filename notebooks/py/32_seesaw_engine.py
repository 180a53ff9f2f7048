# %% [markdown]
# # Seesaw: the engine that re-shards
#
# *Seesaw: High-throughput LLM Inference via Model Re-sharding*, MLSys 2025, arXiv 2503.06433v1.
#
# Sections 4 and 5 of the paper on two real processes (torch.distributed with gloo): shards, reloads, a host tier in shared memory,
# copies layer by layer, and the same schedulers as in the simulator. After this notebook you can
#
# 1. tell whether re-sharding changes a single token, and read in a trace what hides behind what;
# 2. check the paper's rules in the events of a run: when phases turn, whom a decode step serves, which copies grow;
# 3. judge the simulator of `31_seesaw_experiments` by runs that it has not seen.
#
# Cost on 2 cores: `smoke` under a minute, `cpu` about 7 minutes, 5 GiB. Hardware: any CPU; times need two idle cores. Times are of
# this machine's cores, one per rank: orders and ratios carry over to GPUs, seconds do not. Where a link is emulated, its rate stands
# in the table (`peer_bus_Bps`, `host_link_Bps`; 0: as it is).

# %% tags=["parameters"]
profile: str = "smoke"  # how much to run: smoke, cpu or gpu
seed: int = 0  # seeds every generator

# %% tags=["setup"]
from paperlab import seesaw
from paperlab.lab import start
from paperlab.seesaw import engine_experiments, engine_findings, engine_plots
from paperlab.seesaw.engine import RankPool
from paperlab.seesaw.studies import engine_rules, prediction_study

run = start("32_seesaw_engine", profile, seed)
config = run.config("seesaw", seesaw.Config)
pool = RankPool(2)  # two processes, one compute thread each; every run below uses them


def record(found):
    """Record findings and print their verdicts."""
    for item in found:
        verdict = run.record_claim(
            item.claim_id,
            item.value,
            evidence="measured-cpu",
            artifact=item.artifact,
            note=item.note,
        )
        print(item.claim_id, item.value, verdict, item.note)


# %% [markdown]
# ## 1. The same tokens
#
# A small Llama checkpoint, made by Hugging Face and read from its folder, answers eight prompts of 1 to 64 tokens. The host's tier
# holds a third of them, so phases turn several times. Greedy decoding in fp32 must give Hugging Face's tokens, all of them.

# %%
run.save_table(
    engine_experiments.table_tokens(config, pool),
    "tokens",
    caption="Prompts whose tokens equal Hugging Face's, by layouts of prefill and decode.",
)

# %% [markdown]
# ## 2. One run, as it happened
#
# `ReshardingEngine` takes a model, two layouts and the ranks; `generate` and `serve` run it, `trace` tells what every rank did when.

# %%
from paperlab.seesaw import ReshardingEngine
from paperlab.seesaw.studies.engine_study import SMALL

with ReshardingEngine(SMALL, prefill="P2", decode="T2", pool=pool, host_kv_bytes=2 << 20) as engine:
    done = engine.generate([[1, 2, 3], list(range(40))], max_new_tokens=4)
    counts = engine.trace().counts()
print([completion.tokens for completion in done])
counts[["rank", "forwards", "all_reduce", "sent", "kv_out_bytes", "kv_in_bytes", "weight_bytes"]]

# %%
trace = engine_experiments.example(config, pool)
run.save_figure(
    engine_plots.gantt(trace),
    "gantt",
    trace.table(),
    evidence="measured-cpu",
    caption="Two ranks serve prompts in P2 and decode in T2: the whole run, and its first re-sharding with layers.",
    timed=True,
)

# %% [markdown]
# In the lower part each layer's copy to the host (green) starts when the layer's keys and values are there (dark) and runs
# beside the rest of its computation. Then both ranks load their new shards, and the sequences come back.
#
# ## 3. The rules, checked
#
# *Phases switch only when the host's store is full or empty, or no prompt is left* (§4.2). What the store held is counted from the
# blocks that were written and fetched, not taken from what the scheduler says of itself.

# %%
turns = run.save_table(
    engine_rules.turns(trace),
    "turns",
    caption="What the host's tier held at each turn, in blocks, and whether that is what the paper states.",
    timed=True,
)
record(engine_findings.turn_findings(turns))

# %% [markdown]
# *Each decode step serves 1/PP of the resident sequences* (§5.1). Eight equal requests decode in T2 (one stage: all of them at once)
# and in P2 (two stages: half of them, so that both stages have work).

# %%
groups = run.save_table(
    engine_experiments.table_groups(config, pool),
    "groups",
    caption="Resident sequences and those that each decode step served.",
    timed=True,
)
record(engine_findings.group_findings(groups))
groups.groupby(["decode", "resident", "served"]).size().rename("steps").reset_index()

# %% [markdown]
# *Reloading weights takes the same time for any batch, swapping grows with it* (§5.2).

# %%
reload = engine_experiments.exhibit_reload(config, pool)
run.save_figure(
    engine_plots.exhibit_reload(reload),
    "reload",
    reload,
    caption="Time of one reload of the weights, and of all swaps of a batch, against the batch; lines join medians.",
    timed=True,
)
record(engine_findings.reload_findings(reload))

# %% [markdown]
# ## 4. Bytes
#
# What moved follows from the layouts alone: every byte of the cache leaves once and comes back once per rank that needs it, every
# load is one shard. Tests compare these counts with the formulas, exactly.

# %%
run.save_table(
    engine_experiments.table_moved(config, pool),
    "moved",
    caption="Collectives, messages and bytes by rank, for every pair of layouts.",
)
run.save_table(
    engine_experiments.table_reloads(config, pool),
    "reloads",
    caption="Bytes and rate of every reload in one run.",
    timed=True,
)

# %% [markdown]
# ## 5. Where the time goes
#
# All-reduces pass an emulated ring of 50 MB/s: so slow that for a prompt they take longer than the computation, as over PCIe in TP 8
# of Figure 1.

# %%
parts = engine_experiments.exhibit_breakdown(config, pool)
run.save_figure(
    engine_plots.exhibit_breakdown(parts),
    "breakdown",
    parts,
    caption="Time of both ranks in P2 and T2 by cause, over an emulated ring: what Figure 1 shows, measured.",
    timed=True,
)
times = engine_experiments.exhibit_phase_times(config, pool)
run.save_figure(
    engine_plots.exhibit_phase_times(times),
    "phase_times",
    times,
    caption="Makespan by phase of static layouts and of re-sharding, over an emulated ring: what Figure 12 shows, measured.",
    timed=True,
)
times.groupby("way", sort=False)[["makespan_s", "transitions", "decode_batch"]].agg(
    ["median", "min", "max"]
)

# %% [markdown]
# Do not read a speed-up of the paper into this: the model is small enough to stay in a core's cache, so decoding in P2 does not pay
# for reading weights twice, which is what T2 saves on a GPU. What carries over is that re-sharding prefills like P2 and decodes like
# T2, and what it pays for that: loads, and what no phase covers.
#
# ## 6. Three schedulers
#
# The same requests with host tiers of several sizes. The tier of the devices holds 60 % of the prompts.

# %%
schedulers = engine_experiments.exhibit_schedulers(config, pool)
run.save_figure(
    engine_plots.exhibit_schedulers(schedulers),
    "schedulers",
    schedulers,
    caption="Makespan, re-shardings and decode batch by scheduler and size of the host's tier; bands span all runs.",
    timed=True,
)
schedulers.groupby(["policy", "host_share"])[["makespan_s", "transitions", "decode_batch"]].median()

# %% [markdown]
# ## 7. Does prefill hide the copies?
#
# The link to the host is emulated, so slow that copies take 30 % of the computation. If both go on at the same time, the
# makespan stays near that without copies; if prefill waits for each copy, it grows by all of them. A GPU decides SS-155; here
# the mechanism is shown.

# %%
overlap = engine_experiments.exhibit_overlap(config, pool)
run.save_figure(
    engine_plots.exhibit_overlap(overlap),
    "overlap",
    overlap,
    caption="Makespan of prefill with copies over that without, overlapped and blocking; the link is so slow that copies take 30 % of the computation.",
    timed=True,
)
overlap.groupby(["layout", "copies"]).ratio.median().unstack()

# %% [markdown]
# ## 8. Does the simulator predict this machine?
#
# Rates are fitted to the spans of some runs; then the simulator of `31_seesaw_experiments`, with the very same scheduler objects,
# predicts workloads that the fit has not seen. `noise` is the standard error of the measured times themselves.

# %%
prediction = engine_experiments.exhibit_prediction(config, pool)
run.save_figure(
    engine_plots.exhibit_prediction(prediction),
    "prediction",
    prediction,
    caption="Simulated against measured makespans of runs that the calibration has not seen; band: 20 %.",
    timed=True,
)
run.save_table(
    prediction_study.accuracy(prediction),
    "accuracy",
    caption="Rank correlation and errors of those predictions.",
    timed=True,
)

# %%
pool.close()

# %% [markdown]
# ## Exercises
#
# 1. Serve with `policy="reshard-decode-first"` and draw the trace: where do the ranks run dry?
# 2. Set `host_link_Bps` in `ReshardingEngine` so that copies take as long as the computation. What does `overlapped` still hide?
# 3. With four cores, make `RankPool(4)` and compare P4 to T4 with P4 to T2P2.
#
# ## Summary
#
# | question | where the answer stands |
# |---|---|
# | does re-sharding change tokens? | `tokens`: no, for every pair of layouts |
# | do phases turn as stated? | `turns` (SS-153) |
# | whom does a decode step serve? | `groups` (SS-158) |
# | what grows with the batch? | `reload` (SS-154) |
# | do copies hide behind prefill? | `overlap`, on an emulated link; a GPU decides SS-155 |
# | can the simulator be believed? | `accuracy`, on this machine |
