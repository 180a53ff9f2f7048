# %% [markdown]
# # Across systems: what one paper does to another
#
# Six papers stand side by side in this repository, as code that runs. So one can ask what none of them could: does one system still
# pay when another one is there? Three answers, on Tempo (arXiv 2210.10246), Mist (2503.19050), Nexus (2507.06608), Seesaw (2503.06433)
# and AQuant (2208.11945). After this notebook you can
#
# 1. say what an activation byte is worth to a planner that can also recompute, offload and shard;
# 2. choose between splitting one GPU's time and re-sharding many GPUs, by load and by model size;
# 3. predict what fewer bits of weights and of cache buy a server, and which of the two matters.
#
# Cost on 2 free cores: `smoke` under a minute, `cpu` under 8 minutes, 2 GiB. Hardware: any CPU. Plans are **predicted** by Mist's cost
# model, serving is **simulated**; only kept bytes and AQuant's accuracy are measured here.
#
# The claims are ours (`data/claims/across.csv`): predictions with a direction and a tolerance, written down before the sweeps that judge
# them. Several turn out wrong, and those are the ones to learn from.

# %% tags=["parameters"]
profile: str = "smoke"  # how much to run: smoke, cpu or gpu
seed: int = 0  # seeds every generator

# %% tags=["setup"]
from functools import partial

import pandas as pd
from IPython.display import display
from matplotlib import pyplot as plt

from paperlab.across import Config, experiments, findings, plots, training, what_if
from paperlab.lab import start
from paperlab.lab.panel import panel

run = start("91_across_systems", profile, seed)
config = run.config("across", Config)


def record(found, evidence, artifact):
    """Record findings and return them with their verdicts."""
    rows = [
        (
            item.claim_id,
            item.value,
            run.record_claim(
                item.claim_id, item.value, evidence=evidence, artifact=artifact, note=item.note
            ),
            item.note,
        )
        for item in found
    ]
    return pd.DataFrame(rows, columns=["claim", "found", "verdict", "note"]).set_index("claim")


config

# %% [markdown]
# ## A. Tempo in Mist: what is a byte worth?
#
# *Why.* Tempo keeps fewer bytes from forward to backward, so a larger batch fits. Its paper compares with plain training and with full
# checkpointing. Mist's tuner has more to choose from: it recomputes some layers and not others, moves parts of activations and optimizer
# states to the host, shards, pipelines. Memory is then a good with several sellers. What does Tempo's offer add?
#
# *How.* Mist traces a block's own code with symbolic batch and tensor parallelism, so a block it has never seen needs no new formula. We
# hand it a block with Tempo's GELU and LayerNorm (Tempo's attention keeps what the framework keeps when there is no attention dropout,
# and Mist's models have none). The trace must find the bytes that Tempo's own count finds on the real block.

# %%
check = run.save_table(
    experiments.table_bytes_check(config),
    "table_bytes_check",
    caption="Bytes a block keeps: Mist's symbolic trace beside a count on the real block (small, fp32, 3 sequences).",
)
display(check)
record(findings.bytes_findings(check), "measured-cpu", "table_bytes_check")

# %%
layers = experiments.exhibit_layer_bytes(config)
run.save_figure(
    plots.exhibit_layer_bytes(layers),
    "exhibit_layer_bytes",
    layers,
    caption="KiB that a layer keeps per token, plain and with Tempo's operators, by model family and kind of attention.",
)
plt.show()
record(findings.layer_findings(layers), "analytic", "exhibit_layer_bytes")

# %% [markdown]
# *Flash* attention keeps no attention map; *math* attention, written out in matrix products, does. Beside flash attention a quarter of a GPT layer's bytes go: the GELU's input but for a byte per element, and both LayerNorms' inputs. A Llama
# layer has RMSNorm and a gated SiLU, for which Tempo has no operator: nothing goes.
#
# ### What the tuner makes of it
#
# Both blocks, the same search space, the same clusters. Tempo's operators are priced by the framework's measured latencies times their traced
# traffic over the framework's: the mask that GELU writes and reads makes it about a quarter slower in forward. A gain below zero means that
# this cost exceeds what the bytes bring; a user would then keep the plain block.

