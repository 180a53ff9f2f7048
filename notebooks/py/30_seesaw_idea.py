# %% [markdown]
# # Seesaw: another sharding for each phase
#
# *Seesaw: High-throughput LLM Inference via Model Re-sharding*, MLSys 2025, arXiv 2503.06433v1.
#
# After this notebook you can
#
# 1. derive why prefill wants pipeline stages and decode wants tensor parallelism when GPUs talk over PCIe;
# 2. build the mechanism: shards, a host store that re-shards the cache, a scheduler that rarely switches;
# 3. predict how often it switches, and when all of this is worth nothing.
#
# Cost: about 15 s and 1 GiB in every profile, on any CPU. Workshop: 45 to 60 minutes with the exercises.

# %% tags=["parameters"]
profile: str = "smoke"  # how much to run: smoke, cpu or gpu
seed: int = 0  # seeds every generator
requests: int = 80  # of the live examples

# %% tags=["setup"]
import pandas as pd
from matplotlib import pyplot as plt

from paperlab import seesaw
from paperlab.lab import start
from paperlab.lab.panel import panel
from paperlab.seesaw import exercises, experiments, plots

# %%
run = start("30_seesaw_idea", profile, seed)
config = run.config("seesaw", seesaw.Config)

# %% [markdown]
# ## 1. Why: one model, many GPUs, two phases
#
# A 70B model does not fit on one GPU, so it is split. *Tensor parallelism* (TP) cuts every matrix: each GPU does 1/TP of a
# layer, and two all-reduces per layer put the pieces together. *Pipeline parallelism* (PP) gives each GPU a run of layers: only
# hidden states pass from stage to stage. The job is offline: all requests are there, and only the makespan counts.

# %% [markdown]
# ### Exercise 1: what an all-reduce costs
#
# A ring of `gpus` sends `2 · (gpus - 1)` parts of `size / gpus` one after the other over a link of `bus_Bps`.


# %% tags=["solution"]
def all_reduce_s(size_bytes, gpus, bus_Bps):
    """Return the seconds of one all-reduce, latency left out."""
    return 2 * (gpus - 1) / gpus * size_bytes / bus_Bps


# %% tags=["check"]
exercises.check_all_reduce(all_reduce_s)
token = 2 * 8192  # bytes of one hidden state of a 70B model
print(
    "right: 4,096 tokens over PCIe, 8 GPUs:",
    round(1e3 * all_reduce_s(4096 * token, 8, 12e9), 1),
    "ms, twice a layer",
)

# %% [markdown]
# The volume does not shrink with TP, and the time even grows. In prefill, thousands of tokens pass at once; in decode, a few dozen.
# There another cost rules: each GPU must read its weights from its own memory for every token.

# %% [markdown]
# ### Exercise 2: reading weights in decode
#
# With PP stages, the sequences are cut into PP groups, since a sequence can be at one stage only. How many bytes does each GPU
# read for one token of *all* sequences?


# %% tags=["solution"]
def weight_reads(model_bytes, tp, pp):
    """Return the bytes that one GPU reads."""
    return pp * model_bytes / (tp * pp)


# %% tags=["check"]
exercises.check_decode_passes(weight_reads)
print(
    "right: PP does not help at all;",
    weight_reads(138, 8, 1),
    "GB in TP 8,",
    weight_reads(138, 1, 8),
    "GB in PP 8",
)

# %%
shares = experiments.figure_1(config)
run.save_figure(
    plots.figure_1(shares),
    "figure_1",
    shares,
    caption="Time of a 13B model on 8 L4s by layout, relative to the slowest: communication, compute and weight transfer.",
)

# %% [markdown]
# So every single layout is a compromise. Splitting the GPUs between the phases is none either: four GPUs full of weights have little
# room for keys and values (`31_seesaw_experiments`, Figure 4).

# %% [markdown]
# ### What if?
#
# Seconds per request of both phases in each layout of 8 GPUs, and of the best of each phase (last bar). A faster link brings TP
# closer in prefill; longer outputs make decode matter more. A layout is named by its degrees: P8 has 8 pipeline stages, T4P2
# two stages of TP 4, D2T4 two replicas (DP) of TP 4; P8→T8 prefills in P8 and decodes in T8.

# %%
from paperlab.seesaw.what_if import draw_rates

panel(draw_rates, link_factor=[1.0, 0.3, 10.0], output=[300, 30], device=["A10", "L4"])
plt.show()

# %% [markdown]
# ## 2. Room for sequences
#
# Weights take the same memory in any split of the same GPUs, so TP and PP can change between phases. Replicas (DP) cannot: they
# copy the weights.

# %% [markdown]
# ### Exercise 3: the batch that fits
#
# `gpus_per_replica` GPUs of `memory` hold one copy of `weights`; the rest is for sequences of size `sequence`. `replicas` do
# that side by side. (Equation of Appendix A.3; whole sequences or not, as you like.)


