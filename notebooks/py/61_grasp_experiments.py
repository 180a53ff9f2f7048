# %% [markdown]
# # RGBD-Grasp: who finds better grasps, and why
#
# *RGB Matters: Learning 7-DoF Grasp Poses on Monocular RGBD Images*, ICRA 2021, arXiv 2103.02184v1.
#
# The paper's tables could not be read and need GraspNet-1Billion. Everything here is measured on generated scenes with the data
# set's own metric, and never stands beside the paper's numbers. AVN is the Angle-View Net, FAS the Fast Analytic Searching that
# turns its heatmap into grasps (`60_grasp_idea`). After this notebook you can
#
# 1. rank a trained net, a perfect heatmap, and methods without learning, with intervals over scenes and seeds;
# 2. say what the search's tie-break, the workspace and the labels are worth;
# 3. tell whether a net looks at color, and whether color beats depth on these scenes.
#
# Cost on 2 cores: `smoke` half a minute, `cpu` about 9 minutes with seven nets to train, 5 with nets from the cache, where they
# and the scenes are kept by content; 3 GiB. Hardware: any CPU.

# %% tags=["parameters"]
profile: str = "smoke"  # how much to run: smoke, cpu or gpu
seed: int = 0  # seeds every generator

# %% tags=["setup"]
from paperlab import rgbd_grasp
from paperlab.lab import start
from paperlab.rgbd_grasp import experiments, findings, plots

run = start("61_grasp_experiments", profile, seed)
config = run.config("rgbd_grasp", rgbd_grasp.Config)
config

# %%
TRAINED = config.net != "tiny"  # a tiny net is there to run every path, not to decide a claim


def record(found, evidence="measured-cpu"):
    """Record findings and print their verdicts."""
    for item in found:
        verdict = run.record_claim(
            item.claim_id, item.value, evidence=evidence, artifact=item.artifact, note=item.note
        )
        print(f"{item.claim_id}: {verdict}", f"({item.note})" if item.note else "")


# %% [markdown]
# ## 1. Learning
#
# The same scenes, recipe and iterations for nets that see color and nets that see depth. Validation scenes are training
# scenes that are held out; no test scene is looked at before the end.

# %%
training = experiments.exhibit_training(config)
run.save_figure(
    plots.exhibit_training(training),
    "training",
    training,
    caption="Loss on validation scenes, and how many of the best 50 entries are right, along the training.",
)

# %% [markdown]
# Depth here is perfect, as no sensor's is, so a net for depth has it easy; `62_grasp_robustness` takes that away.
#
# Before any depth or search: of the 50 best entries of a heatmap, how many are right? The class prior gets the true object
# cells for nothing.

# %%
heatmaps = experiments.table_heatmaps(config)
run.save_figure(
    plots.table_heatmaps(heatmaps),
    "heatmaps",
    heatmaps,
    caption="Shares of the best 50 entries that are right, on the test scenes.",
)

# %% [markdown]
# ## 2. The main table
#
# All methods start in what rises over the table's plane, found in the depth image (`depth_plane`); oracles read the labels.
# *labels as predictions* sees the whole scene, *oracle heatmap* what a perfect net could say. The collision filter drops what
# hits the observed cloud; methods that end in the search have passed it already, so it changes only those that do not.
#
# The class prior is what the training scenes tell about orientations without a look at the picture: every cell draws one class
# in proportion to how often it is right there, and frequent classes rank first. (Were the best classes offered in every cell, most
# of the grasps would suppress each other, and far fewer than the 50 that the metric looks at would be left in `handed_in`.)

# %%
main = run.save_table(
    experiments.table_main(config),
    "main_table",
    caption="AP, AP_0.8, AP_0.4 by split and method, 95 % over scenes, and counts per frame.",
)
run.save_figure(
    plots.table_main(main),
    "main",
    main,
    caption="AP by method and split on generated scenes; hollow with the collision filter, where it changes anything.",
)
columns = ["ap", "ap_08", "ap_04", "handed_in", "survivors", "judged", "collided", "empty", "held"]
main.set_index(["split", "method", "collision_filter"])[columns].round(1)

# %%
differences = run.save_table(
    experiments.table_differences(config),
    "differences_table",
    caption="AP of AVN-RGB less that of other methods, paired over scenes, for all seeds and each.",
)
run.save_figure(
    plots.table_differences(differences),
    "differences",
    differences,
    caption="AP of AVN-RGB less that of each other method, paired over the scenes of all splits.",
)
if TRAINED:
    record(findings.main_findings(main, differences))
differences[differences.net_seed == "all"].round(1)

# %% [markdown]
# ## 3. What does the net look at?
#
# The color image of another scene, with the scene's own depth, tells whether a net needs it. Noise in place of depth must not
# move a single entry of the heatmap of a net for color.

# %%
swaps = run.save_table(
    experiments.table_swaps(config),
    "swaps",
    caption="AP with swapped color, and the largest change of a heatmap's entry under swaps.",
)
if TRAINED:
    record(findings.swap_findings(swaps))
swaps.round(3)

# %% [markdown]
# ## 4. The search's choices
#
# The same heatmaps; only the preference among survivors changes.

# %%
preferences = experiments.exhibit_preferences(config)
run.save_figure(
    plots.exhibit_preferences(preferences),
    "preferences",
    preferences,
    caption="AP by the search's preference and grid; changes paired over scenes.",
)
margins = experiments.exhibit_margins(config)
run.save_figure(
    plots.exhibit_margins(margins),
    "margins",
    margins,
    caption="AP by clearance beyond the smallest opening that is free.",
)

# %% [markdown]
# A single view hides the far side of every object. The tightest opening touches what the camera could not see, so clearance
# pays.
#
# The released code multiplies heatmaps by the true object masks, which no robot has, and puts a seed at its cell's corner.

# %%
masks = experiments.exhibit_masks(config)
run.save_figure(
    plots.exhibit_masks(masks),
    "masks",
    masks,
    caption="AP by workspace mask and by where a seed lies in its cell.",
)

# %% [markdown]
# ## 5. Labels, loss, input
#
# Nets that differ in one thing each, trained alike.

# %%
choices = experiments.exhibit_training_choices(config)
run.save_figure(
    plots.exhibit_training_choices(choices),
    "training_choices",
    choices,
    caption="AP by labels, loss and input; changes paired over scenes.",
)
if TRAINED:
    record(findings.choice_findings(preferences, choices))

# %% [markdown]
# What would more classes bring? An oracle tells the upper bound without any training.

# %%
classes = experiments.exhibit_classes(config)
run.save_figure(
    plots.exhibit_classes(classes),
    "classes",
    classes,
    caption="AP of a perfect heatmap by number of views and angles.",
)

# %% [markdown]
# ## Exercises
#
# 1. Why does a perfect heatmap reach so much less than the labels themselves? What does the search not see?
# 2. Which baseline would you bet on in clutter, and which on a single object? Look at `collided` and `held`.
#
# ## Summary
#
# In the `cpu` profile the net for color beats every method without learning, and loses to the net for perfect depth and to a
# perfect heatmap; the figure of differences has the intervals. Generated scenes cannot tell whether this carries over to sensors and
# to objects of everyday life.
