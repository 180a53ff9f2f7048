# %% [markdown]
# # RGBD-Grasp: orientation from color, distance from depth
#
# *RGB Matters: Learning 7-DoF Grasp Poses on Monocular RGBD Images*, Gou, Fang, Zhu, Xu, Wang and Lu, ICRA 2021,
# arXiv 2103.02184v1.
#
# Of the paper the abstract could be read, two quoted paragraphs, and the released code. The data set is not here: scenes are
# generated, by physics and a ray caster, and written in its layout. After this notebook you can
#
# 1. say what the seven numbers of a grasp are, and turn a pixel with depth into one;
# 2. label an image with 360 heatmaps, and say why nearly every entry is negative;
# 3. search an opening and a distance for an oriented seed, and judge the result by the data set's metric.
#
# Cost on 2 cores: `smoke` half a minute, `cpu` about 4 minutes the first time (scenes and one net, then from the cache),
# 2 GiB. Hardware: any CPU. Workshop: 60 minutes with the exercises.

# %% tags=["parameters"]
profile: str = "smoke"  # how much to run: smoke, cpu or gpu
seed: int = 0  # seeds every generator

# %% tags=["setup"]
import numpy as np
from matplotlib import pyplot as plt

from paperlab import rgbd_grasp
from paperlab.lab import start
from paperlab.lab.panel import panel
from paperlab.rgbd_grasp import exercises, experiments, findings, pictures, plots, sketches

# %%
run = start("60_grasp_idea", profile, seed)
config = run.config("rgbd_grasp", rgbd_grasp.Config)


def record(found, evidence):
    """Record findings and print their verdicts."""
    for item in found:
        verdict = run.record_claim(
            item.claim_id, item.value, evidence=evidence, artifact=item.artifact, note=item.note
        )
        print(f"{item.claim_id}: {verdict}", f"({item.note})" if item.note else "")


# %% [markdown]
# ## 1. What a grasp is
#
# A parallel jaw comes along its axis x, closes along y, and holds at depth `d` beyond the grasp point. Rotation (3 numbers),
# position (3) and width (1) make seven degrees of freedom. The boxes below are all that the search knows of the gripper.

# %%
run.save_figure(
    sketches.gripper(),
    "gripper",
    experiments.table_objects(config).head(1)[["evidence"]].assign(width_m=0.06, depth_m=0.04),
    caption="The gripper of the search: boxes that must be free, and one that must hold something.",
)

# %% [markdown]
# ### Exercise 1: from a pixel to a point
#
# A camera with intrinsics `K` sees a point at pixel (u, v), at depth z along its axis. Where is it?


# %% tags=["solution"]
def back_project(u, v, z, K):
    """Return the point (3,) in the camera's frame that pixel (u, v) sees at depth z; K is (3, 3)."""
    return np.array([(u - K[0, 2]) * z / K[0, 0], (v - K[1, 2]) * z / K[1, 1], z])


# %% tags=["check"]
exercises.check_back_project(back_project)
K = np.array([[300.0, 0, 160], [0, 300.0, 120], [0, 0, 1]])
print("right:", back_project(190, 120, 0.5, K), "m")

# %% [markdown]
# ## 2. Scenes
#
# Twelve objects to learn from, eight like them, eight of other shapes. They fall onto a table; color, texture and light are
# drawn anew for every scene, so that no object is known by its color. The first run makes the scenes.

# %%
from paperlab.rgbd_grasp.studies import material

data = material.generate(config)
view = data.view(100, 0)
shown = [("seen", 100), ("similar", 130), ("novel", 160)]
objects = experiments.table_objects(config)
run.save_figure(
    sketches.gallery([data.view(scene, 0) for _, scene in shown], [name for name, _ in shown]),
    "gallery",
    objects,
    caption="Generated scenes of the three splits, color and depth; the table lists all objects.",
)
objects.groupby("family", sort=False).name.agg(", ".join).to_frame()

