# %% [markdown]
# # Nexus: prefill and decode side by side on one GPU
#
# *Nexus: Proactive Intra-GPU Disaggregation of Prefill and Decode in LLM Serving*, Shi, Cai, Du and Jia, arXiv 2507.06608v5.
#
# After this notebook you can
#
# 1. say why a server that mixes prompts and decoding in one batch makes everybody wait, and what the alternatives cost;
# 2. build the mechanism: a latency model, a search for the split under a slack, and two queues with their own orders;
# 3. tell which of its promises need a GPU to be tested, and which can be checked on a laptop.
#
# Cost: under a minute and 1.5 GiB in every profile, on any CPU. Workshop: 45 to 60 minutes with the exercises.

# %% tags=["parameters"]
profile: str = "smoke"  # how much to run: smoke, cpu or gpu
seed: int = 0  # seeds every generator
rate_per_s: float = 2.0  # requests per second in the live examples

# %% tags=["setup"]
from matplotlib import pyplot as plt

from paperlab import nexus
from paperlab.lab import start
from paperlab.lab.panel import panel
from paperlab.nexus import exercises
from paperlab.serving import LLM, deployment, simulate, timeline, workload

# %%
run = start("10_nexus_idea", profile, seed)

# %% [markdown]
# ## 1. Why: two phases, one queue
#
# A request is *prefilled* (all prompt tokens at once: much arithmetic, sets the time to first token, TTFT) and then *decoded* (one
# token per iteration: reads all weights for each, sets the time between tokens, TBT). Continuous batching puts chunks of
# prompts and single decoding tokens into one batch. Every decoding request then waits for the whole batch.
#
# How long is an iteration? `paperlab.serving` prices its operators on a device; here Qwen2.5-3B on an L20, as in the paper.

# %%
import pandas as pd

from paperlab.serving.work import StepShape

