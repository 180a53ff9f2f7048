"""Calls in a fresh process each: nothing cached or broken on the GPU by one call reaches the next.

Processes fork from a server that has imported the heavy libraries but never touched the GPU, which saves the ten
seconds of imports; where that does not work, they are spawned.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

PRELOAD = [
    "torch._dynamo",
    "transformers.models.bert.modeling_bert",
    "transformers.models.gpt2.modeling_gpt2",
    "transformers.models.roberta.modeling_roberta",
    "paperlab.tempo.speed.kernel_speed",
    "paperlab.tempo.speed.throughput",
]


class CallFailed(RuntimeError):
    """The call raised or its process died; the message is the last line of the reason."""


class Caller:
    """Runs functions in fresh processes, one after the other, and none beyond `end_s` on the monotonic clock.

    `method` is "forkserver" or "spawn"; "forkserver" makes PyTorch ask NVML whether there is a GPU, since asking
    CUDA would spoil every later fork.
    """

    def __init__(self, method: str = "forkserver", end_s: float = math.inf) -> None:
        self._context: Any = multiprocessing.get_context(method)
        self._end_s = end_s
        if method == "forkserver":
            os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
            self._context.set_forkserver_preload(PRELOAD)

    def __call__(self, function: Callable[..., Any], *args: Any, timeout_s: float, **kwargs: Any) -> Any:
        """Return `function(*args, **kwargs)`, a function of a module, with arguments that pickle.

        Raises `CallFailed` where it raises or its process dies, and `TimeoutError` where it had to be stopped.
        """
        timeout_s = min(timeout_s, self._end_s - time.monotonic())
        receiver, sender = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_answer, args=(sender, function, args, kwargs), daemon=True)
        process.start()
        sender.close()
        try:
            if not receiver.poll(max(timeout_s, 0.0)):
                raise TimeoutError(f"{function.__name__} was stopped after {timeout_s:.0f} s")
            result, reason = receiver.recv()
        except EOFError:
            process.join()
            raise CallFailed(f"{function.__name__} died with exit status {process.exitcode}") from None
        finally:
            process.kill()
            process.join()
            receiver.close()
        if reason:
            raise CallFailed(reason)
        return result


def _answer(sender: Connection, function: Callable[..., Any], args: Any, kwargs: Any) -> None:
    try:
        answer = function(*args, **kwargs), ""
    except Exception as error:
        traceback.print_exc()
        answer = None, f"{type(error).__name__}: {error}".splitlines()[0]
    sender.send(answer)
    sender.close()
