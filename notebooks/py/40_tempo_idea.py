# %% [markdown]
# # Tempo: train with larger batches by keeping less
#
# *Tempo: Accelerating Transformer-Based Model Training through Memory Footprint Reduction*, Andoorveedu, Zhu, Zheng and
# Pekhimenko, NeurIPS 2022, arXiv 2210.10246v2.
#
# After this notebook you can
#
# 1. say which tensors a transformer layer keeps for its backward pass, and how many bytes that is;
# 2. derive the three tricks that keep less without changing the result: GELU and LayerNorm from their outputs, and
#    dropout recomputed inside the attention;
# 3. tell when such a trick saves nothing, and why "2x" depends on the baseline.
#
# Cost: under a minute and 1 GiB in every profile, on any CPU. Workshop: 45 to 60 minutes with the exercises.

# %% tags=["parameters"]
profile: str = "smoke"  # how much to run: smoke, cpu or gpu
seed: int = 0  # seeds every generator
seq_len: int = 256  # tokens per sequence in the live examples

# %% tags=["setup"]
import torch
import torch.nn.functional as F
from matplotlib import pyplot as plt

from paperlab import tempo
from paperlab.lab import start
from paperlab.lab.panel import panel
from paperlab.tempo import exercises

# %%
run = start("40_tempo_idea", profile, seed)

# %% [markdown]
# ## 1. Why: what does training keep?
#
# A forward pass saves tensors that the backward pass will need. PyTorch lets us see each of them, so we need not guess.
# Here is one encoder layer with the sizes of BERT-Large, on the *meta* device: shapes without memory, so any size works on
# a laptop. `B`, `S`, `H`, `A` are batch, sequence length, hidden size and heads.

# %%
from paperlab.tempo.memory.accounting import LayerShape
from paperlab.tempo.studies.memory_study import encoder_table

shape = LayerShape(batch=1, seq=seq_len, hidden=1024, heads=16)
kept = encoder_table("eager, modern", shape).groupby("operator", as_index=False)["bytes"].sum()
kept["bytes per BSH"] = kept["bytes"] / shape.bsh
kept = kept.sort_values("bytes", ascending=False)
run.save_table(
    kept,
    "kept_by_layer",
    evidence="measured-cpu",
    caption="What one BERT-Large layer keeps, by operator.",
)

# %% [markdown]
# Two kinds of tensors: those of size `B·S·H` (and four times that inside the feed-forward part), and the attention maps of
# size `B·A·S²`, which win for long sequences. In fp32 they add up to **66 BSH + 9 BAS²** bytes.

# %% [markdown]
# ### Exercise 1: the attention map
#
# How many bytes does a plain fp32 layer keep that have one value per pair of tokens? Count the tensors: softmax keeps its
# output, dropout keeps a mask (one byte each), the product with V keeps what it was given.


# %% tags=["solution"]
def attention_bytes(batch, heads, seq_len):
    """Return the bytes kept that grow with the square of the sequence length, in fp32."""
    probabilities, dropped, mask = 4, 4, 1
    return (probabilities + dropped + mask) * batch * heads * seq_len**2


# %% tags=["check"]
exercises.check_attention_bytes(attention_bytes)
print("right:", attention_bytes(1, 16, 512) / 2**20, "MiB per sequence of 512 tokens")

# %% [markdown]
# ## 2. GELU from its output
#
# GELU keeps its input, four times the hidden size. But the next Linear keeps GELU's *output* anyway. Can the derivative be
# had from the output? GELU is not monotonic: it falls to a minimum at x* = -0.7518 and rises from there, so most values
# below zero are taken twice. One bit per element, on which side of the minimum x was, decides.

# %%
from paperlab.tempo import experiments, plots

config = run.config("tempo", tempo.Config)
curve = experiments.exhibit_gelu_curve(config)
figure = plots.exhibit_gelu_curve(curve)
run.save_figure(
    figure,
    "gelu_curve",
    curve,
    caption="GELU's two branches, and its derivative as a function of its output.",
)

