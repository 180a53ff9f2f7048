# %% [markdown]
# # AQuant: round activations where it helps
#
# *Efficient Adaptive Activation Rounding for Post-Training Quantization*, Li, Guo, Zhu, Zhou, Qiu, Gao, Leng and Guo,
# arXiv 2208.11945v3.
#
# The body of the paper could not be read. What follows is an independent re-derivation from the abstracts of its three
# versions, beside the methods it competes with; S-01 to S-08 in the ledger stand for its unread tables and figures. After this notebook you can
#
# 1. say why rounding an activation to the nearest integer is not optimal once weights are quantized;
# 2. derive the border that is, for one product and for a whole column of weights;
# 3. quantize a network with five methods, read what each unit did, and export the border as a table of thresholds.
#
# Cost: half a minute and 1 GiB in every profile, on any CPU; two minutes more the first time, when a small net is trained. Workshop: 60 minutes with the exercises.

# %% tags=["parameters"]
profile: str = "smoke"  # how much to run: smoke, cpu or gpu
seed: int = 0  # seeds every generator

# %% tags=["setup"]
import torch
from matplotlib import pyplot as plt

from paperlab import aquant
from paperlab.aquant import exercises, experiments, plots
from paperlab.lab import start
from paperlab.lab.panel import panel

# %%
run = start("50_aquant_idea", profile, seed)
config = run.config("aquant", aquant.Config)

# %% [markdown]
# ## 1. A grid
#
# Post-training quantization puts weights and activations on grids of `2^b` values: code `q` stands for `(q - z)·s`. With
# 2 bits there are four values. Two decisions are left for every number: the step `s`, and *which neighbor to round to*.
#
# ### Exercise 1: nearest rounding on a grid


# %% tags=["solution"]
def quantize(x, scale, zero_point, bits):
    """Return the values (q - zero_point) * scale, q = 0 ... 2^bits - 1, that are nearest to x."""
    levels = (x / scale).round().clamp(-zero_point, 2**bits - 1 - zero_point)
    return levels * scale


# %% tags=["check"]
exercises.check_quantize(quantize)
print("right:", quantize(torch.tensor([-1.0, 0.3, 0.8, 9.0]), 0.5, 0, 2).tolist())

# %% [markdown]
# ## 2. Why nearest is not best: one product
#
# An activation `x = u·s` is not used alone: it is multiplied by a weight. The weight `w` has become `ŵ = w + Δw` already.
# With nearest rounding the mean error of the product is `E[x]·Δw`: a bias that grows with the activation. But `x̂` may be
# chosen so that `x̂·ŵ` is close to `x·w`: the best real number is `x·w/ŵ`, so round up iff the fraction of `u` exceeds
#
# $$B = \tfrac12 + u\,\frac{\Delta w}{\hat w}.$$
#
# This *border* is ½ only where the weight is exact.
#
# ### Exercise 2: the border with the least error


# %% tags=["solution"]
def border(u, w, w_hat):
    """Return the border B: rounding up where frac(u) > B makes |x̂ ŵ - u w| least."""
    return 0.5 + u * (w_hat - w) / w_hat


# %% tags=["check"]
exercises.check_border(border)
print(
    "right: for a weight 10 % too large and u = 3 the border is",
    round(border(torch.tensor(3.0), 1.0, 1.1).item(), 3),
)

# %%
errors = experiments.exhibit_product_error(config)
run.save_figure(
    plots.exhibit_product_error(errors),
    "product_error",
    errors,
    caption="Error of a product along the activation, for a weight that is 10 % too large; dashed: its mean (S-03).",
)

# %%
theorems = run.save_table(
    experiments.table_theorems(config),
    "theorems",
    caption="Mean and mean absolute product error by weight error and border.",
)
theorems.pivot_table(
    index="relative_weight_error", columns="border", values=["mean_error", "mean_absolute_error"]
).round(3)

