"""Independent pieces of work over processes that end with their parent."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_processes(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    after_each: Callable[[], object] = lambda: None,
) -> list[Result]:
    """Return `function(item)` for every item, in order, computed by up to `workers` processes.

    With one worker or one item everything runs in this process. `function` must be importable by name. `after_each`
    is called here after every result, to advance a progress bar.
    """

    def counted(result: Result) -> Result:
        after_each()
        return result

    if workers <= 1 or len(items) <= 1:
        return [counted(function(item)) for item in items]
    # Spawned, not forked: the caller may hold threads of torch.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(items)), context, _end_with, (os.getpid(),)) as pool:
        return [counted(result) for result in pool.map(function, items)]


def _end_with(parent: int) -> None:
    """End this worker when its parent is gone; a killed parent cannot tell it."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
