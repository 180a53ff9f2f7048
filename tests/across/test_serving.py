import pytest

from paperlab.across import bits, fleet, one_physics
from paperlab.across.fleet import NEXUS, SEESAW, STATIC, Scene
from paperlab.seesaw.hardware import node
from paperlab.serving.cost import ModelCost
from paperlab.serving.request import Request
from paperlab.serving.work import StepShape
from paperlab.transformer import preset

SCENE = Scene("llama3.1-8b", "A10", 4, "200/6")
PREFILL = StepShape(1024, 0, 1024 * 1025 // 2, logits=1)
DECODE = StepShape(0, 0, 0, 32, 32 * 1024, 32)


def test_both_price_lists_agree_on_unpartitioned_iterations():
    table = one_physics.price_table(["llama3.1-8b"], ["A10", "L4"], [1, 4])
    assert table.difference.abs().max() < 1e-9
    assert table.constants_difference.min() < -0.05  # what constants cannot say makes prompts too cheap


def test_lanes_share_the_link():
    cost, on = ModelCost(preset("llama3.1-8b"), "fp16", 4), node("A10")
    meet, apart = one_physics.NodeDevice(cost, on), one_physics.NodeDevice(cost, on, link_contention=0.0)
    running = [(meet.load(PREFILL), 0.5), (meet.load(DECODE), 0.5)]
    assert all(a > b for a, b in zip(meet.durations(running), apart.durations(running), strict=True))
    assert meet.durations(running[:1]) == apart.durations(running[:1])


def test_dealing_gives_each_request_once_to_the_least_laden():
    requests = [Request(index, 0.0, tokens, 1) for index, tokens in enumerate((100, 10, 10, 10, 80, 5))]
    parts = fleet.deal(requests, 2)
    assert sorted(r.request_id for part in parts for r in part) == list(range(6))
    assert [r.request_id for r in parts[0]] == [0, 5]


def test_every_system_serves_the_whole_trace():
    work = SCENE.trace(None, 6, 0)
    servers = [*fleet.replicas(SCENE, NEXUS), fleet.best_layout(SCENE, SEESAW), fleet.best_layout(SCENE, STATIC)]
    assert {server.system for server in servers} == {NEXUS, SEESAW, STATIC}
    for server in servers:
        found = server.serve(work).summary().iloc[0]
        assert found.finished == 6
        assert found.output_tokens_per_s * found.makespan_s == pytest.approx(36)


def test_replicas_of_one_gpu_are_as_fast_as_their_slowest():
    work = SCENE.trace(None, 4, 0)
    four = fleet.replicas(SCENE, NEXUS)[0].serve(work)
    one = fleet.replicas(Scene("llama3.1-8b", "A10", 1, "200/6"), NEXUS)[0].serve(SCENE.trace(None, 1, 0))
    assert four.end_s == pytest.approx(one.end_s)


def test_fewer_bits_leave_room_and_read_less():
    table = bits.capacity([bits.Server(), bits.Server(w_bits=4), bits.Server(kv_bits=8)], 1024)
    plain, light, cached = table.kv_tokens
    assert light > plain
    assert cached == pytest.approx(2 * plain, rel=1e-3)
    assert bits.Server().deployment.kv_blocks == bits.Server(w_bits=16, kv_bits=16).deployment.kv_blocks
    with pytest.raises(ValueError, match="w_bits is 0"):
        bits.Server(w_bits=0)


def test_int8_arithmetic_speeds_prompts_up_and_decoding_hardly():
    def seconds(arithmetic, step):
        device = bits.Server(w_bits=8, kv_bits=8, arithmetic=arithmetic).deployment.device_model
        return device.seconds(device.load(step))

    assert seconds("int8", PREFILL) < 0.6 * seconds("fp16", PREFILL)
    assert seconds("int8", DECODE) > 0.95 * seconds("fp16", DECODE)