# %%
plans = experiments.exhibit_plans(config)
run.save_figure(
    plots.exhibit_plans(plans),
    "exhibit_plans",
    plans,
    caption="Throughput gained by Tempo's operators, each side with its best plan.",
)
plt.show()
display(record(findings.plan_findings(plans), "analytic", "exhibit_plans"))
plans[plans.planner == "Mist"][
    [
        "cluster",
        "size",
        "seq_len",
        "attention",
        "operators",
        "plan",
        "checkpointed",
        "activation_offload",
        "peak_GiB",
        "gain",
    ]
]

# %% [markdown]
# ### Memory per GPU
#
# The same model as each GPU has less memory. Where the plain model has to recompute and offload, bytes are dear.

# %%
memory = experiments.exhibit_memory(config)
run.save_figure(
    plots.exhibit_memory(memory),
    "exhibit_memory",
    memory,
    caption="Throughput of GPT-7B on 8 L4 with other memory sizes, and what Tempo gains.",
)
plt.show()

# %% [markdown]
# The curve is not smooth: plans are made of whole layers, micro-batches and a grid of offload ratios, and Tempo gains where its bytes tip the plan
# over to the next better one. That is the general shape of the answer: a byte is worth what the next plan is worth, if it suffices to reach it.
#
# ### How slow may it be?
#
# Traffic is not everything. The next figure adds a share of the whole layer's compute to every layer with Tempo and tunes again.

# %%
overhead = experiments.exhibit_overhead(config)
run.save_figure(
    plots.exhibit_overhead(overhead),
    "exhibit_overhead",
    overhead,
    caption="Gain of Tempo under Mist over extra compute, by memory per GPU.",
)
edges = run.save_table(
    training.break_even(overhead),
    "table_break_even",
    caption="Extra compute at which Tempo's gain is gone; negative where there was none.",
    evidence="analytic",
)
plt.show()
display(edges[edges.planner == "Mist"])
record(findings.memory_findings(overhead), "analytic", "exhibit_overhead")

# %% [markdown]
# ### What if?
#
# Move the memory per GPU and see plan and gain change. The labels count layers that are computed again in backward.

# %%
panel(what_if.draw_memory, capacity_GiB=list(config.capacities_GiB)[:6], attention=["flash"])
plt.show()

# %% [markdown]
# ## B. Nexus and Seesaw: one trace, equal GPUs
#
# *Why.* Prefill computes, decode reads memory. Nexus lets both run side by side on the same GPUs and divides the multiprocessors. Seesaw
# lets them take turns, each in its own sharding, and pays for moving weights and caches. One paper serves online on one or two
# GPUs, the other offline on eight. Nobody compared them.
#
# *How.* Both schedulers run on this repository's one serving core. The GPUs are the same, and so are all prices: Seesaw's calibrated node,
# with Nexus's saturation curves on top. Nexus runs on replicas of whole tensor-parallel groups, and so does a *vLLM-like* chunked prefill; the
# size of the replicas is chosen on a trace of its own. Seesaw's pair and the best *static layout* come from Seesaw's own search. A
# layout such as `D2T4` names its parts: D data, T tensor, P pipeline parallelism; `P4→T2P2` is that of prefill and of decode.
#
# First: do the two price lists agree where they must, on unpartitioned iterations?

# %%
prices = run.save_table(
    experiments.table_prices(config),
    "table_prices",
    caption="Seconds of one iteration: Seesaw's prices, the serving core with all terms, and by its constants alone.",
)
display(
    prices.groupby(["device", "model"])[["difference", "constants_difference"]].agg(["min", "max"])
)
record(findings.price_findings(prices), "analytic", "table_prices")

# %% [markdown]
# They agree once the core is given the terms that its constants cannot say: elementwise kernels, attention's own rate, the queries' traffic. By the
# constants alone prompts would be several percent too cheap, up to 13 on an L4.
#
# One thing no paper states: Nexus's two lanes share a link too. Here an all-reduce that meets the other lane's takes as long again; the
# table at the end of this part shows what that assumption costs.
#
# ### All requests at once

# %%
offline = experiments.exhibit_offline(config)
run.save_figure(
    plots.exhibit_offline(offline),
    "exhibit_offline",
    offline,
    caption="Throughput of four systems on one trace, all requests at once, equal GPUs; lines: range over seeds.",
)
plt.show()

# %% [markdown]
# ### From low load to overload