model = deployment("qwen2.5-3b", "l20").device_model
steps = {
    "decode only: 20 sequences": StepShape(decode_tokens=20, decode_context=20 * 6000, logits=20),
    "prefill only: a chunk of 2,048": StepShape(2048, 2048, 2048 * 2048 + 2048 * 2049 // 2),
    "mixed: both": StepShape(2028, 2048, 2028 * 2048 + 2028 * 2029 // 2, 20, 20 * 6000, 20),
}
prices = pd.DataFrame(
    [(name, 1e3 * model.seconds(model.load(step))) for name, step in steps.items()],
    columns=["iteration", "milliseconds"],
)
run.save_table(
    prices,
    "iterations",
    evidence="simulated",
    caption="Time of three iterations of Qwen2.5-3B on an L20.",
)

# %% [markdown]
# A decoding user who shares the batch waits nearly ten times as long for the next token. The remedies so far: smaller chunks
# (prompts then take longer), or a second GPU for decoding (twice the hardware, and the cache must be sent across). Nexus: two
# *lanes* on one GPU, each with a share of its multiprocessors (SMs), over one copy of the weights and one paged cache.

# %%
from paperlab.nexus import experiments, plots

config = run.config("nexus", nexus.Config)
designs = experiments.figure_1(config)
run.save_figure(
    plots.figure_1(designs),
    "figure_1",
    designs,
    caption="Mixed batches, two GPUs, and two lanes on one GPU (Figure 1), drawn from the policies.",
)

# %% [markdown]
# ### Exercise 1: how much work is a chunk?
#
# A long prompt is prefilled in chunks; the keys of earlier chunks are stored. Attention compares each token of a chunk with all
# stored tokens, with those before it in the chunk, and with itself. How many query-key pairs has a chunk of `tokens` after
# `stored` tokens?


# %% tags=["solution"]
def pairs(stored, tokens):
    """Return the number of query-key pairs."""
    return tokens * stored + tokens * (tokens + 1) // 2


# %% tags=["check"]
exercises.check_pairs(pairs)
print("right: the chunk above has", f"{pairs(2048, 2048):,}", "pairs per head and layer")

# %% [markdown]
# ## 2. What a share of the GPU is worth
#
# If latency were proportional to 1/share, two lanes would gain nothing. But decoding is bound by memory, which a third of the
# multiprocessors can nearly saturate; and even prefill's small matrices stop scaling. The paper's model: speed grows with
# the share up to a knee (`R_sat`), then more slowly, by a factor λ.

# %% [markdown]
# ### Exercise 2: the saturation curve
#
# Up to the knee a share of the multiprocessors reaches the same share of the speed. Each further bit adds only `decay` (λ) of
# itself. What speed does `share` reach?


# %% tags=["solution"]
def effective_share(share, knee, decay):
    """Return the share of the device's speed that `share` of its multiprocessors reaches, before scaling to 1."""
    return share if share <= knee else knee + decay * (share - knee)


# %% tags=["check"]
exercises.check_effective_share(effective_share)
print("right: with a knee at 0.6 and λ = 0.1, the last 40 % add only 4 %")

# %%
curves = experiments.figure_5(config)
run.save_figure(
    plots.figure_5(curves),
    "figure_5",
    curves,
    caption="Forecast latency against the share of multiprocessors, by phase and by operator (Figure 5): a fit to what the paper states.",
)

# %% [markdown]
# ## 3. They still share the memory
#
# Splitting multiprocessors does not split bandwidth. The paper's model gives decode's attention a part of it by bytes: while prefill
# is in *its* attention (a fraction `p_attn` of the time) those two compete; otherwise decode competes with the weights of
# prefill's dense layers.

# %%
splits = experiments.figure_3(config)
run.save_figure(
    plots.figure_3(splits),
    "figure_3",
    splits,
    caption="A layout divides multiprocessors, and no bandwidth (after Figure 3): an L20, by the cost model.",
)

# %% [markdown]
# ### Exercise 3: what is left for decode?
#
# A fraction `p_attn` of the time prefill is in its attention, which moves `attention_bytes`; otherwise in its dense layers, which
# move `dense_bytes`. At either time bandwidth is shared by bytes with decode's `decode_bytes`. Return decode's mean part.


# %% tags=["solution"]
def decode_bandwidth(p_attn, decode_bytes, attention_bytes, dense_bytes):
    """Return the part of the bandwidth, 0 to 1, that decode's attention gets."""
    beside_attention = decode_bytes / (decode_bytes + attention_bytes)
    beside_dense = decode_bytes / (decode_bytes + dense_bytes)
    return p_attn * beside_attention + (1 - p_attn) * beside_dense


# %% tags=["check"]
exercises.check_decode_bandwidth(decode_bandwidth)
print(
    "right:",
    round(decode_bandwidth(0.2, 4.4e9, 0.3e9, 5.5e9), 2),
    "for 20 sequences of 6,000 tokens",
)

# %% [markdown]
# ## 4. Choosing the split
#
# Two objectives. While there is memory, *prefill first*: the shortest prefill such that decode takes at most β = 1.1 times its
# best. When the cache is 70 % full, *decode first*: the shortest decode such that prefill takes at most α = 1.3 times its
# best, since finished sequences free memory. The search moves in steps of 1 %: give back until the other phase keeps its
# slack, then take as long as it still does.

# %%
from paperlab.nexus.search import search
from paperlab.nexus.settings import Settings
from paperlab.nexus.studies.saturation_study import published_model

co_run = published_model().co_run(
    steps["prefill only: a chunk of 2,048"], steps["decode only: 20 sequences"]
)
found = search(co_run, "prefill", 50, Settings(), floor=5)
print(f"prefill gets {found.percent} %; {found.evaluations} evaluations of the model:")
for probe in found.trace[:3] + found.trace[-2:]:
    print(
        f"  {probe.step:8} {probe.percent:3d} %  decode {1e3 * probe.other_s:.2f} ms (limit {1e3 * found.bound_s:.2f})"
    )

# %% [markdown]
# ### Exercise 4: the core of the search
#
# `decode_s(share)` forecasts decode's latency on a share of the device. Return the largest whole percentage for prefill, 1 to 99,
# that keeps decode within `beta` times its best.


# %% tags=["solution"]
def split(decode_s, beta):
    """Return prefill's percentage."""
    percent = 1
    while percent < 99 and decode_s(1 - (percent + 1) / 100) <= beta * decode_s(1.0):
        percent += 1
    return percent


# %% tags=["check"]
exercises.check_split(split)
print(
    "right: if decode takes 1 + 0.05 / share, prefill gets",
    split(lambda share: 1 + 0.05 / share, 1.1),
    "%",
)

# %% [markdown]
# ### What if?
#
# Dotted lines are the slacks, dashed ones what each objective picks. With the published slacks and 64 sequences, *decode first*
# gives decode **less** than *prefill first* does: the blue line lies left of the orange one. "Minimize X subject to Y" gives X
# whatever Y does not need. Raise β until the lines change places.

# %%
from paperlab.nexus.what_if import draw_split

panel(draw_split, beta=[1.1, 1.3, 1.5], decode_batch=[64, 8], alpha=[1.3, 1.1, 2.0])
plt.show()

# %% [markdown]
# ## 5. Two queues
#
# The prefill lane serves *shortest prompt first*, aged: score = remaining tokens − γ · waiting time, the smallest first. γ = 15
# tokens per second. It needs no partition, and gives much of the gain in mean TTFT; long prompts pay.

# %% [markdown]
# ### Exercise 5: the order
#
# Each waiting prompt is a pair: tokens that remain, and when it arrived. In which order are they served at time `now`?


# %% tags=["solution"]
def spf(prompts, now, gamma):
    """Return the indices of `prompts`, (remaining tokens, arrival time) each, in the order of service."""
    return sorted(range(len(prompts)), key=lambda i: prompts[i][0] - gamma * (now - prompts[i][1]))


# %% tags=["check"]
exercises.check_spf(spf)
print("right: at γ = 0 the shortest goes first, at a very large γ the oldest")

# %% [markdown]
# ### Exercise 6: the batch
#
# Fill a batch of at most `budget` tokens from the sorted line. The paper's listing stops at the first prompt that does not fit, and
# thereby never serves one longer than the budget. Do better: how many tokens does each prompt get?


# %% tags=["solution"]
def chunks(remaining, budget):
    """Return the tokens that each prompt of the line gets in this batch."""
    given = []
    for tokens in remaining:
        given.append(min(tokens, budget))
        budget -= given[-1]
    return given


# %% tags=["check"]
exercises.check_chunks(chunks)
print("right:", chunks([900, 1500, 4000], 2048))

# %% [markdown]
# ## 6. All together
#
# The same thirty requests under the mixed batches of a vLLM-like scheduler, and under Nexus. The height of a bar is its share of the
# device.

# %%
work = workload("ldc", rate_per_s=rate_per_s, requests=30, seed=seed)
systems = {"vLLM-like": "vllm-like", "Nexus": "nexus"}
logs = {
    name: simulate(policy, model="qwen2.5-3b", device="l20", workload=work)
    for name, policy in systems.items()
}
figure, panels = plt.subplots(2, 1, figsize=(10, 3.6), sharex=True, layout="constrained")
for axes, (name, log) in zip(panels, logs.items(), strict=True):
    timeline.draw(axes, log, 2.0, 5.0)
    axes.set_title(name, loc="left", fontsize=10)
panels[0].set_yticks([0], ["both phases"])
panels[0].set_xlabel("")
spans = pd.concat([timeline.spans(log).assign(system=name) for name, log in logs.items()])
run.save_figure(
    figure,
    "timeline",
    spans,
    evidence="simulated",
    caption="Three seconds of the same requests under both schedulers, simulated on an L20: a bar is an iteration, its height its share of the device.",
)

# %%
summary = pd.concat([log.summary() for log in logs.values()], ignore_index=True)
columns = [
    "system",
    "ttft_mean_s",
    "ttft_p95_s",
    "tbt_mean_s",
    "tbt_p95_s",
    "requests_per_s",
    "evidence",
]
run.save_table(
    summary[columns], "summary", caption="The same thirty requests under both schedulers."
)

# %% [markdown]
# What fills the cache of keys and values (KV)? Here an 8B model under more load than it can sustain. Mixed batches admit
# prompts as fast as memory allows, and decode them slowly: the pool fills until sequences are thrown out and computed again.
# Nexus leaves long prompts waiting, and the pool stays far below the dotted line, where it would change to *decode first*.

# %%
from paperlab.serving import metrics

heavy = workload("mixed", rate_per_s=2.5, requests=150, seed=seed)
crowded = {
    name: simulate(policy, model="llama3.1-8b", device="l20", workload=heavy)
    for name, policy in systems.items()
}
figure, axes = plt.subplots(figsize=(10, 2.8), layout="constrained")
for name, log in crowded.items():
    timeline.draw_memory(axes, log)
    axes.lines[-1].set_color(plots.PALETTE[name])
axes.axhline(100 * Settings().kv_switch, color="0.4", linestyle=":")
axes.text(0.3, 100 * Settings().kv_switch + 2, "above: decode first", fontsize=8, color="0.3")
axes.set_xlim(0, max(log.end_s for log in crowded.values()))
axes.legend(axes.lines[:2], list(crowded), loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
usage = pd.concat([metrics.kv_usage(log).assign(system=name) for name, log in crowded.items()])
run.save_figure(
    figure,
    "memory",
    usage,
    evidence="simulated",
    caption="Use of the paged KV cache while 150 requests are served with Llama-3.1-8B, simulated on an L20.",
)

# %% [markdown]
# And which file does what? Each arrow is a call from one file of the library to another, counted while Nexus served such a workload,
# per iteration. Blue is Nexus, gray the serving core that all systems share. Replace a blue box and you have a policy of your
# own; replace `serving.simulator` by the engine, and the same scheduler serves real tokens.

# %%
calls = experiments.figure_7(config)
run.save_figure(
    plots.figure_7(calls),
    "figure_7",
    calls,
    caption="Architecture (Figure 7): files, and the calls between them per iteration as recorded.",
)

# %% [markdown]
# `logs["Nexus"].save_trace("trace.json")` writes a file that ui.perfetto.dev opens.

# %% [markdown]
# ## 7. For real
#
# The scheduler above is no toy of the simulator: the same object drives a real engine with a paged cache. Here a tiny model with
# random weights, on this machine. Scheduling must not change what is generated.

# %%
from paperlab.lab.seeding import seed_everything
from paperlab.nexus.studies.engine_study import small_model

seed_everything(seed)
prompts = [[(7 * i + j) % 2048 for j in range(5 + 9 * i)] for i in range(5)]
outputs = {}
for name in ("vllm-like", "sglang-like", "nexus"):
    engine = LLM(small_model(2), name, block_size=4, device="cpu", seed=seed)
    outputs[name] = [completion.tokens for completion in engine.generate(prompts, max_new_tokens=8)]
assert outputs["vllm-like"] == outputs["sglang-like"] == outputs["nexus"]
print("five prompts, three schedulers, the same tokens; the last one:", outputs["nexus"][-1])

# %% [markdown]
# A CPU has no multiprocessors to split: two lanes are two threads here, and the share is only written down. Real partitions
# need a GPU with green contexts; `paperlab.serving.engine` makes them, or says that it could not.
#
# ## Checked against the paper, and where next
#
# `11_nexus_experiments` goes through Figures 2 to 8 and all that the paper leaves open; `12_nexus_serving` compares whole
# systems, `13_nexus_ablation` their parts. To go on by yourself: set `rate_per_s` to 0.5 and to 4 above; give `simulate` the
# option `policy_options={"beta": 1.5}`; write a policy of your own (`paperlab.serving.Policy` has one method to fill).
#
# ## Summary
#
# | part | idea | its weak spot |
# |---|---|---|
# | lanes | each phase has its own queue and share of the GPU | memory bandwidth stays shared |
# | cost model | per operator, the slower of arithmetic and memory | constants must be measured per device and model |
# | search | other phase within a slack, steps of 1 %, hysteresis | the published slacks turn the two objectives around |
# | shortest prompt first | short requests do not wait behind long ones | the longest wait longest; needs no partition |
