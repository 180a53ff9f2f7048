"""Nexus: prefill and decode side by side on one GPU, split by forecast (arXiv 2507.06608).

From the paper's parts to files:

    latency of a phase at a share (§4.1.1)           cost_model.py
    saturation curves (§3.2), how they are fitted    belief.py, saturation.py
    objectives and greedy search (§4.1.2-3, Alg. 1)  search.py
    splits that hardware can make (§4.2)             layouts.py
    who sets the split, when (§4.2)                  control.py
    order of prompts and decodes (§4.3, Alg. 2)      scheduler.py
    two lanes, switching (Fig. 8), ablations         policy.py
    constants (§5) and what the paper leaves open    settings.py
    tables and figures                               experiments.py, from studies
    their drawings                                   plots.py, schematic_plots.py, serving_plots.py
    measured on a GPU, read back                     gpu_evidence.py, from gpu; recorded.py
    how much of them a profile runs                  config.py
    the notebook's exercises, panel                  exercises.py, what_if.py
"""

from paperlab.nexus.belief import Belief, Curve, published_belief
from paperlab.nexus.config import Config
from paperlab.nexus.cost_model import CoRun, CostModel
from paperlab.nexus.layouts import Layout, layouts
from paperlab.nexus.policy import ControlRecord, Nexus
from paperlab.nexus.saturation import Fit, Point, fit, profile
from paperlab.nexus.search import Found, search
from paperlab.nexus.settings import Settings

__all__ = [
    "Belief",
    "CoRun",
    "Config",
    "ControlRecord",
    "CostModel",
    "Curve",
    "Fit",
    "Found",
    "Layout",
    "Nexus",
    "Point",
    "Settings",
    "fit",
    "layouts",
    "profile",
    "published_belief",
    "search",
]
