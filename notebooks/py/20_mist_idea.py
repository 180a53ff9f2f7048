# %% [markdown]
# # Mist: spend freed memory on better parallelism
#
# *Mist: Efficient Distributed Training of Large Language Models via Memory-Parallelism Co-Optimization*, EuroSys 2025,
# arXiv 2503.19050. The paper's body could not be read; its abstract and its released artifact could.
#
# After this notebook you can
#
# 1. say which choices a training plan makes, and what each costs in time and in memory;
# 2. explain the three ideas: an overlapped schedule, formulas instead of simulations, and stages summarized by (t, d);
# 3. judge a speedup by what its baseline was allowed to do.
#
# Cost: under a minute and 1.5 GiB in every profile, on any CPU. Workshop: 60 minutes with the exercises.

# %% tags=["parameters"]
profile: str = "smoke"  # how much to run: smoke, cpu or gpu
seed: int = 0  # seeds every generator
global_batch: int = 32  # sequences per iteration of the live example

# %% tags=["setup"]
from matplotlib import pyplot as plt

from paperlab import mist
from paperlab.lab import start
from paperlab.lab.panel import panel
from paperlab.mist import exercises, experiments, plots

# %%
run = start("20_mist_idea", profile, seed)
config = run.config("mist", mist.Config)

# %% [markdown]
# ## 1. Why: memory is a currency
#
# A model too large for one GPU is cut: over data-parallel replicas (DP), inside layers (TP), into pipeline stages (PP). What
# still does not fit is checkpointed (recomputed in the backward pass), sharded (ZeRO) or moved to host memory (offload). Each
# costs time. Mist chooses all of it together: memory freed by one means may pay for a better cut.

# %%
variables = run.save_table(
    experiments.table_variables(config),
    "variables",
    caption="What a plan decides, and the values tried.",
)
variables[["variable", "chosen_for", "values"]]

# %% [markdown]
# ### Exercise 1: what must a rank store?
#
# Mixed precision keeps 2 bytes per parameter of weights, 2 of gradients and 12 of optimizer states (fp32 master weights and
# Adam's two moments). ZeRO-1 splits optimizer states over the `dp` ranks, ZeRO-2 gradients too, ZeRO-3 weights too.


# %% tags=["solution"]
def state_bytes(parameters, dp, zero):
    """Return the bytes of weights, gradients and optimizer states that one rank stores."""
    weights, grads, optimizer = 2 * parameters, 2 * parameters, 12 * parameters
    if zero >= 1:
        optimizer /= dp
    if zero >= 2:
        grads /= dp
    if zero >= 3:
        weights /= dp
    return weights + grads + optimizer


# %% tags=["check"]
exercises.check_state_bytes(state_bytes)
print(
    f"right: GPT-1.3B on one GPU needs {state_bytes(1.3e9, 1, 0) / 2**30:.1f} GiB before any activation"
)

# %% [markdown]
# ## 2. Formulas instead of simulations
#
# One block is traced once, with a symbolic batch b and tensor-parallel size t. Torch itself tells which tensors live when;
# sizes come out as polynomials in b and 1/t. From then on, a million configurations are one array expression.

# %%
from paperlab.mist.symbolic.trace import concrete_trace, symbolic_trace

spec = mist.gpt("1.3b", seq_len=2048, attention="math")
block = symbolic_trace(spec)["block"]
print("kept for backward, full:        ", block.saved, "bytes")
print("kept for backward, checkpointed:", block.input, "bytes")
fresh = concrete_trace(spec, batch=4, tp=2)["block"]
print(
    "b = 4, t = 2 substituted:",
    int(block.saved.at(4, 2)),
    " traced anew:",
    int(fresh.saved.at(1, 1)),
)

# %% [markdown]
# ## 3. The overlapped schedule
#
# While a block computes, the next one is fetched and the one before is put away: all-gathers (G), copies to the device (H) and
# to the host (D) run beside compute (C). They slow each other down: an operation beside others takes φ times as long, with a
# factor φ ≥ 1 for each member of each set, 28 in all.

# %%
factors = mist.cluster("l4", 1, 2).interference
together_ms = 1e3 * factors.time_s(10e-3, 0.0, 8e-3, 0.0)
print(
    f"10 ms of compute beside an 8 ms copy to the device, L4: {together_ms:.1f} ms together, 18 ms one after the other"
)

# %% [markdown]
# ### Exercise 2: two operations at once
#
# Both start together; beside each other x takes `slow_x` times as long, y `slow_y` times. When one is done, the other goes on
# alone. How long until both are done?


# %% tags=["solution"]
def together(x, y, slow_x, slow_y):
    """Return the seconds until both are done; x and y are the seconds each takes alone."""
    if not (x and y):
        return x + y
    shared = min(x * slow_x, y * slow_y)
    return shared + (x - shared / slow_x) + (y - shared / slow_y)


# %% tags=["check"]
exercises.check_together(together)
print("right:", together(2.0, 1.0, 1.1, 1.5), "s for 2 s and 1 s slowed by 1.1 and 1.5")

# %% [markdown]
# ## 4. Pipelines: not every micro-batch costs the same
#
# In 1F1B a stage alternates forward and backward passes, so that stage i of S holds at most S - i micro-batches. The first
# micro-batch also carries the optimizer step, which Mist moves from the end of an iteration to just before each layer's next
# forward; the last one carries the gradient reduction. So a stage has two numbers: **t** for a stable micro-batch, **d** for
# what the first and last cost on top.

