"""Real execution in torch: paged keys and values, continuous batching, lanes as threads and streams.

    LLM: generate, stream, serve       llm.py, completion.py
    policies in real time              executor.py
    a batch as tensors, one pass       batch.py, runner.py
    paged attention                    attention.py (torch), triton_attention.py, kernels.py
    block tensors, copies between them memory.py
    weights, pools                     checkpoint.py, resources.py
    prompts as ids                     prompts.py
    the next token                     sampling.py
    where lanes issue their work       streams.py, green_contexts.py (Nexus §4.2), probe.py
    decoding in one launch             graphs.py
    what policies learn of the machine machine.py
    what the simulator learns of it    calibrate.py; how well it then predicts: prediction.py

What is for CUDA alone (compiled kernels, graphs, green contexts) has not run on a GPU yet.
"""

from paperlab.serving.engine.completion import Completion, Piece
from paperlab.serving.engine.llm import LLM
from paperlab.serving.engine.sampling import Sampling

__all__ = ["LLM", "Completion", "Piece", "Sampling"]