# %% [markdown]
# On the right, each branch is a function of y. Near the minimum it behaves like a square root: a tiny rounding of y moves the
# derivative a lot, and no method that keeps only y can undo that. This sets an *information floor*: about 1.5e-2 in
# bfloat16 near x*. An implementation that claims to be better has kept the input after all.
#
# The paper fits polynomials in y. A polynomial cannot follow a square root, so its error near the minimum is about 1e-2 at
# any degree. Here the default fit uses the variable `sqrt(y - y*)`, in which the branch is smooth; its error is the floor's.

# %%
x = torch.tensor([-3.0, -0.9, -0.7517915, -0.6, 0.0, 2.0], requires_grad=True)
ours = torch.autograd.grad(tempo.inplace_gelu(x).sum(), x)[0]
plain = torch.autograd.grad(F.gelu(x).sum(), x)[0]
for row in zip(x.tolist(), plain.tolist(), ours.tolist(), strict=True):
    print("x = {:8.4f}   autograd {:9.6f}   from the output {:9.6f}".format(*row))

# %% [markdown]
# ### Exercise 2: invert GELU
#
# Write the inverse of GELU right of its minimum by bisection. It is the slow, exact way, and our oracle for the fit.


# %% tags=["solution"]
def invert_gelu(y):
    """Return the x >= x* with GELU(x) = y, elementwise, for y from -0.16997 to 10."""
    low, high = torch.full_like(y, -0.7517915), torch.full_like(y, 10.0)
    for _ in range(60):
        middle = (low + high) / 2
        too_high = F.gelu(middle) > y
        high = torch.where(too_high, middle, high)
        low = torch.where(too_high, low, middle)
    return (low + high) / 2


# %% tags=["check"]
exercises.check_invert_gelu(invert_gelu)
print(
    "right: GELU(1.5) =",
    F.gelu(torch.tensor(1.5)).item(),
    "comes from",
    invert_gelu(F.gelu(torch.tensor([1.5]))).item(),
)

# %% [markdown]
# ## 3. LayerNorm from its output
#
# LayerNorm computes `x̂ = (x - mean) / σ` and `y = γ x̂ + β`. Its backward pass needs x̂ and 1/σ. The framework keeps x; but
# `x̂ = (y - β) / γ`, and y is kept by the next Linear. So keep y and one number per row, 1/σ.
#
# Two traps. A channel with γ = 0 cannot be recovered: 0/0. And where |β/γ| is large, the rounding of y is blown up by that
# factor. Tempo's released code ignores both; others clamp γ and are silently wrong. Here such channels keep their x̂, and
# the module counts them.

# %%
norm = torch.nn.LayerNorm(64)
with torch.no_grad():
    norm.weight[3], norm.weight[10], norm.bias[10] = 0.0, 1e-6, 1.0
tempo_norm = tempo.InplaceLayerNorm.from_module(norm)
data = torch.randn(32, 64, requires_grad=True)
target = torch.randn(32, 64)
gradients = {
    name: torch.autograd.grad((module(data) * target).sum(), [data, norm.weight])
    for name, module in (("framework", norm), ("Tempo", tempo_norm))
}
for index, what in enumerate(("dx", "dgamma")):
    gap = (gradients["framework"][index] - gradients["Tempo"][index]).abs().max().item()
    print(
        f"largest difference in {what}: {gap:.1e}; channels kept by the fallback: {tempo_norm.fallbacks}"
    )

# %% [markdown]
# ### Exercise 3: LayerNorm's backward pass from its output
#
# With `G = γ·dy` the gradient is `dx = (G - mean(G) - x̂·mean(G·x̂)) / σ`, means over the channels of a row.


# %% tags=["solution"]
def layernorm_backward(dy, y, rstd, gamma, beta):
    """Return dx, shape (M, N); rstd is 1/σ, shape (M, 1)."""
    xhat = (y - beta) / gamma
    scaled = gamma * dy
    return rstd * (
        scaled - scaled.mean(-1, keepdim=True) - xhat * (scaled * xhat).mean(-1, keepdim=True)
    )


# %% tags=["check"]
exercises.check_layernorm_backward(layernorm_backward)
print("right: equal to autograd to 1e-9")

