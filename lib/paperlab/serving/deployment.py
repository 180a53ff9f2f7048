"""A model on devices: what a policy may know before the first request, and what an executor builds from."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from paperlab.hardware import DeviceSpec, LinkSpec, device, link
from paperlab.serving.constants import DeviceConstants, constants
from paperlab.serving.cost import ModelCost
from paperlab.serving.device_model import DeviceModel
from paperlab.serving.policy import Limits
from paperlab.transformer import ModelShape, preset, weight_bytes

REPORTED = 0.96  # of a card's nominal memory that its driver reports; assumption, a few percent go to ECC and firmware
CONTEXT_BYTES = 2**30  # CUDA context, kernels and library workspaces; assumption


@dataclass(frozen=True)
class Deployment:
    """One model served on `tp` devices per replica.

    The pool of keys and values is what is left of `memory_utilization` of the memory after weights, activations and
    the context (§2.8), unless `kv_tokens` fixes it.
    """

    model: ModelShape
    device: DeviceSpec
    constants: DeviceConstants
    tp: int = 1
    dtype: str = "bf16"
    limits: Limits = field(default_factory=Limits)
    block_size: int = 16
    memory_utilization: float = 0.9
    kv_tokens: int | None = None
    host_kv_bytes: float = 120e9  # for swapped sequences; the Nexus paper's FastServe setting
    weight_element_bytes: float | None = None  # of the layers' matrices where they are quantized, such as 0.5
    kv_element_bytes: float | None = None  # of keys and values where they are quantized
    arithmetic: str | None = None  # the format whose peak the devices reach; by default `dtype`

    def __post_init__(self) -> None:
        if not 0 < self.memory_utilization <= 1:
            raise ValueError(f"Deployment: memory_utilization is {self.memory_utilization}; it must be in (0, 1]")
        if self.kv_tokens is not None and self.kv_tokens < self.block_size:
            raise ValueError(f"Deployment: kv_tokens is {self.kv_tokens}; one block has {self.block_size}")
        if self.host_kv_bytes < 0:
            raise ValueError(f"Deployment: host_kv_bytes is {self.host_kv_bytes}; it must not be negative")

    @cached_property
    def cost(self) -> ModelCost:
        """FLOPs and bytes of any iteration on each device."""
        return ModelCost(
            self.model, self.dtype, self.tp, weight_element_bytes=self.weight_element_bytes,
            kv_element_bytes=self.kv_element_bytes, arithmetic=self.arithmetic,
        )  # fmt: skip

    @cached_property
    def device_model(self) -> DeviceModel:
        """The simulator's physics for this deployment."""
        return DeviceModel(self.cost, self.device, self.constants, self.peer_link)

    @property
    def peer_link(self) -> LinkSpec:
        """The link between devices: the peer link, or through the host where there is none."""
        return link(self.device.peer_link or self.device.host_link)

    @property
    def host_link(self) -> LinkSpec:
        """The link to host memory."""
        return link(self.device.host_link)

    @property
    def block_bytes(self) -> float:
        """Bytes of one block on one device."""
        return self.block_size * self.cost.kv_token_bytes

    @property
    def stored_weight_bytes(self) -> float:
        """Bytes of all parameters on one device."""
        return weight_bytes(self.model, self.dtype) / self.tp - self.cost.spared_bytes

    @property
    def kv_blocks(self) -> int:
        """Blocks of a device's pool.

        Raises:
            ValueError: the weights and activations leave no room for one block.
        """
        if self.kv_tokens is not None:
            return self.kv_tokens // self.block_size
        usable = self.device.memory_bytes * REPORTED * self.memory_utilization
        left = usable - self.stored_weight_bytes - self.activation_bytes - CONTEXT_BYTES
        if left < self.block_bytes:
            raise ValueError(
                f"{self.model.name} does not fit on {self.tp} x {self.device.name}: {-left / 2**30:.1f} GiB too much"
            )
        return int(left / self.block_bytes)

    @property
    def host_blocks(self) -> int:
        """Blocks of the host pool."""
        return max(1, int(self.host_kv_bytes / self.block_bytes))

    @property
    def activation_bytes(self) -> float:
        """Peak of an iteration's temporaries: the MLP's two halves of a full batch, or fp32 logits of a full one."""
        tokens, size = self.limits.token_budget, 2
        mlp = tokens * size * (2 * self.model.ffn / self.tp + 3 * self.model.hidden)
        logits = self.limits.max_sequences * self.model.vocab * 4
        return max(mlp, logits)


def deployment(model: str | ModelShape, on: str | DeviceSpec, **options: object) -> Deployment:
    """Return a deployment by names, such as `deployment("llama-3.1-8b", "l20", tp=1)`; `options` are its fields."""
    shape = preset(model) if isinstance(model, str) else model
    spec = device(on) if isinstance(on, str) else on
    known = options.pop("constants", None) or constants(spec.name)
    return Deployment(shape, spec, known, **options)  # type: ignore[arg-type]