# %% [markdown]
# Every scene has labels: grasps that hold by force closure and collide with nothing. Here are 25 of one view.

# %%
labels = data.antipodal(view, 0.2)
some = labels[np.random.default_rng(seed).permutation(len(labels))[:25]]
seen = view.depth_m > 0
cloud = view.camera.cloud(view.depth_m)[seen]
run.save_figure(
    pictures.scene_3d(cloud, view.rgb[seen], some, view.table_from_camera, "25 of the labels"),
    "labels_3d",
    objects[objects.object_id.isin(view.object_ids)],
    caption="Labeled grasps of a view in space, colored by score.",
)

# %% [markdown]
# ## 3. Orientation as a class
#
# 60 directions of approach times 6 angles about them make 360 classes. They cover the half sphere away from the camera.

# %%
anchors = rgbd_grasp.avn_anchors()
run.save_figure(
    sketches.views_of(anchors, labels.rotation_matrices[:, :, 0]),
    "views",
    experiments.table_architecture(config),
    caption="The 60 directions of approach, and those of a view's labels.",
)

# %% [markdown]
# ### Exercise 2: the same grasp
#
# Half a turn about the approach swaps the jaws: the grasp is the same. How far apart are two grasps?


# %% tags=["solution"]
def angle(a, b):
    """Return the degrees between two grasps' rotations (3, 3), the jaws being interchangeable."""
    swapped = a @ np.diag([1.0, -1.0, -1.0])
    cosines = [(np.trace(x.T @ b) - 1) / 2 for x in (a, swapped)]
    return np.rad2deg(np.arccos(np.clip(max(cosines), -1, 1)))


# %% tags=["check"]
exercises.check_same_grasp(angle)
print(
    "right: a grasp and its twin are", angle(np.eye(3), np.diag([1.0, -1.0, -1.0])), "degrees apart"
)

# %% [markdown]
# The released label code compares with the classes as they stand, which span half a turn only. Then half of all orientations
# land in a class of another view.

# %%
orientations = experiments.exhibit_orientations(config)
run.save_figure(
    plots.exhibit_orientations(orientations),
    "orientations",
    orientations,
    caption="Angle between random orientations and their class: share of orientations below each angle.",
)
record(findings.orientation_findings(orientations), "simulated")
orientations.groupby(["views", "angles", "symmetry"])[["error_deg", "right_view"]].mean().round(2)

# %% [markdown]
# ## 4. The Angle-View Heatmap
#
# The image is divided into cells. An entry (class, row, column) is positive if a labeled grasp of that class has its grasp
# point in that cell. That is a classification per cell, and hardly an entry is positive.

# %%
counts = run.save_table(
    experiments.table_labels(config),
    "labels",
    caption="Positive entries per frame: derived from the paper's totals, and counted on generated frames.",
)
run.save_figure(
    plots.table_labels(counts),
    "labels_figure",
    counts,
    caption="Share of entries that are positive: gray derived from the paper's totals, blue counted on generated frames.",
)
record(findings.label_findings(), "analytic")

# %% [markdown]
# ## 5. The net
#
# An encoder and three upsamplings; the last convolution has a channel for each class. The paper's has 55 million parameters;
# the small one learns on two cores.

# %%
architecture = run.save_table(
    experiments.table_architecture(config),
    "architecture",
    caption="Input, grid, classes and parameters of three Angle-View Nets.",
)
record(findings.architecture_findings(architecture), "analytic")
architecture.round(2)

# %%
spec = material.net_spec(config, seed=config.seeds[0])
material.train(config, [spec])
avn = material.trained_net(spec).avn
prediction = rgbd_grasp.predict(view.rgb, view.depth_mm, view.camera.matrix, avn=avn)
workspace = rgbd_grasp.find_workspace(
    prediction.mask, avn.config.grid, depth_m=view.depth_m, camera=view.camera
)
target = rgbd_grasp.heatmap_labels(labels, view.camera, avn.anchors, avn.config.grid)
run.save_figure(
    pictures.avh_panel(view.rgb, workspace.cells, prediction.heatmap, target, prediction.mask),
    "heatmap",
    material.trained_net(spec).history.assign(evidence="measured-cpu"),
    caption="Image, workspace, predicted and labeled heatmap of a scene that the net has not seen.",
)