# %% [markdown]
# ## 4. Dropout inside the attention, recomputed
#
# In `softmax → dropout → times V` the framework keeps the softmax output P (softmax needs it), the mask, and the *dropped* P
# (the product with V needs it). The last one is P·mask/(1-p): one multiplication rebuilds it. Nothing else of the layer is
# recomputed, above all no matrix product, which is what makes this cheaper than checkpointing.

# %%
flow = experiments.figure_4(config)
run.save_figure(
    plots.figure_4(flow),
    "figure_4",
    flow,
    caption="Dropout's data flow; blue tensors are kept (the paper's Figure 4).",
)

# %% [markdown]
# ### Exercise 4: the backward pass without the dropped P


# %% tags=["solution"]
def attention_backward(d_out, probabilities, mask, value, p):
    """Return the gradients of the scores (S, T) and of V (T, D), given dO (S, D), P (S, T), the mask and V."""
    scale = 1 / (1 - p)
    dropped = probabilities * mask * scale
    d_value = dropped.T @ d_out
    d_probabilities = (d_out @ value.T) * mask * scale
    row_sum = (d_probabilities * probabilities).sum(-1, keepdim=True)
    return probabilities * (d_probabilities - row_sum), d_value


# %% tags=["check"]
exercises.check_attention_backward(attention_backward)
print("right: both gradients equal autograd's")

# %% [markdown]
# ## 5. All together: one line on a real model
#
# Hugging Face's default attention, SDPA, keeps no attention map, and `tempo.apply` would leave it alone. We ask for the eager
# one, which is what the paper replaces.

# %%
from transformers import BertConfig, BertForMaskedLM

torch.manual_seed(seed)
model = BertForMaskedLM(
    BertConfig(
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=512,
        vocab_size=1000,
    ),
).train()
model.set_attn_implementation("eager")
batch = {"input_ids": torch.randint(1000, (4, seq_len))}
batch["labels"] = batch["input_ids"]


def gradients_of(model):
    """Return all gradients of one step with a fixed dropout pattern."""
    model.zero_grad()
    torch.manual_seed(seed)
    model(**batch).loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


before = gradients_of(model)
print(tempo.apply(model))
after = gradients_of(model)
print(
    f"\nrelative difference of all gradients: {((after - before).norm() / before.norm()).item():.1e}"
)

# %% [markdown]
# ## 6. What if? Sizes, precision and the choice of baseline
#
# Move the sliders (in JupyterLab; headless runs draw a grid). The title gives two ratios, against the *paper-era* baseline and
# against today's: torch up to version 1.10 also kept softmax's **input**, which is worth another 4 BAS² bytes. The paper's "up
# to 2x" is 1.98x against that baseline at S = 512, and 1.60x against a current one. Both are true; they must be told apart.

# %%
from paperlab.tempo.what_if import draw_kept

panel(draw_kept, seq_len=[128, 512, 2048], hidden=[1024], dtype=["fp32", "16-bit"])
plt.show()

# %% [markdown]
# ## 7. When it saves nothing
#
# * **Autocast**: LayerNorm emits fp32, and the next Linear keeps its own bf16 copy. Keeping y instead of x then exchanges one
#   tensor for another. The remedy is a LayerNorm that emits the low-precision tensor once.
# * **SDPA / FlashAttention** keep no attention map at all: the dropout trick is moot, GELU and LayerNorm still pay.
# * An embedding's LayerNorm feeds dropout alone, so nobody keeps its output.
#
# ## Checked against the paper, and where next
#
# `41_tempo_experiments` measures all of this, compares it with what the paper and its released code say, and trains a model
# both ways, step by step. To go on by yourself: set `seq_len` to 1024 above; apply Tempo to `layers=[0]` alone and read
# `tempo.ledger`; try `packed=True`.
#
# ## Summary
#
# | trick | keeps instead | saves per layer (fp32) | price |
# |---|---|---|---|
# | GELU from its output | y (shared) and 1 byte per element | 12 BSH | one polynomial in the backward pass |
# | LayerNorm from its output | y (shared) and 1/σ | 8 BSH | one division per channel, a fallback for small γ |
# | dropout recomputed | P and the mask | 4 BAS² | one multiplication in the backward pass |
# | softmax from its output | P | 4 BAS², in the paper's era only | none |
