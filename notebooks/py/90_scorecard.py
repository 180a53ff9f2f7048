# %% [markdown]
# # The scorecard
#
# Every claim of every paper, what was found for it, and the verdict. Nothing is written by hand here: claims come from
# `data/claims/`, findings from the notebooks that ran before this one, verdicts from comparing the two.
#
# After it you can
#
# 1. tell which claims came out, which did not, and which nobody here could test;
# 2. see what kind of evidence each verdict rests on;
# 3. find the notebook and the table behind a verdict.
#
# Cost: about 10 s in every profile, on any CPU.

# %% tags=["parameters"]
profile: str = "smoke"  # whose results to judge: smoke, cpu or gpu
seed: int = 0  # nothing here is random; every notebook has it

# %%
import pandas as pd
import seaborn as sns
from IPython.display import Markdown, display
from matplotlib import pyplot as plt

from paperlab.lab import scorecard, start
from paperlab.lab.book import TITLES
from paperlab.lab.claims import Verdict

run = start("90_scorecard", profile, seed)
judgments = scorecard.judge_all(scorecard.scorecard_folders(profile))

# %% [markdown]
# ## Counts
#
# *The paper* is what the paper itself says; *related* is what its released code and README say, and what follows from its
# method and is checked here. All claims of *across* are ours.

# %%
summary = scorecard.summary(judgments)
run.save_table(
    summary,
    "summary",
    evidence="analytic",
    caption="How many claims of each paper got each verdict.",
)

# %%
colorblind = sns.color_palette("colorblind")
VERDICT_COLORS = dict(
    zip(map(str, Verdict), [colorblind[i] for i in (2, 8, 3, 9, 7, 5)], strict=True)
)
shown = summary[summary.claims > 0]
labels = (
    shown.system.map(TITLES) + ", " + shown.origin.map({"paper": "the paper", "related": "related"})
)
counts = shown.set_index(labels.rename("claims of"))[[str(verdict) for verdict in Verdict]]
counts = counts.loc[:, counts.sum() > 0]
figure, axes = plt.subplots(figsize=(7, 1.2 + 0.5 * len(counts)), layout="constrained")
counts.plot.barh(stacked=True, ax=axes, color=[VERDICT_COLORS[name] for name in counts], width=0.6)
axes.set(title="Verdicts by paper", xlabel="claims", ylabel="")
axes.invert_yaxis()
axes.grid(visible=False, axis="y")
axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
run.save_figure(
    figure,
    "summary_figure",
    counts.reset_index(),
    evidence="analytic",
    caption="Claims by verdict, by system, what the paper says apart from what is related to it.",
)

# %% [markdown]
# ## What did not come out
#
# Claims whose verdict is *direction* or *contradicted*, with both values and what the difference is sensitive to.

# %%
misses = scorecard.deviations(judgments)
if len(misses):
    run.save_table(
        misses,
        "deviations",
        evidence="analytic",
        caption="Claims that did not come out as stated, and why.",
    )
for system, rows in misses.groupby("system"):
    lines = [
        f"* **{row.claim_id}** ({row.verdict}): {row.statement}. Paper: {row.paper}; here: {row.ours}. {row.reason}"
        for row in rows.itertuples()
    ]
    display(Markdown(f"### {system}\n\n" + "\n".join(lines)))

# %% [markdown]
# ## Every claim
#
# `ours` is shown with its own evidence class; `decided_by` is the class that can decide. Where a claim needs a GPU and
# none has run, a weaker finding stands beside `pending-gpu` but does not decide. `command` records the finding again; it
# takes about `seconds` on `hardware`, together with all else that its notebook shows.

# %%
table = scorecard.details(judgments)
assert len(table) == sum(map(len, judgments.values()))
run.save_table(
    table,
    "claims",
    evidence="analytic",
    timed=True,
    caption="Each claim, what was found, the verdict, and what it takes to see it.",
)
with pd.option_context("display.max_colwidth", None, "display.max_rows", None):
    display(table.drop(columns=["source", "system"]).style.hide(axis="index"))

# %% [markdown]
# ## How to read a verdict
#
# | verdict | meaning |
# |---|---|
# | reproduced | our number satisfies the claim within the ledger's tolerance |
# | direction | the sign or order holds, the magnitude does not |
# | contradicted | it does not hold here; the reason says what it is sensitive to |
# | pending-gpu | only a measurement on a CUDA device can decide, and none has been made |
# | not-testable | nothing here can decide, for the reason given |
# | missing | no finding is recorded: its notebook has not run in this profile |