# %% [markdown]
# Depth was not used for this. It comes in now: the cell's depth gives the grasp point.
#
# ## 6. Fast Analytic Searching
#
# A *seed* is one of the best entries of the heatmap: an orientation and a grasp point. What is missing is how wide to open and
# how far to go. Ten openings and five distances are tried, and whatever touches the
# observed cloud is out.
#
# ### Exercise 3: a collision


# %% tags=["solution"]
def collides(points, width, depth):
    """Return whether a finger (1 cm thick, 6 cm long up to x = depth, 2 cm high) holds one of the points (P, 3)."""
    x, y, z = points.T
    along = (x > depth - 0.06) & (x < depth) & (np.abs(z) < 0.01)
    across = (np.abs(y) > width / 2) & (np.abs(y) < width / 2 + 0.01)
    return bool((along & across).any())


# %% tags=["check"]
exercises.check_collides(collides)
print("right: a point 3.5 cm aside, opening 6 cm:", collides(np.array([[0, 0.035, 0]]), 0.06, 0.04))

# %% [markdown]
# ### Exercise 4: which survivor
#
# The released code prefers the farthest position, and there the widest opening. A third party reports the smallest from the
# paper. `61_grasp_experiments` measures what this is worth.


# %% tags=["solution"]
def choose(free, distances, widths):
    """Return (row, column) of the free candidate (D, W) with the smallest distance, then the largest width; or None."""
    rows, columns = np.nonzero(free)
    if not len(rows):
        return None
    best = max(range(len(rows)), key=lambda k: (-distances[rows[k]], widths[columns[k]]))
    return int(rows[best]), int(columns[best])


# %% tags=["check"]
exercises.check_choose(choose)
free = np.array([[False, True, True], [True, True, True]])
print("right:", choose(free, np.array([-0.02, 0.0]), np.array([0.02, 0.04, 0.06])))

# %%
from paperlab.rgbd_grasp.search.pipeline import observed_cloud

seeds = rgbd_grasp.decode(
    prediction.heatmap, view.depth_m, view.camera, avn.anchors, mask=workspace.cells
)
found = rgbd_grasp.search_grasps(seeds, observed_cloud(view.depth_m, view.camera, 0.005))
run.save_figure(
    pictures.fas_candidates(found, rgbd_grasp.Search()),
    "candidates",
    material.trained_net(spec).history.tail(1).assign(evidence="measured-cpu", **found.counts),
    caption="Verdicts on the 50 candidates of four seeds, numbered by score from 0; the chosen one is framed.",
)
found.counts

# %% [markdown]
# ### What if?
#
# A box from above with a neighbor beside it. Before you move a slider: which openings will be left?

# %%
from paperlab.rgbd_grasp.what_if import draw_candidates

panel(draw_candidates, side_cm=[4, 6, 8], gap_cm=[2, 1, 4])
plt.show()

# %% [markdown]
# ## 7. One call
#
# `predict` takes color, depth and intrinsics, also of your own camera, and says which workspace it searched.

# %%
grasps = prediction.grasps[:10]
run.save_figure(
    pictures.scene_3d(cloud, view.rgb[seen], grasps, view.table_from_camera, "Best grasps"),
    "grasps_3d",
    material.trained_net(spec)
    .history.tail(1)
    .assign(evidence="measured-cpu", grasps=len(prediction.grasps), mask=prediction.mask),
    caption="The best grasps of the trained net and the search in space.",
)
print(prediction.summary)

# %% [markdown]
# ## 8. The metric
#
# The evaluator knows the objects. It keeps ten grasps of each, throws out what collides, and asks at which friction the two
# contacts would hold. AP is the mean precision of the best k grasps, k from 1 to 50, over six friction coefficients.
#
# ### Exercise 5: AP