# %% [markdown]
# Both theorems of the abstract hold, against brute force over both neighbors: the first border has the least error, the second
# no bias. The second holds while the border stays inside a cell, here for weights off by up to 10 %; at 30 % it leaves
# [0, 1] and a bias remains.

# %%
from paperlab.aquant.studies.element import theorem_gaps

gaps = theorem_gaps(config.draws, seed)
for claim, gap, bar in (
    ("AQ-05", gaps["least_error"], 1e-9),
    ("AQ-06", gaps["bias"], 1e-3),
):
    print(
        claim,
        run.record_claim(
            claim,
            gap <= bar,
            evidence="simulated",
            artifact="theorems",
            note=f"largest gap to brute force {gap:.1e}",
        ),
    )

# %% [markdown]
# ### What if?
#
# Move the sliders (in JupyterLab; headless runs draw a grid).

# %%
from paperlab.aquant.what_if import draw_errors

panel(
    draw_errors,
    weight_error_percent=[10, -10, 30],
    border=["nearest", "least error", "zero bias"],
)
plt.show()

# %% [markdown]
# ## 3. One activation, many weights
#
# A stored activation meets all output channels, but can be rounded only one way. The border that is best in the sense of
# least squares is again affine, and every kind of error has its term:
#
# $$B = \tfrac12 + \underbrace{\tilde u\Big(1-\tfrac{\langle w,\hat w\rangle}{\|\hat w\|^2}\Big)}_{\text{weight error}}
#   + \underbrace{(\tilde u-u)\tfrac{\langle w,\hat w\rangle}{\|\hat w\|^2}}_{\text{propagated error}}
#   + \underbrace{\tfrac{\langle c,\hat w\rangle}{s\|\hat w\|^2}}_{\text{global error}}$$
#
# with `ũ` what the quantizer sees, `u` what the float network had, `c` the error of all other terms.
#
# ### Exercise 3: the slope


# %% tags=["solution"]
def slope(w, w_hat):
    """Return the slope of the border in u for a column of weights w that became w_hat, shape (M,)."""
    return 1 - (w @ w_hat) / (w_hat @ w_hat)


# %% tags=["check"]
exercises.check_slope(slope)
w = torch.randn(256)
print("independent errors of 10 %: slope", round(slope(w, w + 0.1 * torch.randn(256)).item(), 4))
print("all weights 10 % too small: slope", round(slope(w, 0.9 * w).item(), 4))

# %% [markdown]
# Remember this when you judge results: independent weight errors nearly cancel in a border that many weights share. What a
# coarse border can repair is *systematic*: shrunken weights, and the bias that earlier layers left behind.
#
# ## 4. The border as a function
#
# AQuant evaluates the border while the network runs, so it must be cheap: a polynomial of the activation, with coefficients
# shared by a whole channel. Bounded between 0 and 1 it is literally a rounding; unbounded it frees the thresholds.

# %%
curves = experiments.exhibit_border(config)
run.save_figure(
    plots.exhibit_border(curves),
    "border",
    curves,
    caption="Borders along the activation and the staircases they make (S-02).",
)

# %% [markdown]
# Zero coefficients give nearest rounding to the bit, ties included. So every method below is one program, and the border is
# all that differs.

# %%
from paperlab.aquant.quantizer import ActivationQuantizer

x = torch.cat([torch.randn(1, 3, 1000), (torch.arange(-6, 6) + 0.5).repeat(1, 3, 1)], dim=2)
plain, with_border = ActivationQuantizer(2), ActivationQuantizer(2)
with_border.border = aquant.Border(aquant.BorderSpec(degree=2), channels=3)
for quantizer in (plain, with_border):
    quantizer.set_grid(torch.tensor(1.0), torch.tensor(1.0))
print("equal to the bit:", torch.equal(plain(x), with_border(x)))

