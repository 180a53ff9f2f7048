"""Across systems: what one paper's system does to another's, on this repository's own implementations.

The one package that may import several systems; only notebooks import it. Its claims are ours
(`data/claims/across.csv`), written down before the sweeps that judge them.

    Tempo in Mist                     tempo_block.py, operators.py; plans in training.py
    Nexus and Seesaw, one physics     one_physics.py; one trace, equal GPUs in fleet.py
    bits of weights and cache         bits.py
    tables and figures                experiments.py, plots.py; sizes in config.py
    what they say to each claim       findings.py
    the notebook's panels             what_if.py
"""

from paperlab.across.config import Config

__all__ = ["Config"]
