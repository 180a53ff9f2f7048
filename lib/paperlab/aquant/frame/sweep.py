"""One pass over the network: every unit learned, measured, and stored for a resumed run."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, fx, nn

from paperlab.aquant.frame.insert import quantizers_of
from paperlab.aquant.frame.learning import learn, reconstruction_error
from paperlab.aquant.frame.prefix import Prefix, in_batches, modes
from paperlab.aquant.frame.recipe import Phase, Recipe
from paperlab.aquant.frame.report import UnitReport, Watch, bits_of, weights_flipped, zeros_moved
from paperlab.aquant.frame.resume import Checkpoints
from paperlab.aquant.frame.units import Unit, extract
from paperlab.aquant.quantizer import ActivationQuantizer

MEASURE = Phase(False, False, False, 0, True, True, False)  # of methods that learn nothing: only the report


@dataclass
class Sweep:
    """A pass: what is learned (`phases`, for every unit), from which images, under which number."""

    network: fx.GraphModule
    images: Tensor
    recipe: Recipe
    number: int
    phases: tuple[Phase, ...]
    done: set[ActivationQuantizer] = field(default_factory=set)  # quantizers that are not to be learned (again)

    def run(self, units: list[Unit], checkpoints: Checkpoints) -> list[UnitReport]:
        """Learn the units front to back, or restore them, and return their reports."""
        prefix = Prefix(self.network, self.images, units, activations=self._quantized)
        self.done |= self._image_quantizers()
        reports = []
        for index, unit in enumerate(units):
            prefix.advance(next(node for node in unit.nodes if not prefix.has_passed(node)))
            module = extract(self.network, unit)
            report = checkpoints.restore(self.number, index, module)
            if report is None:
                report = self._learn(module, unit, prefix, index)
                checkpoints.store(self.number, index, module, report)
            self.done |= set(quantizers_of(module).values())
            reports.append(report)
        return reports

    @property
    def _quantized(self) -> bool:
        return self.phases[-1].quantized_activations

    def _image_quantizers(self) -> set[ActivationQuantizer]:
        images = next(node for node in self.network.graph.nodes if node.op == "placeholder")
        modules = [self.network.get_submodule(str(user.target)) for user in images.users if user.op == "call_module"]
        return {module for module in modules if isinstance(module, ActivationQuantizer)}

    def _learn(self, module: fx.GraphModule, unit: Unit, prefix: Prefix, index: int) -> UnitReport:
        inputs = prefix.float_[unit.source], prefix.quantized[unit.source]
        with modes(module, "float", activations=False):
            target = in_batches(module, inputs[0])
        before = self._error_of_nearest(module, inputs[1], target)
        fresh = {name: item for name, item in quantizers_of(module).items() if item not in self.done}
        leaves_stem = self.recipe.stem_head == "brecq" and index == 0  # BRECQ does not reconstruct the stem
        for number, phase in enumerate(() if leaves_stem else self.phases):
            if phase.iterations:
                seed = _seed(self.recipe.seed, self.number, index, number)
                learn(module, phase, self.recipe, inputs, target, fresh, seed)
        return self._report(module, unit, inputs[1], target, before)

    def _error_of_nearest(self, module: nn.Module, x: Tensor, target: Tensor) -> float:
        """Return a unit's error as it stands, but with nearest rounding of activations."""
        borders = {quantizer: quantizer.border for quantizer in quantizers_of(module).values()}
        for quantizer in borders:
            quantizer.border = None
        with modes(module, activations=self._quantized):
            error = reconstruction_error(in_batches(module, x), target).item()
        for quantizer, border in borders.items():
            quantizer.border = border
        return error

    def _report(self, module: nn.Module, unit: Unit, x: Tensor, target: Tensor, before: float) -> UnitReport:
        with modes(module, activations=self._quantized):
            watch = Watch(module)
            after = reconstruction_error(watch.run(x), target).item()
        n = max(1, watch.elements)
        shares = weights_flipped(module), watch.flipped / n, watch.clipped / n, zeros_moved(module)
        return UnitReport(unit.name, self.number, before, after, *shares, bits_of(module))


def _seed(seed: int, *path: int) -> int:
    """Return a seed per unit and phase, so that a resumed run draws what the whole run would have drawn."""
    for item in path:
        seed = seed * 1009 + item + 1
    return seed % 2**62