# %%
loads = experiments.exhibit_loads(config)
run.save_figure(
    plots.exhibit_loads(loads),
    "exhibit_loads",
    loads,
    caption="Latencies of four systems over the arrival rate, equal GPUs; bands: range over seeds, a trace each.",
)
plt.show()
record(findings.contest_findings(loads, offline), "simulated", "exhibit_loads")

# %% [markdown]
# Read the third column with the first. Seesaw decodes in the fastest layout there is, so most tokens come quickly; but each arrival makes it load
# the other sharding's weights twice, and everybody waits. Its percentiles are fine up to the one that a re-sharding hits.
#
# ### What if?
#
# One load, all four; the title names the winner per model.

# %%
few = sorted({min(config.loads), sorted(config.loads)[len(config.loads) // 2], max(config.loads)})
panel(partial(what_if.draw_load, table=loads), load=few, metric=list(plots.METRICS))
plt.show()

# %% [markdown]
# ### Where each wins offline
#
# Equal requests with prompts of 2,000 tokens. Long outputs move the work from prefill, where Seesaw's pipeline saves all-reduces, to decode,
# where everybody reads the same weights.

# %%
where = experiments.exhibit_map(config)
run.save_figure(
    plots.exhibit_map(where),
    "exhibit_map",
    where,
    caption="Throughput over Nexus's by output length, all requests at once; Seesaw's layouts stand where they change.",
)
plt.show()
link = run.save_table(
    experiments.table_link(config),
    "table_link",
    caption="Nexus offline: all-reduces of the two lanes that never meet (0), or take as long again when they do (1).",
)
link.pivot_table("requests_per_s", ["model", "layout"], "link_contention", sort=False)

# %% [markdown]
# ## C. Bits: weights or cache?
#
# *Why.* AQuant brings activations of vision networks down to a few bits. Take the widths, not the accuracy, and ask a server: bits of weights
# shrink what every decoding step reads and make room; bits of keys and values (activations, after all) shrink what attention
# reads and let more sequences in. Which matters more on one small GPU?
#
# *How.* One L4, Llama-3.1-8B, chunked prefill. Arithmetic stays at the fp16 rate, as if weights were unpacked on the fly.

# %%
capacity = experiments.exhibit_capacity(config)
run.save_figure(
    plots.exhibit_capacity(capacity),
    "exhibit_capacity",
    capacity,
    caption="Tokens of keys and values that fit beside the weights, by bits of either.",
)
bits = experiments.exhibit_bits(config)
run.save_figure(
    plots.exhibit_bits(bits),
    "exhibit_bits",
    bits,
    caption="Throughput over that of 16-bit weights and cache, all requests at once.",
)
plt.show()

# %%
slow = experiments.exhibit_bits_latency(config)
run.save_figure(
    plots.exhibit_bits_latency(slow),
    "exhibit_bits_latency",
    slow,
    caption="Times to and between tokens at a low rate, by bits of weights and cache.",
)
plt.show()
display(
    bits.groupby(["arithmetic", "w_bits", "kv_bits"])[
        ["requests_per_s", "ttft_mean_s", "decode_batch"]
    ]
    .mean()
    .loc["int8"]
)
display(record(findings.capacity_findings(capacity), "analytic", "exhibit_capacity"))
record(findings.bits_findings(bits, slow), "simulated", "exhibit_bits")

# %% [markdown]
# ### What if?

# %%
panel(what_if.draw_bits, w_bits=[16, 8, 4], kv_bits=[16, 4])
plt.show()

# %% [markdown]
# ### What bits cost in accuracy, apart
#
# The serving numbers above say nothing about accuracy. What this repository can measure is AQuant on a small convolutional net and procedural
# pictures. It does not carry over to a language model; it shows only where a method made for few bits begins to lose.

# %%
accuracy = run.save_table(
    experiments.table_accuracy(config),
    "table_accuracy",
    caption="AQuant's top-1 on its own small vision task; not comparable with any language model.",
)
accuracy

# %% [markdown]
# ## Summary
#
# * A planner that can recompute, offload and shard has already bought most of the memory that Tempo sells. With the cards' own memory the gain
#   is between a small loss and a few percent; with a third of it, a tenth. About 3 % of extra compute undo the median gain.
# * Seesaw and Nexus answer different questions. With all requests there and a model that needs many GPUs on a slow link, re-sharding wins, the
#   more the shorter the outputs; with requests that trickle in, whoever has to stop decoding loses.
# * On a small GPU bits of weights come first: they are read at every step, and they leave the room that the cache needs.