# %% [markdown]
# ### Exercise 3: the order of passes
#
# List the passes of stage `stage` of `stages`, 0 the first: as many forwards as later stages there are (at most `accumulation`, the
# number of micro-batches), then a forward and a backward in turn, then the backwards that are left.


# %% tags=["solution"]
def order(stage, stages, accumulation):
    """Return a stage's passes as ("forward" or "backward", micro-batch), in the order of 1F1B."""
    warm_up = min(stages - 1 - stage, accumulation)
    passes = [("forward", number) for number in range(warm_up)]
    for number in range(accumulation - warm_up):
        passes += [("forward", warm_up + number), ("backward", number)]
    return passes + [("backward", number) for number in range(accumulation - warm_up, accumulation)]


# %% tags=["check"]
exercises.check_order(order)
print("right:", " ".join(f"{phase[0].upper()}{number}" for phase, number in order(0, 2, 4)))

# %%
schedule = experiments.exhibit_schedule(config)
run.save_figure(
    plots.exhibit_schedule(schedule),
    "schedule",
    schedule,
    caption="1F1B of the tuned GPT-7B plan on eight L4, simulated: a row per stage, a numbered box per pass of a micro-batch.",
)

# %% [markdown]
# Gray is the part of d that the first micro-batch carries; the last backward pass is longer by the rest. A later stage does its
# extra work while it waits for the first input, which is why the closed form has a `max` of d minus the waiting time: `T =
# (G-1)·max t + Σ t + max(0, max_i(d_i - Σ_{j<i} t_j))`.
#
# For equal t and d up to t/2 this is exact, as an event-driven simulation of every pass shows. It is too optimistic where d is
# large: the first input comes after the earlier stages' *forward* passes alone, not after all of their t.
#
# ### Exercise 4: the iteration's time, for stages of equal t


# %% tags=["solution"]
def iteration_time(t, d, accumulation):
    """Return the seconds of an iteration; every stage has the same t, stage i the extra time d[i]."""
    late = max(extra - i * t for i, extra in enumerate(d))
    return (accumulation - 1) * t + len(d) * t + max(0.0, late)


# %% tags=["check"]
exercises.check_iteration_time(iteration_time)
print("right: equal to the event-driven simulation to 1e-9")

# %% [markdown]
# ## 5. Search: a front per stage, one assignment for all
#
# Every policy of a stage gives a point (t, d). Only points that no other beats in both can be in an optimal plan; with many
# micro-batches a small t matters, with few a small d. The artifact keeps a sample of that front; here the whole front is kept.
#
# ### Exercise 5: the front


# %% tags=["solution"]
def front(points):
    """Return the points (t, d) that no other point matches or beats in both coordinates."""
    kept, least = [], float("inf")
    for t, d in sorted(set(points)):
        if d < least:
            kept.append((t, d))
            least = d
    return kept


# %% tags=["check"]
exercises.check_front(front)
print("right:", front([(1, 5), (2, 2), (3, 3), (4, 1)]))

# %% [markdown]
# Then a small integer program picks layers and policy of every stage. All of it, for GPT-1.3B on two L4:

# %%
plan = mist.tune(spec, mist.cluster("l4", nodes=1, gpus_per_node=2), global_batch)
print(plan.explain())

# %% [markdown]
# With 32 sequences this is the plan that the artifact's README prints: two stages, five checkpointed layers on the first one,
# which holds more micro-batches in flight. `plan.save("plan.json")` writes a file that
# `torchrun --nproc-per-node 2 -m paperlab.mist.run plan.json` executes; `22_mist_runtime` does so with small models.

# %%
run.save_table(
    plan.table().assign(evidence="analytic"),
    "tuned_plan",
    caption="The tuned plan of GPT-1.3B on two L4, by stage.",
)

# %% [markdown]
# ## 6. What if devices had more memory?
#
# Bars: Megatron-LM-like with recomputation forced (as the artifact runs it), the same with recomputation free, and Mist, all in
# the same cost model. The title has Mist's gain over both. Where memory is plenty, little is left to co-optimize.

# %%
from paperlab.mist.what_if import draw_speeds

panel(draw_speeds, capacity_GiB=[16.0, 22.5, 40.0], attention=["math", "flash"])
plt.show()

# %% [markdown]
# ## Checked against the paper, and where next
#
# `21_mist_experiments` reproduces the artifact's predictions to seven digits and every comparison; `22_mist_runtime` executes
# plans and checks numbers, memory and times. To go on by yourself: another `global_batch` above; `mist.llama("7b", ...)` on
# `mist.cluster("a100", 2, 8)`; a space without offloading, `Space(optimizer_ratios=(0.0,), ...)`.
#
# ## Summary
#
# | means | frees | costs |
# |---|---|---|
# | checkpointing a layer | all it saves but its input | one more forward pass |
# | ZeRO-1, 2, 3 | optimizer states, gradients, weights over DP | collectives, mostly beside compute |
# | offload ratios | a fraction of each on the device | copies both ways, mostly beside compute |
# | decoupled optimizer step | all but one layer's states in use | nothing, if it hides beside forward passes |
