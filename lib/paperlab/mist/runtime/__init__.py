"""Mist's execution template on torch.distributed: the plan the tuner prints is the plan that runs (§2.3).

| module | what it holds |
|---|---|
| `engine` | `train(plan)` on one rank: the loop over micro-batches |
| `pool` | `RankPool`: ranks on this machine, spawned once; under torchrun use `paperlab.mist.run` |
| `build`, `groups` | a rank's modules, place and communicators |
| `stage`, `fetch` | forward and backward of one stage, and the hooks that overlap copies and collectives with them |
| `partition`, `activations`, `optimizer` | ZeRO shards, offloaded fractions, Adam one module at a time |
| `schedule` | one forward, one backward |
| `lanes`, `trace` | threads or CUDA streams, and spans of what ran on them |
| `memory` | live storages of a device pool and a host pool |

On the CPU everything runs and is tested with gloo. The CUDA paths (NCCL, streams, pinned memory) follow the same
code and have not run on a GPU.
"""