# %% [markdown]
# ## 5. Rounding weights: AdaRound, BRECQ, QDrop
#
# *AdaRound* learns for every weight whether it goes up or down, so that the layer's output changes least. *BRECQ* compares
# outputs of whole blocks. *QDrop* quantizes activations at random meanwhile, so that weights get used to it. The decision is
# relaxed to `h(V) = clamp(1.2 σ(V) - 0.1, 0, 1)`, and a regularizer pushes it to 0 or 1.
#
# ### Exercise 4: where V starts
#
# Learning starts from the float weights: find V with `h(V)` equal to the fraction of `w/s`.


# %% tags=["solution"]
def start_of(fraction):
    """Return V with clamp(1.2 * sigmoid(V) - 0.1, 0, 1) = fraction, for fractions in [0, 1)."""
    return -torch.log(1.2 / (fraction + 0.1) - 1)


# %% tags=["check"]
exercises.check_soft_rounding(start_of)
print("right: V =", [round(value, 3) for value in start_of(torch.tensor([0.0, 0.5, 0.9])).tolist()])

# %% [markdown]
# ## 6. All together: one line on a network
#
# A small ResNet learns handwritten digits. Few images and iterations here: this shows the machinery,
# `51_aquant_experiments` measures.

# %%
from paperlab.aquant.data.tasks import DigitsTask
from paperlab.aquant.data.training import accuracy, recipe, trained

net = trained(recipe("N1", DigitsTask(), seed))
images = net.data.calibration(128, seed)
print(f"float network: {net.test_accuracy:.1f} %")
models = {
    method: aquant.quantize(net.model, images, method=method, w_bits=2, a_bits=2, iterations=60)
    for method in ("rtn", "qdrop", "aquant")
}
for method, model in models.items():
    print(f"{method:8} {accuracy(model, net.data.test):.1f} %")

# %% [markdown]
# Every unit reports its loss before and after, how many weights and activations are not rounded to nearest, how many
# activations the grid clips, and the bits of every quantizer. First and last layer have 8 bits by the rule of QDrop.

# %%
run.save_table(
    models["aquant"].report(),
    "units",
    evidence="measured-cpu",
    caption="What each unit did: losses, flipped shares, clip rate, bits.",
)
models["aquant"].report().round(3)

# %%
models["aquant"].quantizers()

# %% [markdown]
# ## 7. What is deployed: thresholds
#
# Levels are still integers; only the thresholds between them have moved, per channel. So the border need not be evaluated at
# all: a table of `2^b - 1` thresholds per channel says the same, and at 2 bits that is three comparisons.
#
# ### Exercise 5: from polynomial to thresholds


# %% tags=["solution"]
def thresholds(a0, a1, a2, levels):
    """Return where u - (a0 + a1 u + a2 u²) rises through k + 1/2, k = 0 ... levels - 2."""
    found = []
    for k in range(levels - 1):
        b, c = a1 - 1, a0 + k + 0.5
        found.append(-c / b if a2 == 0 else (-b - (b * b - 4 * a2 * c) ** 0.5) / (2 * a2))
    return found


# %% tags=["check"]
exercises.check_thresholds(thresholds)
print("right:", [round(value, 3) for value in thresholds(-0.1, 0.1, 0.05, 4)])

# %%
from paperlab.aquant.deploy.export import monotonicity

steps = monotonicity(models["aquant"])
steps.head(8)

# %% [markdown]
# ## Checked against the paper, and where next
#
# Both theorems of the abstract come out. Whether the border pays, by how much, and at which bits, is measured in
# `51_aquant_experiments`. To go on by yourself: set `a_bits=4` above; try `border=aquant.BorderSpec(bound="none")`; pass
# `resume=Path("a_folder")`, interrupt the kernel, and run the cell again.
#
# ## Summary
#
# | | learns | activations are rounded |
# |---|---|---|
# | RTN | nothing | to nearest |
# | AdaRound | up or down per weight, layer by layer; steps | to nearest |
# | BRECQ | the same, block by block | to nearest |
# | QDrop | the same with activations quantized at random | to nearest |
# | AQuant | the same, and a border per channel | up where the fraction exceeds the border |
