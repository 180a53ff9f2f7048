"""Models small enough for tests, and plans on them."""

from __future__ import annotations

from paperlab.mist.models import falcon, gpt, llama

GOLDEN = gpt("1.3b", seq_len=2048, attention="math")
TINY = {"hidden": 64, "layers": 4, "heads": 4, "vocab": 96, "seq_len": 16}
FAMILIES = {"gpt": gpt, "llama": llama, "falcon": falcon}


def tiny(family: str = "gpt", **changes: object):
    return FAMILIES[family](**{**TINY, **changes})
