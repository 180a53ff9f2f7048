# %% [markdown]
# # Nexus: whole systems under load
#
# *Nexus: Proactive Intra-GPU Disaggregation of Prefill and Decode in LLM Serving*, Shi, Cai, Du and Jia, arXiv 2507.06608v5.
#
# Figures 9, 10 and 12 of the paper, on a discrete-event simulator of its L20 GPUs. Every system below is a scheduler of the same
# serving core; the same policy objects also drive the real engine of `11_nexus_experiments`. After this notebook you can
#
# 1. say which system wins at which load;
# 2. judge an "up to 20x" by the whole grid that it was picked from;
# 3. say where the time of a request goes.
#
# `13_nexus_ablation` takes the winner apart. Cost on 2 cores: `smoke` under 1 minute, `cpu` about 2 minutes, 1 GiB. Hardware:
# any CPU; nothing here runs on a GPU.
#
# **Everything in this notebook is simulated.** Absolute times depend on assumed efficiencies of the L20
# (`data/serving/constants.yaml`). A claim about a GPU's speed stays `pending-gpu`; the simulated value stands beside it.

# %% tags=["parameters"]
profile: str = "smoke"  # how much to run: smoke, cpu or gpu
seed: int = 0  # seeds every generator

# %% tags=["setup"]
from paperlab import nexus
from paperlab.lab import start
from paperlab.nexus import experiments, plots
from paperlab.nexus.studies import findings, serving_study

run = start("12_nexus_serving", profile, seed)
config = run.config("nexus", nexus.Config)
config


# %% [markdown]
# ## 1. Figure 9: five systems, three workloads
#
# * **vLLM-like**: chunked prefill in mixed batches, first come, first served.
# * **SGLang-like**: a batch of prompts whenever one waits, decodes otherwise.
# * **FastServe-like**: skip-join multi-level feedback queue with swapping to the host.
# * **vLLM-P/D-like**: prompts on one GPU, decoding on a second one. It has twice the hardware of the others.
# * **Nexus**: both phases side by side on one GPU, with the published constants.
#
# Lines are means over seeds, bands their extremes. TTFT is the time to the first token, TBT the time between tokens; *normalized
# latency* is a request's whole time over its output tokens.

# %%
grid = experiments.figure_9(config)
run.save_table(grid, "figure_9_table", caption="Metrics of every run of Figure 9's grid.")
run.save_figure(
    plots.figure_9(grid),
    "figure_9",
    grid,
    caption="Three latencies, mean and 95th percentile, against the arrival rate (Figure 9), simulated on L20s; bands span the seeds.",
)

# %% [markdown]
# Read it from left to right. At low load all systems give the first token after one prefill; there is nothing to gain. Beyond the
# rate that a system can sustain its queue grows for as long as the run lasts, so that TTFT there measures the length of
# the run. The paper's axes reach hundreds of seconds: it compares systems deep in overload.

# %%
gains = run.save_table(
    experiments.table_gains(config, grid),
    "figure_9_gains",
    caption="How many times larger each system's latencies are than Nexus's, at each point of the grid.",
)
findings.record(run, findings.latency_findings(grid))

# %%
ttft = gains[(gains.metric == "ttft_mean_s") & (gains.over == "vllm-like")]
ttft.pivot_table(index="scenario", columns="rate_per_s", values="gain").style.format(
    "{:.2f}", na_rep=""
)

# %% [markdown]
# The table above is mean TTFT of the vLLM-like baseline over Nexus's. "Up to" is its largest cell.

# %% [markdown]
# ## 2. Figure 10: a larger model on two GPUs
#
# Qwen2.5-14B is tensor-parallel over two L20s, which talk over PCIe; the disaggregated system gives one GPU to each phase.

# %%
large = experiments.figure_10(config)
run.save_table(large, "figure_10_table", caption="Metrics of every run of Figure 10's grid.")
run.save_figure(
    plots.figure_10(large),
    "figure_10",
    large,
    caption="Latencies of Qwen2.5-14B on two L20s against the arrival rate (Figure 10), simulated; bands span the seeds.",
)
findings.record(run, findings.large_findings(large))

# %% [markdown]
# ## 3. How much can each system sustain?
#
# The paper calls throughput the highest rate that violates no latency limit, and does not say which limit. So here are three:
# mean normalized latency of 0.2, 0.5 and 1 second per output token.

# %%
import pandas as pd

both = pd.concat([grid, large], ignore_index=True)
capacity = run.save_table(
    experiments.table_throughput(config, both),
    "throughput",
    caption="Sustained rate by system and limit of mean normalized latency.",
)
run.save_table(
    serving_study.throughput_gains(capacity).assign(evidence="simulated"),
    "throughput_gains",
    caption="Nexus's sustained rate over each other system's.",
)
findings.record(run, findings.throughput_findings(grid, large))
capacity.pivot_table(
    index=["scenario", "system"], columns="threshold_s", values="rate_per_s", sort=False
).style.format("{:.2f}")

# %% [markdown]
# ## 4. Figure 12: where the time goes
#
# A request's latency splits into iterations it was part of, decisions of the scheduler before them, and waiting. On the virtual
# clock deciding takes no time; `11_nexus_experiments` measures it.

# %%
stages = experiments.figure_12(config, grid)
run.save_table(stages, "figure_12_table", caption="Seconds per output token by stage.")
run.save_figure(
    plots.figure_12(stages),
    "figure_12",
    stages,
    caption="Normalized latency by stage (Figure 12), at two rates of each workload; the scheduler's stage is nil on the virtual clock.",
)
findings.record(run, findings.stage_findings(stages))

# %% [markdown]
# ## Exercises
#
# 1. Find the point of Figure 9 with the largest TTFT gain. How long would the run have to be for twice that gain?
# 2. In `profiles.toml`, set `mixed_rates` to three points below 1 request/s and run again. Which claims are left?
#
# ## Summary
#
# | question | answer, simulated |
# |---|---|
# | does Nexus decode faster than mixed batches? | yes: mean TBT is 5 to 8 times shorter in overload, 1.1 to 1.3 times at the lowest rate; the paper measured 1.24 to 1.48 |
# | does it sustain more load? | 1.0 to 1.6 times the vLLM-like rate on LDC and arXiv, 1.4 to 2.0 on Mixed, by the limit chosen; often a lower bound, since the grid ends |
# | who pays? | the longest prompts: the 95th percentile of TTFT is worse than first come, first served on LDC and arXiv, about the same on Mixed |
#
# Which part of Nexus earns this, and what would turn it around: `13_nexus_ablation`.
