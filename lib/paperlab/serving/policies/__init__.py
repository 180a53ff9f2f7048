"""Baseline schedulers, each after a published system's design; importing this package registers them.

vllm-like, spf-chunked       chunked.py        one lane, mixed batches
sglang-like, sglang-mixed    prefill_first.py  one lane, prompts first
fastserve-like               fastserve.py      one lane and swapping; its queue in feedback_queue.py
vllm-pd-like                 disaggregated.py  two devices and a link
"""

from paperlab.serving.policies import chunked, disaggregated, fastserve, prefill_first

__all__ = ["chunked", "disaggregated", "fastserve", "prefill_first"]