# %% tags=["solution"]
def max_batch(memory, weights, gpus_per_replica, replicas, sequence):
    """Return the sequences that fit."""
    return replicas * max(0, (gpus_per_replica * memory - weights) // sequence)


# %% tags=["check"]
exercises.check_max_batch(max_batch)
print(
    "right: 34B on 8 GPUs:",
    max_batch(24, 68, 8, 1, 0.4),
    "sequences; as two replicas of 4:",
    max_batch(24, 68, 4, 2, 0.4),
)

# %% [markdown]
# ## 3. Re-sharding
#
# *Weights*: every GPU reloads its new shard from one copy in host memory, over its own link; 1.4 s for 70B on eight A10s. *Cache*:
# after prefill each GPU writes the keys and values of its layers to a store in host memory; before decode each reads those of its
# heads. The store is the re-sharding operator.

# %%
store = experiments.figure_7(config)
run.save_figure(
    plots.figure_7(store),
    "figure_7",
    store,
    caption="One prompt's cache in the store, layers by heads: written by layers, read by heads.",
)

# %% [markdown]
# ### Exercise 4: why heads come first
#
# A block of the store holds `kv_heads` x `block_tokens` vectors, heads outermost (HND). Where does a rank's part start, and how
# long is it? With tokens outermost it would be one fragment per token.


# %% tags=["solution"]
def slab(kv_heads, block_tokens, tp, rank):
    """Return offset and length of the rank's part, in vectors."""
    length = kv_heads // tp * block_tokens
    return rank * length, length


# %% tags=["check"]
exercises.check_slice(slab)
print("right: rank 1 of 4 reads", slab(8, 16, 4, 1)[1], "vectors in one piece")

# %% [markdown]
# ## 4. Switch rarely
#
# A switch costs more than a second, a decode step about a tenth. Prefilling whenever a sequence has finished would switch all
# the time; waiting until the whole batch has finished leaves GPUs idle. Seesaw buffers prefilled sequences on the host: it
# turns to decode when the host is full, and back when it is empty. Unfinished sequences stay on the GPUs meanwhile.

# %% [markdown]
# ### Exercise 5: how often?
#
# `prompts` lists the tokens of each prompt, in order. A cycle prefills until the next prompt does not fit into the store, which
# holds `host` tokens, and then decodes until the store is empty. The first phase is prefill, the last decode. How often do
# phases change?


# %% tags=["solution"]
def transitions(prompts, host):
    """Return the number of re-shardings."""
    cycles, used = 1, 0
    for tokens in prompts:
        if used + tokens > host:
            cycles, used = cycles + 1, 0
        used += tokens
    return 2 * cycles - 1


# %% tags=["check"]
exercises.check_transitions(transitions)
print("right: 500 prompts of 2,600 tokens through 8 GiB:", transitions([2600] * 500, 26_214))

# %% [markdown]
# Now the real schedulers, on a virtual clock: 34B on four A10s, P4 to T4. They are policy objects of the serving core; the same
# object drives real processes.

# %%
from paperlab.seesaw.studies import mechanism

logs = mechanism.policies(requests, seed)
tiers = pd.concat([mechanism.occupancy(log).assign(policy=name) for name, log in logs.items()])
run.save_figure(
    plots.figure_2(tiers),
    "tiers",
    tiers,
    evidence="simulated",
    caption="Sequences on host and GPUs over time under three schedulers, simulated; shaded: prefill.",
)
run.save_table(
    mechanism.policy_table(logs),
    "policies",
    evidence="simulated",
    caption="Makespan, transitions and batches of the three schedulers.",
)

# %% [markdown]
# ## 5. Hide the copies
#
# Keys and values leave layer by layer behind the computation of the same layers; a prefetcher brings them back while the GPUs
# compute.

# %%
gantt = experiments.figure_8(config)
run.save_figure(
    plots.figure_8(gantt),
    "figure_8",
    gantt,
    caption="What stages, host links and prefetcher do around a re-sharding, simulated.",
)

# %% [markdown]
# ## 6. All together
#
# One static layout after the other against P8 for prefill and T4P2 for decode: 70B on eight A10s.

# %%
from paperlab.seesaw import workload
from paperlab.seesaw.simulation import run as simulated

work = workload("arxiv", requests, seed)
rows = []
for layout, chunk in (("T8", 512), ("T4P2", 256), ("T2P4", 512), ("P8", 512), ("P8→T4P2", 0)):
    log = simulated("llama2-70b", "a10", layout, chunk_tokens=chunk).simulate(work)
    rows.append((layout, chunk, log.end_s, requests / log.end_s, len(log.switches)))
columns = ["layout", "chunk_tokens", "makespan_s", "requests_per_s", "transitions"]
run.save_table(
    pd.DataFrame(rows, columns=columns),
    "layouts",
    evidence="simulated",
    caption="The same requests in four static layouts and with re-sharding.",
)

# %% [markdown]
# ## Checked against the paper, and where next
#
# `31_seesaw_experiments` regenerates every table and figure. `32_seesaw_engine` does all of this with real processes, which
# generate the same tokens as Hugging Face. `paperlab.seesaw.plan` answers for your own node.
#
# ## Summary
#
# | part | idea | its weak spot |
# |---|---|---|
# | two layouts | PP for prefill, TP for decode | nothing to gain where GPUs are joined by fast links |
# | reload | every GPU its own shard from the host, in a second or two | ruinous if it happens often |
# | store | the cache passes host memory anyway; heads outermost | needs host memory, though tens of GiB do |
# | scheduler | switch when the store is full or empty | latency: nobody is answered while prompts pile up |
