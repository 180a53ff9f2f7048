"""Bad input and dead ranks: one clear error, soon, and nothing left behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import torch

from paperlab.seesaw.engine import EngineOptions, RankError, RankPool, ReshardingEngine
from paperlab.seesaw.engine.shared import SharedBuffer, map_shared
from paperlab.serving.policy import make_policy
from tests.seesaw.engine.oracle import TOKEN_BYTES, decoder, engine, prompts, tiers
from tests.seesaw.small import TINY

SHARED = Path("/dev/shm")


def shared_memory():
    """Return what has a name in shared memory; semaphores, of which the engine has none, come and go."""
    return sorted(path for path in SHARED.iterdir() if not path.name.startswith("sem.")) if SHARED.exists() else []


@pytest.mark.parametrize(
    ("layouts", "message"),
    [
        (("P2", "T4"), "prefill is P2, decode T4; DP and the number of ranks must be the same"),
        (("D2", "T2"), "prefill is D2, decode T2; DP"),
        (("T3", "P3"), "tp is 3; it must divide the 8 heads"),
        (("P8", "T8"), "pp is 8; tiny has 5 layers"),
        (("P0", "T2"), "write D, T and P"),
        (("P4", "T4"), "pool has 2 ranks"),
    ],
)
def test_impossible_layouts(two, layouts, message):
    with pytest.raises(ValueError, match=message):
        engine(two, *layouts)
    assert two.engine is None


def test_tiers_smaller_than_a_block(two):
    for name in ("host_kv_bytes", "device_kv_bytes"):
        with pytest.raises(ValueError, match=f"{name} is 100; one block of 16 tokens takes {16 * TOKEN_BYTES} bytes"):
            engine(two, "P2", "T2", **{name: 100})
    assert two.engine is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block_size": 0}, "block_size is 0; it must be positive"),
        ({"host_link_Bps": -1.0}, "host_link_Bps is -1.0"),
        ({"copies": "async"}, "copies is 'async'; use overlapped, blocking, none"),
        ({"dtype": torch.float64}, "dtype is torch.float64; use float32"),
        ({"host_bytes": 1}, "host_bytes"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        EngineOptions(**options)


def test_policies_that_do_not_fit(two):
    with pytest.raises(ValueError, match="policy is 'static-chunked'; prefill and decode must be one layout"):
        engine(two, "P2", "T2", policy="static-chunked")
    with pytest.raises(ValueError, match="unknown policy 'sesaw'"):
        engine(two, "P2", "T2", policy="sesaw")
    with engine(two, "T2", "T2", policy=make_policy("static-prefill-first", layout="T2")) as made:
        assert len(made.generate([[1, 2]], 2)[0].tokens) == 2


def test_a_pool_of_another_device(two):
    with pytest.raises(ValueError, match="device is 'cuda'; the pool's ranks run on cpu"):
        engine(two, "P2", "T2", device="cuda")


def test_prompts_that_are_none(two):
    with engine(two, "P2", "T2", copies="none") as made:
        with pytest.raises(ValueError, match="prompt 1 has token 96; ids go from 0 to 95"):
            made.generate([[1], [96]], 1)
        with pytest.raises(ValueError, match="copies='none'"):
            made.generate([[1]], 2)
        assert len(made.generate([[1]], 1)[0].tokens) == 1


def test_a_prompt_larger_than_a_tier_is_refused_alone(two):
    for options in (tiers(2, 40), tiers(40, 2)):
        with engine(two, "P2", "T2", **options) as made:
            done = made.generate(prompts((5, 40)), 4)
        assert [item.finish_reason for item in done] == ["length", "refused"]
        assert done[1].detail == "prompt and output need 44 tokens; at most 32 fit"


def test_a_pool_serves_one_engine_at_a_time(two):
    with engine(two, "P2", "T2"), pytest.raises(ValueError, match="in use: True"):
        engine(two, "P2", "T2")
    with engine(two, "P2", "T2") as made:
        pass
    with pytest.raises(RankError, match="the engine is closed"):
        made.generate([[1]], 1)


def test_shared_memory_has_no_name_and_goes_with_its_owner():
    before = shared_memory()
    buffer = SharedBuffer(64)
    other = map_shared(buffer.path, 64)
    buffer.tensor[3] = 7
    assert other[3] == 7
    if sys.platform == "linux":
        assert shared_memory() == before
    buffer.close()
    buffer.close()
    assert not Path(buffer.path).exists()
    with pytest.raises(ValueError, match="nbytes is 0"):
        SharedBuffer(0)


def memory_files():
    """Return what this process keeps open of the engine's memory."""
    links = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            links.append(os.readlink(entry))
        except OSError:
            continue
    return [link for link in links if "memfd:seesaw" in link]


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_a_rank_killed_in_the_middle_of_a_phase(phase):
    shared, held = shared_memory(), memory_files()
    with RankPool(2) as pool:
        pids = [process.pid for process in pool.processes]
        link = 1e3 if phase == "prefill" else None  # the copies of a prompt would take minutes
        with engine(pool, "P2", "T2", host_link_Bps=link, host_blocks=40) as made:
            threading.Timer(1.0, os.kill, (pids[1], signal.SIGKILL)).start()
            began_s = time.monotonic()
            with pytest.raises(RankError, match=r"rank 1 died with exit code -9|rank 0"):
                made.generate(prompts((40,) * 6), 400)
            assert time.monotonic() - began_s < 30
            with pytest.raises(RankError, match="closed"):
                made.generate([[1]], 1)
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert shared_memory() == shared
    assert memory_files() == held


def test_a_rank_that_raises_says_why():
    with RankPool(1) as pool:
        pool.send(0, "nonsense")
        with pytest.raises(RankError, match=r"rank 0: AssertionError: unknown order 'nonsense'"):
            pool.receive()
        assert not pool.open
        with pytest.raises(RankError, match="the ranks have ended"):
            pool.send(0, "more")
    with pytest.raises(ValueError, match="ranks is 0"):
        RankPool(0)
    with pytest.raises(ValueError, match="device is 'tpu'"):
        RankPool(1, "tpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_gpus_that_are_not_there():
    with pytest.raises(ValueError, match="2 ranks need a GPU each and 0 are here"):
        ReshardingEngine(decoder(TINY), "P2", "T2", device="cuda")


SCRIPT = """
from paperlab.seesaw.engine import ReshardingEngine
from tests.seesaw.small import TINY
if __name__ == "__main__":
    with ReshardingEngine(TINY, "P2", "T2", host_link_Bps=1e3) as engine:
        print(*(process.pid for process in engine.pool.processes), flush=True)
        engine.generate([[1] * 40], 4)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_ranks_end_when_the_driver_is_killed(tmp_path):
    script, shared = tmp_path / "a script.py", shared_memory()
    script.write_text(SCRIPT)
    root = Path(__file__).parents[3]
    environment = os.environ | {"PYTHONPATH": f"{root / 'lib'}:{root}"}
    driver = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, env=environment)
    assert driver.stdout is not None
    pids = [int(word) for word in driver.stdout.readline().split()]
    assert len(pids) == 2
    driver.kill()
    driver.wait()
    driver.stdout.close()
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout=30)
    assert not alive
    assert shared_memory() == shared
