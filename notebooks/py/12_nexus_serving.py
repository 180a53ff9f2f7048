# %% [markdown]
# # Nexus: whole systems under load
#
# *Nexus: Proactive Intra-GPU Disaggregation of Prefill and Decode in LLM Serving*, Shi, Cai, Du and Jia, arXiv 2507.06608v5.
#
# Figures 9 to 13 of the paper, on a discrete-event simulator of its L20 GPUs. Every system below is a scheduler of the same
# serving core; the same policy objects also drive the real engine of `11_nexus_experiments`. After this notebook you can
#
# 1. say which system wins at which load, and what part of a gain is the order of prompts, the partition, or overload;
# 2. judge an "up to 20x" by the whole grid that it was picked from;
# 3. tell what would have to be measured on a GPU before any of this can be believed.
#
# Cost on 2 cores: `smoke` about 1 minute, `cpu` about 7 minutes, 1 GiB. Hardware: any CPU; nothing here runs on a GPU.
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


# %%
def record(found):
    """Record findings and print what each leads to."""
    for item in found:
        verdict = run.record_claim(
            item.claim_id, item.value, evidence="simulated", artifact=item.artifact, note=item.note
        )
        value = item.value if isinstance(item.value, bool) else f"{item.value:.3g}"
        print(f"{item.claim_id:6} {value!s:8} {verdict:12} {item.note}")


# %% [markdown]
# ## 1. Figure 9: five systems, three workloads
#
# * **vLLM-like**: chunked prefill in mixed batches, first come, first served.
# * **SGLang-like**: a batch of prompts whenever one waits, decodes otherwise.
# * **FastServe-like**: skip-join multi-level feedback queue with swapping to the host.
# * **vLLM-P/D-like**: prompts on one GPU, decoding on a second one. It has twice the hardware of the others.
# * **Nexus**: both phases side by side on one GPU, with the published constants.
#
# Lines are means over seeds, bands their extremes.

# %%
grid = experiments.figure_9(config)
run.save_table(grid, "figure_9_table", caption="Metrics of every run of Figure 9's grid.")
run.save_figure(
    plots.figure_9(grid),
    "figure_9",
    grid,
    caption="Latencies against the arrival rate (Figure 9), simulated on an L20.",
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
record(findings.latency_findings(grid))

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
    caption="Latencies of Qwen2.5-14B on two GPUs (Figure 10), simulated.",
)
record(findings.large_findings(large))

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
record(findings.throughput_findings(grid, large))
capacity.pivot_table(
    index=["scenario", "system"], columns="threshold_s", values="rate_per_s", sort=False
).style.format("{:.2f}")

# %% [markdown]
# ## 4. Figure 11: offline batches
#
# All jobs are there at time 0, and only the makespan counts.

# %%
offline = experiments.figure_11(config)
run.save_table(offline, "figure_11_table", caption="Makespan of offline batches by system.")
run.save_figure(
    plots.figure_11(offline),
    "figure_11",
    offline,
    caption="Makespan of offline batches (Figure 11), simulated; hatched bars ran into the time limit.",
)
record(findings.offline_findings(offline))

# %% [markdown]
# ## 5. Figure 12: where the time goes
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
    caption="Normalized latency by stage (Figure 12), at two rates of each workload.",
)
record(findings.stage_findings(stages))

# %% [markdown]
# ## 6. Figure 13: which part does what?
#
# *PF-DF* takes prompts first come, first served; *Wo-SC* keeps a static split of 50/50.

# %%
ablation = experiments.figure_13(config)
run.save_table(ablation, "figure_13_table", caption="Metrics of every run of the ablation.")
run.save_figure(
    plots.figure_13(ablation),
    "figure_13",
    ablation,
    caption="Ablation on Mixed with Llama-3.1-8B (Figure 13), simulated.",
)
record(findings.ablation_findings(ablation))

# %% [markdown]
# Against a static 50/50, dynamic control lowers mean TTFT by some 70 % and raises mean TBT by half: the opposite of what the paper
# reports under first come, first served (N-47). It does not state its static split. The next section has three; with 70/30 the
# changes shrink, but their signs stay.

# %% [markdown]
# ## 7. What the paper does not print
#
# The order of prompts needs no partition: `spf-chunked` is the vLLM-like baseline with Nexus's order. Static splits need no
# forecast. And a low rate needs nothing at all.

# %%
controls = experiments.exhibit_controls(config)
run.save_table(
    controls, "controls_table", caption="Metrics of the controls, from low load to overload."
)
run.save_figure(
    plots.exhibit_controls(controls),
    "controls",
    controls,
    caption="Mean TTFT and TBT of the controls at each rate.",
)

# %% [markdown]
# ## 8. What would decide it: two numbers nobody could read
#
# *Mixed batches*: Figure 4 of the paper reports 0.251 s for a mixed iteration, where adding up its operators gives about 0.15 s.
# Whatever the reason, it is a penalty of the baseline's mixed batches, and it decides the comparison. *Side by side*: lanes on
# one GPU share caches and queues as well as bandwidth; the paper's own Figure 6 shows decode beside prefill at nine times its
# undisturbed latency. That is a penalty of Nexus. Both are 1 above. Here each is varied alone.

# %%
penalties = experiments.exhibit_penalties(config)
run.save_table(
    penalties, "penalties_table", caption="LDC's grid under penalties of mixing and of co-running."
)
run.save_figure(
    plots.exhibit_penalties(penalties),
    "penalties",
    penalties,
    caption="Mean normalized latency against the rate under each penalty.",
)

# %% [markdown]
# ## 9. On a GPU
#
# `python -m paperlab.nexus.gpu_evidence --out results/DEVICE/nexus_gpu` measures, on a CUDA device, disjoint partitions, decoding against
# its bandwidth bound, Figures 4 to 6, and these systems at rates scaled to the device. Where such a run is stored, it decides
# the claims. None is stored yet.

# %%
from paperlab.nexus import recorded

found = recorded.claim_values()
if found.empty:
    print("No GPU run is stored: claims about speed stay pending.")
else:
    run.save_table(found, "gpu_claims", caption="What stored GPU runs say to the paper's claims.")
    for row in found.itertuples():
        verdict = run.record_claim(
            row.claim_id, row.value, evidence=row.evidence, artifact="gpu_claims", note=row.note
        )
        print(row.claim_id, row.value, row.unit, verdict)

# %% [markdown]
# ## Exercises
#
# 1. At which rate does "vLLM-like + SPF" stop being as good as Nexus in mean TTFT? What does that say about the partition?
# 2. Find the point of Figure 9 with the largest TTFT gain. How long would the run have to be for twice that gain?
# 3. In `profiles.toml`, set `mixed_rates` to three points below 1 request/s and run again. Which claims are left?
#
# ## Summary
#
# | question | answer, simulated |
# |---|---|
# | does Nexus decode faster than mixed batches? | yes, 4 to 8 times in overload, about equal at low load; the paper measured 1.24 to 1.48 |
# | does it sustain more load? | 1.0 to 1.6 times the vLLM-like rate on LDC and arXiv, 1.4 to 2.0 on Mixed, by the limit chosen |
# | where does the TTFT gain come from? | from the order of prompts: the vLLM-like baseline with it has the same mean TTFT, without any partition |
# | who pays? | the longest prompts: the 95th percentile of TTFT is worse than first come, first served |
# | what would turn it around? | lanes that slow each other by half: then mixed batches win on LDC; a penalty of mixing works the other way |
