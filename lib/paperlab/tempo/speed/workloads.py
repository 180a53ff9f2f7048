"""What is trained when speed is measured: models by name, sequence length, precision, and how a step runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from paperlab.tempo.memory.probe import Probe, build_model
from paperlab.transformer import forward_flops, from_hf_config, training_flops

Precision = Literal["fp32", "tf32", "autocast bf16", "bf16"]
OPTIMIZER = "AdamW"

_LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
_TINY = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 256}
_ROBERTA = {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
_GPT2 = {"model_type": "gpt2", "use_cache": False}
_TINY_GPT2 = {
    "vocab_size": 128,
    "n_embd": 64,
    "n_layer": 2,
    "n_head": 2,
    "bos_token_id": None,
    "eos_token_id": None,
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "BERT-Large": ("BertForMaskedLM", {"model_type": "bert", **_LARGE}),
    "RoBERTa-Large": ("RobertaForMaskedLM", {"model_type": "roberta", **_LARGE, **_ROBERTA}),
    "GPT-2": ("GPT2LMHeadModel", _GPT2),
    "tiny BERT": ("BertForMaskedLM", {"model_type": "bert", "vocab_size": 128, **_TINY}),
    "tiny GPT-2": ("GPT2LMHeadModel", {**_GPT2, **_TINY_GPT2}),
}
"""Hugging Face class and configuration; dropout is 0.1 everywhere, and every position gets logits.

The sizes of the paper's RoBERTa and GPT2 are not known to us (GPT-2 here has 124 M parameters). Its pre-training
gathers the masked positions before the head, so that logits weigh less there. GPT-2's `gelu_new` is written in
Python: the arm "eager, modern" keeps it, "eager, fused GELU" is the stronger baseline, the Tempo arms fuse it.
"""


@dataclass(frozen=True)
class Workload:
    """A name from `MODELS`, the tokens per sequence, and the precision.

    "fp32" multiplies matrices without TF32, "tf32" with it; "autocast bf16" keeps fp32 weights; "bf16" has
    weights, gradients and optimizer state in bf16.
    """

    model: str = "BERT-Large"
    seq_len: int = 512
    precision: Precision = "fp32"

    def __post_init__(self) -> None:
        for name, known in (("model", tuple(MODELS)), ("precision", get_args(Precision))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(known)}")
        if self.seq_len < 1:
            raise ValueError(f"seq_len is {self.seq_len}; it must be positive")

    def probe(self, arm: str, memory_bytes: int = 0, reserve_bytes: int = 0) -> Probe:
        """Return this training as a `Probe` of one sequence, in the dtype of the weights."""
        model_class, config = MODELS[self.model]
        dtype = "bfloat16" if self.precision == "bf16" else "float32"
        return Probe(model_class, dict(config), arm, 1, self.seq_len, memory_bytes, reserve_bytes, dtype)

    def flops(self, batch: int) -> float:
        """Return the model FLOPs of one step: matrix products, backward twice the forward, nothing recomputed."""
        import transformers

        settings = dict(MODELS[self.model][1])
        config = transformers.AutoConfig.for_model(settings.pop("model_type"), **settings)
        return float(training_flops(forward_flops(from_hf_config(config), self.seq_len, batch=batch)))

    @property
    def arithmetic(self) -> str:
        """The dtype in which matrices are multiplied, as in `DeviceSpec.peak_flops_per_s`."""
        return "bf16" if self.precision.endswith("bf16") else self.precision

    @contextmanager
    def matmul_precision(self) -> Iterator[None]:
        """Allow or forbid TF32 in fp32 matrix products for the length of a `with` block."""
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high" if self.precision == "tf32" else "highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)

    def autocast(self, device: str, **options: Any) -> AbstractContextManager[Any]:
        """Return the autocast context of the precision: empty, except for "autocast bf16"."""
        if self.precision != "autocast bf16":
            return nullcontext()
        return torch.autocast(device, torch.bfloat16, **options)


class Trainer:
    """A model of one arm with its optimizer; the weights are the same for every arm.

    `compile_budget` runs the model under `torch.compile` with that `activation_memory_budget`; None: eager.
    """

    def __init__(self, workload: Workload, arm: str, device: str, compile_budget: float | None = None) -> None:
        self.workload, self.device, self.budget = workload, device, compile_budget
        torch.manual_seed(0)
        with torch.device(device):
            self.model = build_model(workload.probe(arm))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), fused=device == "cuda")
        if compile_budget is not None:
            self.model.compile(dynamic=False)

    def step(self, batch: Mapping[str, Tensor]) -> None:
        """Run forward, backward and an AdamW step; gradients persist between steps, as in the paper's software."""
        self.optimizer.zero_grad(set_to_none=False)
        with self._budget(), self.workload.autocast(self.device):
            loss = self.model(**batch).loss
        loss.backward()
        self.optimizer.step()

    def _budget(self) -> AbstractContextManager[Any]:
        if self.budget is None:
            return nullcontext()
        from torch._functorch import config

        return config.patch(activation_memory_budget=self.budget)
