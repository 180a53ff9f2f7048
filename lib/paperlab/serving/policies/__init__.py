"""Baseline schedulers, each after a published system's design; importing this package registers them."""

from paperlab.serving.policies import chunked as chunked
