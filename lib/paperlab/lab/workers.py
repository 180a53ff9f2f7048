"""Independent pieces of work over processes that end with their parent."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_processes(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    after_each: Callable[[], object] = lambda: None,
    *,
    reuse: bool = False,
) -> list[Result]:
    """Return `function(item)` for every item, in order, computed by up to `workers` processes.

    With one worker or one item everything runs in this process. `function` must be importable by name. `after_each`
    is called here after every result, to advance a progress bar. With `reuse` the processes stay, with what they hold
    in memory, for the next call that asks for reuse: starting one that loads torch takes seconds.
    """

    def counted(result: Result) -> Result:
        after_each()
        return result

    if workers <= 1 or len(items) <= 1:
        return [counted(function(item)) for item in items]
    if not reuse:
        with _pool(min(workers, len(items))) as pool:
            return [counted(result) for result in pool.map(function, items)]
    try:
        return [counted(result) for result in _lasting(workers, *os.environ.items()).map(function, items)]
    except BaseException:  # a pool with a dead worker, or with work that nobody waits for, is of no further use
        _lasting.cache_clear()
        raise


def _pool(workers: int) -> ProcessPoolExecutor:
    # Spawned, not forked: the caller may hold threads of torch.
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _end_with, (os.getpid(),))


@lru_cache(maxsize=1)
def _lasting(workers: int, *environment: tuple[str, str]) -> ProcessPoolExecutor:
    """Return processes that stay; processes hold the environment that they started in, so another one needs others."""
    return _pool(workers)


def _end_with(parent: int) -> None:
    """End this worker when its parent is gone; a killed parent cannot tell it."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
