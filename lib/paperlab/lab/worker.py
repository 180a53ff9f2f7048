"""The process that runs one notebook with papermill; started by `paperlab.lab.execute`, not by hand."""

from __future__ import annotations

import json
import os
import sys
import threading
import time


def _die_with_parent() -> None:
    """Leave when the executor is gone, however it went, so that no kernel outlives its run."""
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def main() -> None:
    """Execute `argv[1]` into `argv[2]` with the JSON parameters `argv[3]`."""
    threading.Thread(target=_die_with_parent, daemon=True).start()
    import papermill

    source, target, parameters = sys.argv[1:4]
    papermill.execute_notebook(
        source, target, parameters=json.loads(parameters), progress_bar=False, cwd=os.path.dirname(source)
    )


if __name__ == "__main__":
    main()
