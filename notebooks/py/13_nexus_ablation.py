# %% [markdown]
# # Nexus: which part does what
#
# *Nexus: Proactive Intra-GPU Disaggregation of Prefill and Decode in LLM Serving*, Shi, Cai, Du and Jia, arXiv 2507.06608v5.
#
# Figures 11 and 13 of the paper, and what it does not print: the order of prompts without the partition, other static splits,
# feedback in place of a forecast, low load, and two penalties that decide the comparison. After this notebook you can
#
# 1. say what part of a gain is the order of prompts, the partition, or overload;
# 2. name the two numbers that would turn the comparison around;
# 3. tell what would have to be measured on a GPU before any of this can be believed.
#
# Cost on 2 cores: `smoke` under 1 minute, `cpu` about 3 minutes, 1 GiB. Hardware: any CPU; nothing here runs on a GPU.
#
# **Everything in this notebook is simulated** on an L20 with assumed efficiencies (`data/serving/constants.yaml`), as in
# `12_nexus_serving`.

# %% tags=["parameters"]
profile: str = "smoke"  # how much to run: smoke, cpu or gpu
seed: int = 0  # seeds every generator

# %% tags=["setup"]
from paperlab import nexus
from paperlab.lab import start
from paperlab.nexus import experiments, plots
from paperlab.nexus.studies import findings

run = start("13_nexus_ablation", profile, seed)
config = run.config("nexus", nexus.Config)
config

# %% [markdown]
# ## 1. Figure 11: offline batches
#
# All jobs are there at time 0, and only the makespan counts.

# %%
offline = experiments.figure_11(config)
run.save_table(offline, "figure_11_table", caption="Makespan of offline batches by system.")
run.save_figure(
    plots.figure_11(offline),
    "figure_11",
    offline,
    caption="Makespan of offline batches (Figure 11), simulated; a bar that ran into the time limit would be hatched.",
)
findings.record(run, findings.offline_findings(offline))

# %% [markdown]
# ## 2. Figure 13: which part does what?
#
# Two switches: the order of prompts (the paper's *PF-DF* is first come, first served; Nexus takes the shortest first) and the split
# (*Wo-SC* keeps a static 50/50, *W-SC* searches it). TBT depends on the split alone: lines of one order lie on those of the other.

# %%
ablation = experiments.figure_13(config)
run.save_table(ablation, "figure_13_table", caption="Metrics of every run of the ablation.")
run.save_figure(
    plots.figure_13(ablation),
    "figure_13",
    ablation,
    caption="Mean TTFT and TBT of the four arms on Mixed with Llama-3.1-8B (Figure 13), simulated; bands span the seeds.",
)
findings.record(run, findings.ablation_findings(ablation))

# %% [markdown]
# Against a static 50/50, dynamic control lowers mean TTFT by some 75 % and raises mean TBT by half: the opposite of what the paper
# reports under first come, first served (N-47). It does not state its static split. The next section has three; with 70/30 the
# changes shrink, but their signs stay.

# %% [markdown]
# ## 3. What the paper does not print
#
# The order of prompts needs no partition: `spf-chunked` is the vLLM-like baseline with Nexus's order, shortest prompt first
# (SPF). Static splits (prefill/decode) need no forecast; a *reactive* split follows measured latencies. And a low rate needs
# nothing at all.

# %%
controls = experiments.exhibit_controls(config)
run.save_table(
    controls, "controls_table", caption="Metrics of the controls, from low load to overload."
)
run.save_figure(
    plots.exhibit_controls(controls),
    "controls",
    controls,
    caption="Mean TTFT and TBT of each control at four rates, on logarithmic scales, simulated.",
)

# %% [markdown]
# ## 4. What would decide it: two numbers nobody could read
#
# *Mixed batches*: Figure 4 of the paper reports 0.251 s for a mixed iteration, where adding up its operators gives 0.17 s here.
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
    caption="Mean normalized latency on LDC against the rate; above, mixed batches take longer by a factor; below, lanes side by side do.",
)

# %% [markdown]
# ## 5. On a GPU
#
# `python -m paperlab.nexus.gpu_evidence --out results/DEVICE/nexus_gpu` measures, on a CUDA device, disjoint partitions,
# decoding against its bandwidth bound, Figures 4 to 6, and these systems at rates scaled to the device. Where such a run is
# stored, it decides the claims. None is stored yet.

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
# 1. At which rate does "vLLM-like with SPF" stop being as good as Nexus in mean TTFT? What does that say about the partition?
# 2. Which static split comes closest to Nexus in both metrics at 2 requests/s? What would a forecast have to know to beat it?
# 3. Add a factor of 1.25 to `penalties` in `profiles.toml`. At which side-by-side penalty do mixed batches overtake Nexus?
#
# ## Summary
#
# | question | answer, simulated |
# |---|---|
# | where does the TTFT gain come from? | from the order of prompts: the vLLM-like baseline with it has about the same mean TTFT, without any partition |
# | what does dynamic control earn? | mean TTFT against static 50/50, at the price of mean TBT; less against 70/30 |
# | what would turn it around? | lanes that slow each other by half: then mixed batches win on LDC; a penalty of mixing works the other way |
