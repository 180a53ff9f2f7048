"""AQuant: adaptive activation rounding for post-training quantization (arXiv 2208.11945).

Only the abstracts of the paper's three versions could be read, so this is an independent re-derivation, with the whole
family it competes with: nearest rounding, AdaRound, BRECQ and QDrop. From the paper's parts to files:

    minimal error, zero bias (theorems)     theory.py
    the adaptive border                     border.py
    quantized weights and activations       quantizer.py, layers.py
    one frame for all methods               frame/
    the border without gradient descent     closed_form.py
    rounding chosen at run time             oracle.py
    networks, tasks, ImageNet, checkpoints  networks/, data/
    thresholds, integer inference, kernels  deploy/
    what only a GPU shows, in one call      gpu_evidence.py, gpu/
    tables and figures                      experiments.py, plots.py, from studies/; sizes in config.py
    the ablations' tables and figures       ablation_experiments.py, ablation_plots.py
    the notebook's exercises, panel         exercises.py, what_if.py
"""

from paperlab.aquant.border import Border, BorderSpec
from paperlab.aquant.config import Config
from paperlab.aquant.deploy.export import export_thresholds, load_program, load_state, save_state
from paperlab.aquant.frame.quantize import QuantizedModel, quantize
from paperlab.aquant.frame.recipe import Recipe

__all__ = [
    "Border",
    "BorderSpec",
    "Config",
    "QuantizedModel",
    "Recipe",
    "export_thresholds",
    "load_program",
    "load_state",
    "quantize",
    "save_state",
]
