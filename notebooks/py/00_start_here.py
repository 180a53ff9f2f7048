# %% [markdown]
# # Start here
#
# Paperlab implements six machine-learning-systems papers, runs their experiments, and judges their claims. This
# notebook shows in under a minute how that works: run a live example, change a parameter, read a verdict.
#
# After it you can
#
# 1. run any notebook here or headlessly, and know where its results went;
# 2. change a parameter and see a table change;
# 3. read a verdict, and follow a number back to the code that made it.
#
# Cost: about 10 s and 1 GiB in every profile, on any CPU.

# %% tags=["parameters"]
profile: str = "smoke"  # how much to run: smoke, cpu or gpu
seed: int = 0  # seeds every generator
seq_len: int = 128  # tokens per sequence of the example; try 512

# %% [markdown]
# ## 1. A run
#
# Every notebook opens a `Run`. It seeds the generators and is the only way to save a result. Opened by hand, results go
# to `results/interactive/`; `./run_all.sh` publishes them under `results/<profile>/`.

# %%
from paperlab import tempo
from paperlab.lab import start

run = start("00_start_here", profile, seed)
run.profile

# %% [markdown]
# ## 2. A live example: what does training keep in memory?
#
# A training step keeps activations until the backward pass has used them. Tempo (NeurIPS 2022) replaces three layers of a
# transformer by versions that keep less and compute the same. Below is a small BERT from Hugging Face, built from its
# config (nothing is downloaded). We ask which bytes each operator keeps, before and after. Tempo's three operators
# (`InplaceGELU`, `LayerNormFromOutput`, `SoftmaxDropoutMatmul`) keep bytes too, in place of those that they replace.

# %%
import torch
from transformers import BertConfig, BertModel

config = BertConfig(
    hidden_size=128, num_hidden_layers=2, num_attention_heads=8, intermediate_size=512
)
model = BertModel._from_config(config, attn_implementation="eager").train()
batch = {"input_ids": torch.randint(0, config.vocab_size, (4, seq_len))}

report = tempo.apply(model)
report

# %%
table = tempo.ledger(
    model, batch, as_on_gpu=True
)  # a GPU keeps dropout masks of one byte, the CPU of four
per_operator = table.groupby("operator", as_index=False)[["baseline_bytes", "bytes"]].sum()
per_operator = per_operator.sort_values(["baseline_bytes", "bytes"], ascending=False)
run.save_table(
    per_operator,
    "retained_bytes",
    evidence="measured-cpu",
    caption="Bytes kept for the backward pass by operator: plain BERT, and the same with Tempo.",
)

# %%
import seaborn as sns
from matplotlib import pyplot as plt

long = per_operator.melt(
    "operator", ["baseline_bytes", "bytes"], var_name="model", value_name="MiB"
)
long["model"] = long["model"].map({"baseline_bytes": "plain BERT", "bytes": "with Tempo"})
long["MiB"] /= 2**20
long["operator"] = long["operator"].str.removeprefix("native_").str.replace("_", " ")
before, after = (per_operator[name].sum() / 2**20 for name in ("baseline_bytes", "bytes"))
figure, axes = plt.subplots(layout="constrained")
sns.barplot(long, y="operator", x="MiB", hue="model", ax=axes)
axes.set(
    title=f"All operators together: {before:.1f} MiB, with Tempo {after:.1f} MiB",
    xlabel=f"MiB kept by a training step, 2 layers, {seq_len} tokens a sequence",
    ylabel="",
)
axes.legend(title=None, loc="lower right")
run.save_figure(
    figure,
    "retained_bytes_figure",
    long,
    evidence="measured-cpu",
    caption="Memory that a training step keeps, by operator: plain BERT, and the same with Tempo.",
)

# %% [markdown]
# **Change something.** Set `seq_len` to 512 in the parameter cell and run all cells again: the attention rows grow with the
# square of the length, the others linearly. Headlessly, with every misspelled parameter an error:
#
# ```bash
# paperlab run 00 -p seq_len=512
# ```

# %% [markdown]
# ## 3. A verdict
#
# Each paper has a ledger in `data/claims/`: what it claims, what would count, and which class of evidence can decide. A
# notebook records what it found; the verdict is computed. Only a finding of the class that the ledger names decides: a claim
# that asks for a measurement on a GPU stays `pending-gpu` until a GPU has run it, whatever a simulation says. A claim that nobody
# can measure here, such as one about a whole node of GPUs, may name `simulated`; its verdict then says so.

# %%
from paperlab.lab import scorecard
from paperlab.lab.claims import get_claim, judge
from paperlab.lab.record import Finding

claim = get_claim("T-01")
print(
    f"{claim.claim_id}: {claim.statement}: {claim.comparison} {claim.value_low} {claim.unit}, needs {claim.evidence}"
)
for value, evidence in [(1.98, "analytic"), (1.6, "measured-gpu"), (1.95, "measured-gpu")]:
    made_up = Finding(claim.claim_id, value, evidence, "made_up_for_illustration")
    print(f"  if we had found {value} ({evidence}): {judge(claim, [made_up]).verdict}")

# %%
scorecard.summary(scorecard.judge_all(scorecard.scorecard_folders("cpu")))

# %% [markdown]
# ## 4. From a number back to its source
#
# `paperlab trace FILE` names the notebook, the parameters, the commit and the hashes of all inputs of a result:
#
# ```bash
# paperlab trace results/cpu/41_tempo_experiments/table_ledger.csv
# ```
#
# ## Where to go
#
# * `40_tempo_idea` builds Tempo step by step, with exercises; `41_tempo_experiments` regenerates its tables and figures.
# * `90_scorecard` shows every claim of every paper with its verdict.
# * `91_across_systems` feeds one system into another and judges predictions of ours.
# * `./run_all.sh` does all of it headlessly.
