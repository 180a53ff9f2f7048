# %% [markdown]
# # AQuant taken apart
#
# *Efficient Adaptive Activation Rounding for Post-Training Quantization*, arXiv 2208.11945v3.
#
# The paper's ablations could not be read (slots S-05 and S-08). After this notebook you can
#
# 1. tell what the border adds, alone and beside QDrop's drop, and how much its degree matters;
# 2. say which errors it repairs: those of the weights, of earlier layers, of the other channels;
# 3. see how much the outcome depends on bits, images, iterations and on which layers have 8 bits.
#
# Cost on 2 cores: `smoke` about a minute, `cpu` about 7 minutes by count of iterations, 2 GiB. Hardware: any CPU.

# %% tags=["parameters"]
profile: str = "smoke"  # how much to run: smoke, cpu or gpu
seed: int = 0  # seeds every generator

# %% tags=["setup"]
from paperlab import aquant
from paperlab.aquant import experiments, plots
from paperlab.lab import start

run = start("52_aquant_ablations", profile, seed)
config = run.config("aquant", aquant.Config)
config

# %% [markdown]
# ## 1. Drop and border (S-05)
#
# QDrop's noise and the border both prepare a block for quantized activations. Does one replace the other?

# %%
squares = experiments.exhibit_drop_and_border(config)
run.save_figure(
    plots.exhibit_drop_and_border(squares),
    "drop_and_border",
    squares,
    caption="The 2x2 of drop and border, N1 at W2A2.",
)
squares.pivot_table(index="net_seed", columns="arm", values="top1", sort=False).round(1)

# %%
degrees = experiments.exhibit_degrees(config)
run.save_figure(
    plots.exhibit_degrees(degrees),
    "degrees",
    degrees,
    caption="Degree of the border without drop, N1 at W2A2.",
)
means = degrees.groupby("degree").top1.mean()
if config.iterations >= 800 and len(means) == 4:
    ordered = bool(means.is_monotonic_increasing)
    note = (
        ", ".join(f"{degree}: {value:.1f}" for degree, value in means.items()) + "; -1 is no border"
    )
    print(run.record_claim("RK-4", ordered, evidence="measured-cpu", artifact="degrees", note=note))
means

# %% [markdown]
# ## 2. Which errors does the border repair?
#
# In closed form the border can be told weight error alone, propagated error as well, or everything. No gradient descent, and
# weights are rounded to nearest.

# %%
terms = experiments.table_terms(config)
run.save_table(terms, "terms_table", caption="Closed-form borders by the errors they know.")
run.save_figure(plots.table_terms(terms), "terms", terms, caption="The same, a line per net.")
by_terms = terms.groupby("terms", sort=False).top1.mean()
if config.iterations >= 800:
    note = ", ".join(f"{name} {value:.1f}" for name, value in by_terms.items())
    rises = bool(by_terms.is_monotonic_increasing)
    print(
        run.record_claim("AQ-08", rises, evidence="measured-cpu", artifact="terms_table", note=note)
    )
by_terms

# %% [markdown]
# ## 3. Bits
#
# At 4 bits all learned methods are within the test set's error of each other: *not resolved*, and not to be ranked.

# %%
bits = experiments.exhibit_bits(config)
run.save_figure(plots.exhibit_bits(bits), "bits", bits, caption="Top-1 by bits on the first net.")
wide = bits.pivot_table(index=["w_bits", "a_bits"], columns="arm", values="top1")
gain = wide["AQuant"] - wide["QDrop"]
if config.iterations >= 800 and {(4, 4), (2, 4)} <= set(wide.index):
    note = (
        ", ".join(f"W{w}A{a} {value:+.1f}" for (w, a), value in gain.items())
        + " points of AQuant over QDrop"
    )
    shrinks = bool(gain[2, 4] < gain[2, 2])
    run.record_claim("RK-5", shrinks, evidence="measured-cpu", artifact="bits", note=note)
    spread = bool(abs(gain[4, 4]) < abs(gain[2, 2]))
    run.record_claim("RK-2", spread, evidence="measured-cpu", artifact="bits", note=note)
wide.round(1)

# %% [markdown]
# ## 4. Sensitivity (S-08)

# %%
sensitivity = experiments.exhibit_sensitivity(config)
run.save_figure(
    plots.exhibit_sensitivity(sensitivity),
    "sensitivity",
    sensitivity,
    caption="Top-1 of one net against calibration images, iterations, granularity and the 8-bit rule.",
)

# %% [markdown]
# ## Exercises
#
# 1. Set `iteration_counts` in `profiles.toml` to 100 and look at QDrop against AQuant. What would a hasty reader conclude?
# 2. The closed form knows global error, but solves all channels as if nothing were rounded. When would that mislead?
#
# ## Summary
#
# Where a table has one net, a difference of a point is noise; tables carry the nets' numbers so that it can be seen.
