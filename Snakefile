# The graph: notebook + library + data -> tables, figures, manifest -> report.
# ./run_all.sh calls it; by hand: snakemake --config profile=cpu --cores 2
import json
import os

from paperlab.lab.execute import EXECUTED, MANIFEST, folder_name
from paperlab.lab.inputs import notebook_inputs, notebook_settings, relative
from paperlab.lab.notebooks import notebook_names
from paperlab.lab.profiles import get_profile

PROFILE = get_profile(config.get("profile", "cpu"))
OUT = os.path.join(os.environ.get("PAPERLAB_RESULTS", "results"), folder_name(PROFILE))
SUMMARY = [name for name in notebook_names() if name.startswith("90")]
NOTEBOOKS = [name for name in notebook_names() if name not in SUMMARY]
# What fills two cores by itself has them alone: notebooks that compare times of processes side by side, and those that
# spread grids over processes, which two at a time would pass their time budgets.
MEASURED = {"11_nexus_experiments", "22_mist_runtime", "32_seesaw_engine"}
SPREAD = {
    "12_nexus_serving", "13_nexus_ablation", "31_seesaw_experiments", "51_aquant_experiments", "52_aquant_ablations",
    "61_grasp_experiments", "62_grasp_robustness", "91_across_systems",
}
WIDE = MEASURED | SPREAD if PROFILE.name != "smoke" else set()
SELECTED = notebook_names(str(config.get("only", "")))


def inputs(wildcards):
    """A summary notebook reads the findings of all others that are selected."""
    files = [relative(path) for path in notebook_inputs(wildcards.notebook)]
    if wildcards.notebook in SUMMARY:
        files += expand(f"{OUT}/{{name}}/{MANIFEST}", name=[name for name in NOTEBOOKS if name in SELECTED])
    return files


rule all:
    input:
        expand(f"{OUT}/{{name}}/{EXECUTED}", name=SELECTED),
    default_target: True


# executed.ipynb is never committed, so a fresh clone runs everything and `git status` then shows what differs.
rule notebook:
    input:
        inputs,
    output:
        executed=f"{OUT}/{{notebook}}/{EXECUTED}",
        manifest=f"{OUT}/{{notebook}}/{MANIFEST}",
    params:
        settings=lambda wildcards: json.dumps(notebook_settings(wildcards.notebook, PROFILE.name), sort_keys=True),
    threads: lambda wildcards: 2 if wildcards.notebook in WIDE else PROFILE.threads
    resources:
        mem_mb=int(PROFILE.memory_GiB * 1024),
        runtime=int(PROFILE.notebook_minutes) + 1,
        gpu=int(PROFILE.device == "cuda"),
    shell:
        "paperlab run {wildcards.notebook} --profile {PROFILE.name}"
