"""One pipeline stage at work: the hooks of §2.3 around every module's forward and backward pass.

While module k computes, the side lanes fetch module k + 1 (forward) or k − 1 (backward) and put away the module before.
In the first forward pass of an iteration, fetching a module includes its optimizer step, left over from the iteration
before: that is the decoupled optimizer. Everything here runs under `torch.no_grad` but the modules themselves.
"""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from paperlab.mist.runtime.activations import Record, SavedActivations
from paperlab.mist.runtime.build import Built
from paperlab.mist.runtime.fetch import Fetcher


class StageRunner:
    """Runs the modules of one rank on micro-batches; `engine` has the loop over them."""

    def __init__(self, built: Built) -> None:
        self.built, self.states = built, built.states
        self.ledger, self.trace = built.ledger, built.trace
        self.counters: Counter[str] = Counter()
        self.fetcher = Fetcher(built, self.counters)
        self.records: dict[tuple[int, int], Record] = {}

    def forward(self, microbatch: int, x: Tensor, labels: Tensor) -> Tensor:
        """Run all modules on `x` (tokens B S on the first stage); returns hidden states, or the loss."""
        self.ledger.at("forward", f"micro-batch {microbatch}, fetch:")
        self.fetcher.before_forward(0, microbatch)
        for index in range(len(self.states)):
            self.fetcher.arrive(index)
            if index + 1 < len(self.states):
                self.fetcher.before_forward(index + 1, microbatch)
            x = self._compute_forward(index, microbatch, x, labels)
            self.fetcher.after_forward(index, microbatch, self.records[microbatch, index].saved)
        self.fetcher.end_of_forward()
        in_flight = len({number for number, _ in self.records})
        self.counters["most in flight"] = max(self.counters["most in flight"], in_flight)
        return x

    def backward(self, microbatch: int, grad: Tensor, last: bool) -> Tensor | None:
        """Run backward from the gradient of what `forward` returned; returns that of `x`, None for tokens.

        `last`: this is the iteration's last micro-batch, after which unsharded gradients are reduced.
        """
        self.ledger.at("backward", f"micro-batch {microbatch}, fetch:")
        final = len(self.states) - 1
        outgoing: Tensor | None = grad
        del grad
        self.fetcher.before_backward(final, microbatch, self.records[microbatch, final].saved)
        for index in range(final, -1, -1):
            self.fetcher.arrive(index)
            if index:
                self.fetcher.before_backward(index - 1, microbatch, self.records[microbatch, index - 1].saved)
            assert outgoing is not None
            outgoing = self._compute_backward(index, microbatch, outgoing)
            self.fetcher.after_backward(index, microbatch, last)
        return outgoing

    def _compute_forward(self, index: int, microbatch: int, x: Tensor, labels: Tensor) -> Tensor:
        self.ledger.at("forward", f"micro-batch {microbatch}, module {index}:")
        module, kind = self.states[index].module, self.built.kinds[index]
        inputs: tuple[Tensor, ...] = (x.detach().requires_grad_(x.is_floating_point()),)
        if kind == "head":
            inputs += (labels,)
        saved = SavedActivations(self.ledger, self.built.parameter_storages)
        edge = None
        with self.trace.span("compute", "forward", index, microbatch):
            if self.built.checkpointed(index):
                saved.keep(inputs[0])
                y = module(*inputs)
            else:
                with torch.enable_grad(), saved.collecting():
                    y = module(*inputs)
                edge = GradientEdge(y.grad_fn, y.output_nr)
        self.records[microbatch, index] = Record(inputs, edge, saved)
        return y.detach()

    def _compute_backward(self, index: int, microbatch: int, grad: Tensor) -> Tensor | None:
        self.ledger.at("backward", f"micro-batch {microbatch}, module {index}:")
        record = self.records.pop((microbatch, index))
        edge, record.output = record.output, None
        record.saved.arrived()
        if edge is None:
            self.counters["recomputed"] += 1
            with self.trace.span("compute", "recompute", index, microbatch), torch.enable_grad():
                edge = _edge(self.states[index].module(*record.inputs))
        with self.trace.span("compute", "backward", index, microbatch):
            torch.autograd.backward(edge, grad)
        return record.inputs[0].grad


def _edge(output: Tensor) -> GradientEdge:
    """Return where backward starts, so that the output itself need not be kept."""
    assert output.grad_fn is not None
    return GradientEdge(output.grad_fn, output.output_nr)
