"""What only a GPU can show: graphs, lanes on partitions, and the same tokens as Hugging Face there.

The kernel and partition tests next door run compiled here too.
"""

from __future__ import annotations

import pytest
import torch

from paperlab.serving import LLM, Limits, make_policy
from paperlab.serving.engine.resources import load_model
from paperlab.serving.engine.runner import Runner
from tests.serving.engine import tiny

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def tokens(folder, policy, dtype=torch.float32, **options):
    made = make_policy(policy, limits=Limits(16))
    llm = LLM(folder, made, block_size=16, kv_blocks=60, dtype=dtype, device="cuda", **options)
    return llm, [list(item.tokens) for item in llm.generate(tiny.prompts(), tiny.OUTPUT_LENGTHS)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("policy", ["vllm-like", "nexus", "fastserve-like", "vllm-pd-like"])
def test_tokens_equal_hugging_face(folders, policy, dtype):
    _, found = tokens(folders["llama"], policy, dtype)
    assert found == tiny.expected("llama")


@pytest.mark.parametrize("sharing", ["green", "unpartitioned"])
def test_lanes_share_the_device_as_the_log_says(folders, sharing):
    llm, found = tokens(folders["llama"], "nexus", sharing=sharing)
    assert found == tiny.expected("llama")
    assert llm.log.about["partition"] == ("green contexts" if sharing == "green" else "unpartitioned")
    assert llm.log.about["evidence"] == "measured-gpu"


def test_graphs_give_what_eager_decoding_gives(folders):
    model = load_model(folders["llama"], torch.float32, torch.device("cuda", 0), 0)
    llm, found = tokens(folders["llama"], "vllm-like")
    assert llm._runner._graphs is not None
    llm._runner = Runner(model.decoder, graphs=False)
    again = [list(item.tokens) for item in llm.generate(tiny.prompts(), tiny.OUTPUT_LENGTHS)]
    assert again == found
