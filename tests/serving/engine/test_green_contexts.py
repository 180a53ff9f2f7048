"""Partitions against a stand-in for the CUDA driver: sizes, order of calls, refusals; on a GPU, where programs run."""

from __future__ import annotations

from enum import IntEnum
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from paperlab.serving.cluster import Lane
from paperlab.serving.engine import green_contexts, streams
from paperlab.serving.engine.green_contexts import (
    Partition,
    PartitionError,
    check_disjoint,
    judge,
    layouts,
    make_partition,
    nearest_layout,
)

CUDA = torch.device("cuda", 0)
LANES = (Lane("prefill", "gpu0"), Lane("decode", "gpu0"))
on_gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


class Status(IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_INVALID_RESOURCE_CONFIGURATION = 914


class Driver:
    """Splits as the real driver does: whole groups of `step`, rounded up, from a device of `sms` multiprocessors."""

    CUdevResourceType = SimpleNamespace(CU_DEV_RESOURCE_TYPE_SM="sm")
    CUgreenCtxCreate_flags = SimpleNamespace(CU_GREEN_CTX_DEFAULT_STREAM=1)
    CUstream_flags = SimpleNamespace(CU_STREAM_NON_BLOCKING=1)

    def __init__(self, sms=132, step=8, failing=""):
        self.sms, self.step, self.failing, self.calls = sms, step, failing, []

    def __getattr__(self, name):
        if not name.startswith("cu"):
            raise AttributeError(name)

        def call(*arguments):
            self.calls.append((name, *arguments))
            if name == self.failing:
                return (Status.CUDA_ERROR_INVALID_RESOURCE_CONFIGURATION,)
            return (Status.CUDA_SUCCESS, *self.answer(name, arguments))

        return call

    def answer(self, name, arguments):
        if name == "cuDeviceGetDevResource":
            return [resource(range(self.sms))]
        if name == "cuDevSmResourceSplitByCount":
            groups, whole, flags, least = arguments
            assert (groups, flags) == (1, 0)
            count = -(-least // self.step) * self.step
            return [[resource(whole.ids[:count])], 1, resource(whole.ids[count:])]
        if name == "cuDevResourceGenerateDesc":
            return [arguments[0][0].ids]
        if name == "cuGreenCtxCreate":
            return [("context", arguments[0])]
        if name == "cuGreenCtxStreamCreate":
            return [len(self.calls)]
        return {"cuDeviceGet": ["device"]}.get(name, [])


def resource(ids):
    ids = tuple(ids)
    return SimpleNamespace(sm=SimpleNamespace(smCount=len(ids)), ids=ids)


@pytest.fixture(autouse=True)
def _streams_without_a_gpu(monkeypatch):
    if not torch.cuda.is_available():
        monkeypatch.setattr(torch.cuda, "ExternalStream", lambda pointer, device: (pointer, device))
        monkeypatch.setattr(torch.cuda, "Stream", lambda device: ("whole", object()))
        properties = SimpleNamespace(multi_processor_count=132, major=9, minor=0)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)


@pytest.mark.parametrize(("sms", "capability", "count", "first", "last"), [
    (132, "9.0", 15, 8, 120), (92, "8.9", 43, 4, 88), (108, "8.0", 51, 4, 104), (16, "9.0", 1, 8, 8),
])  # fmt: skip
def test_layouts(sms, capability, count, first, last):
    found = layouts(sms, capability)
    assert (len(found), found[0], found[-1]) == (count, first, last)


@given(share=st.floats(0, 1), sms=st.integers(16, 160))
def test_the_nearest_layout_is_the_nearest(share, sms):
    known = layouts(sms, "9.0")
    found = nearest_layout(known, sms, share)
    assert found in known
    assert all(abs(found - share * sms) <= abs(count - share * sms) for count in known)


def test_every_share_that_is_a_layout_is_met_exactly():
    known = layouts(132, "9.0")
    assert [nearest_layout(known, 132, count / 132) for count in known] == list(known)
    assert [132 - nearest_layout(known, 132, 1 - (132 - count) / 132) for count in known] == [132 - c for c in known]


@pytest.mark.skipif(torch.cuda.is_available(), reason="its streams are none")
def test_one_split_and_both_parts_are_used():
    driver = Driver()
    made = make_partition(48, CUDA, driver)
    assert made.counts == (48, 84)
    names = [call[0] for call in driver.calls]
    assert names.count("cuDevSmResourceSplitByCount") == 1
    used = [call[1] for call in driver.calls if call[0] == "cuGreenCtxCreate"]
    assert not set(used[0]) & set(used[1])
    assert set(used[0]) | set(used[1]) == set(range(132))
    contexts = [call[1] for call in driver.calls if call[0] == "cuGreenCtxStreamCreate"]
    assert [context[1] for context in contexts] == used
    assert len({stream[0] for stream in made.streams}) == 2
    made.close()
    assert [call[0] for call in driver.calls[-4:]] == ["cuStreamDestroy", "cuGreenCtxDestroy"] * 2


def test_sizes_that_the_driver_rounds_are_refused():
    with pytest.raises(PartitionError, match=r"asked for groups of \(50, 82\) multiprocessors, .* grants \(56, 76\)"):
        make_partition(50, CUDA, Driver())


@pytest.mark.skipif(torch.cuda.is_available(), reason="its streams are none")
@pytest.mark.parametrize("name", [
    "cuInit", "cuDeviceGet", "cuDeviceGetDevResource", "cuDevSmResourceSplitByCount", "cuDevResourceGenerateDesc",
    "cuGreenCtxCreate", "cuGreenCtxStreamCreate",
])  # fmt: skip
def test_a_call_that_fails_is_named_and_nothing_is_left(name):
    driver = Driver(failing=name)
    with pytest.raises(PartitionError, match=f"{name}: CUDA_ERROR_INVALID_RESOURCE_CONFIGURATION"):
        make_partition(48, CUDA, driver)
    names = [call[0] for call in driver.calls]
    assert names.count("cuGreenCtxDestroy") == names.count("cuGreenCtxCreate") - (name == "cuGreenCtxCreate")


def test_missing_packages_and_functions_are_named(monkeypatch):
    with pytest.raises(PartitionError, match=r"has no cuInit; green contexts need CUDA 12\.4"):
        make_partition(8, CUDA, SimpleNamespace())
    monkeypatch.setitem(__import__("sys").modules, "cuda", None)
    with pytest.raises(PartitionError, match="need the cuda-bindings package"):
        green_contexts.load_driver()
    with pytest.raises(PartitionError, match="12 multiprocessors do not make two groups of 8"):
        layouts(12, "9.0")


def test_where_programs_ran_decides():
    assert judge((2, 3), [frozenset({0, 1}), frozenset({2, 4})]) == ({0, 1}, {2, 4})
    with pytest.raises(PartitionError, match=r"\[1\] were used by both lanes"):
        judge((2, 3), [frozenset({0, 1}), frozenset({1, 4})])
    with pytest.raises(PartitionError, match="the second lane used 2 multiprocessors; it was granted 1"):
        judge((2, 1), [frozenset({0, 1}), frozenset({2, 4})])


@pytest.mark.skipif(torch.cuda.is_available(), reason="its streams are none")
class TestCudaStreams:
    @staticmethod
    def make(count, device):
        return Partition((count, 132 - count), (f"first {count}", f"second {132 - count}"), None, [])

    def test_all_layouts_are_made_ahead_and_shares_find_theirs(self):
        made = []
        lanes = streams.CudaStreams(LANES, CUDA, make=lambda *args: made.append(args[0]) or self.make(*args))
        assert made == list(layouts(132, "9.0"))
        assert lanes.partition == "green contexts"
        for count in made:
            assert lanes.stream("prefill", count / 132) == f"first {count}"
            assert lanes.stream("decode", (132 - count) / 132) == f"second {132 - count}"
        assert lanes.stream("prefill", 1.0)[0] == lanes.stream("decode", 1.0)[0] == "whole"
        assert lanes.stream("prefill", 1.0) != lanes.stream("decode", 1.0)

    def test_shares_are_rounded_by_half_a_step_at_most(self):
        lanes = streams.CudaStreams(LANES, CUDA, make=self.make)
        assert lanes.stream("prefill", 0.5) == "first 64"
        assert lanes.stream("decode", 0.5) == "second 68"
        with pytest.raises(PartitionError, match=r"lane prefill: share is 0\.010; the nearest possible is 0\.061"):
            lanes.stream("prefill", 0.01)
        with pytest.raises(PartitionError, match=r"lane decode: share is 0\.010; the nearest possible is 0\.091"):
            lanes.stream("decode", 0.01)

    def test_a_failure_is_an_error_unless_unpartitioned_is_asked_for(self):
        def fail(count, device):
            raise PartitionError("no")

        with pytest.raises(PartitionError, match="no"):
            streams.CudaStreams(LANES, CUDA, make=fail)
        lanes = streams.CudaStreams(LANES, CUDA, "unpartitioned", make=fail)
        assert lanes.partition == "unpartitioned"
        assert lanes.stream("prefill", 0.5)[0] == "whole"

    def test_lanes_of_their_own_device_need_no_partition(self):
        lanes = streams.CudaStreams((Lane("a", "gpu0"), Lane("b", "gpu1")), CUDA, make=None)
        assert lanes.partition == "none"

    def test_three_lanes_are_too_many(self):
        with pytest.raises(PartitionError, match="3 lanes share cuda:0; green contexts divide it in two"):
            streams.CudaStreams((*LANES, Lane("third", "gpu0")), CUDA, make=self.make)


class TestOnGpu:
    pytestmark = on_gpu

    def test_every_layout_runs_on_exactly_its_multiprocessors(self):
        properties = torch.cuda.get_device_properties(0)
        known = layouts(properties.multi_processor_count, f"{properties.major}.{properties.minor}")
        for count in known:
            made = make_partition(count, CUDA)
            first, second = check_disjoint(made)
            assert (len(first), len(second)) == made.counts
            made.close()