# %% tags=["solution"]
def ap(frictions):
    """Return AP in percent from the smallest friction (M,) that holds each grasp, best grasp first, -1 for none."""
    levels = np.array([0.2, 0.4, 0.6, 0.8, 1.0, 1.2])
    held = np.zeros((50, 6))
    best = np.asarray(frictions, dtype=float)[:50, None]
    held[: len(best)] = (best > 0) & (best <= levels)
    return 100 * (held.cumsum(axis=0) / np.arange(1, 51)[:, None]).mean()


# %% tags=["check"]
exercises.check_ap(ap)
print("right: ten perfect grasps and nothing else give", round(ap(np.full(10, 0.2)), 1))

# %% [markdown]
# So a scene with one object cannot give more than 51.4, whatever the method. And force closure is a cone: jaws that close beside
# the middle of a ball need more friction. Signed distances, which the evaluator uses, are a step off near the edge of a cone.

# %%
ceilings = experiments.table_ceilings(config)
run.save_figure(
    plots.table_ceilings(ceilings),
    "ceilings",
    ceilings,
    caption="AP of a perfect detector by number of objects.",
)
record(findings.ceiling_findings(ceilings), "analytic")
run.save_table(
    experiments.table_force_closure(config),
    "force_closure",
    caption="Smallest friction that holds a ball of 3 cm radius beside its center.",
).round(2)

# %% [markdown]
# ## 9. A pick
#
# Ranked grasps in a physics engine: a hand of the evaluator's boxes, friction 0.5, nothing welded. Each starts from the same
# pile; the film shows the first that lifts, and its caption says how many before it did not. If none of the net's best ten
# does, labels are tried. How often the first one does is measured in `62_grasp_robustness`.

# %%
from paperlab.rgbd_grasp.physics import draw_film, film_pick, first_that_lifts
from paperlab.rgbd_grasp.scenes import make_scene, object_ids

pile = make_scene(100, material.SEED, object_ids("seen"), material.SIZES.objects)
rankings = {"the net's ranking": prediction.grasps, "the labels' ranking": labels.sort_by_score()}
for source, ranking in rankings.items():
    tried = ranking[:10].transform(view.table_from_camera)
    row = first_that_lifts(pile, tried)
    if row is not None:
        break
    print(f"of the best {len(tried)} of {source} none lifts")
film, outcome = film_pick(pile, tried[row or 0])
ends = "lifted" if outcome.success else "not lifted"
if outcome.success:
    shown_pick = f"grasp {row + 1} of {source}, the first that lifts ({row} before it did not)"
else:
    shown_pick = f"the best grasp of {source}: neither it nor the next lifts"
phases = [name for name, _ in film[:-1]] + [ends]
run.save_figure(
    draw_film(film, [f"{number}  {name}" for number, name in enumerate(phases, start=1)]),
    "film",
    architecture.head(1)[["net"]].assign(
        evidence="simulated", success=outcome.success, ranking=source, failed_before=row
    ),
    caption=f"A pick carried out in MuJoCo: {shown_pick}.",
)
print(shown_pick)

# %% [markdown]
# ## Checked against the paper, and where next
#
# Sizes, classes, grid and parameters are the paper's and its code's. Whether color beats depth is measured in
# `61_grasp_experiments`, on generated scenes; noise and picks in `62_grasp_robustness`. To go on by yourself: pass
# `settings=` to `predict` with another preference; give it an image of your own; point `rgbd_grasp.GraspNet` at the data set.
#
# ## Summary
#
# | step | looks at | gives |
# |---|---|---|
# | Angle-View Net | color | where in the image, which of 360 orientations |
# | back-projection | depth of the cell | the grasp point |
# | Fast Analytic Searching | cloud | opening and distance that touch nothing |
# | ranking | the heatmap's score | best first |
