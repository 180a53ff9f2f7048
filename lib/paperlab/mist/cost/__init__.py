"""The cost model: operators, communication, interference, the overlapped schedule, memory and the pipeline (§2)."""
