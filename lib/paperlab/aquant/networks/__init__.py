"""The networks: definitions by name, and their counted parameters and multiply-accumulates."""

from paperlab.aquant.networks.counts import Layer, layers, macs, parameters
from paperlab.aquant.networks.registry import NETWORKS, SMALL, build

__all__ = ["NETWORKS", "SMALL", "Layer", "build", "layers", "macs", "parameters"]
