"""Tiny models and plans for the runtime's tests."""

from paperlab.mist import ClusterSize, Plan, StagePlan, falcon, gpt, llama

SIZES = {"hidden": 32, "layers": 4, "heads": 4, "vocab": 64, "seq_len": 16, "dtype": "fp32"}
MODELS = {
    "gpt": gpt(**SIZES),
    "gpt, math attention": gpt(**SIZES, attention="math"),
    "llama": llama(**SIZES, ffn=96, kv_heads=2),
    "falcon": falcon(**SIZES),
}


def plan_of(stages, accumulation=2, model="gpt", **stage):
    """Return a plan of equal `stages`, each with the fields in `stage`; micro-batch 2, nothing checkpointed."""
    spec = MODELS[model] if isinstance(model, str) else model
    layout = {"micro_batch": 2, "dp": 1, "tp": 1, "checkpointed": 0, "layers": spec.layers // stages} | stage
    part = StagePlan(**layout)
    batch = part.micro_batch * part.dp * accumulation
    return Plan(spec, ClusterSize("cpu", 1, part.gpus * stages), batch, accumulation, (part,) * stages)


def offload(ratio, **ratios):
    """Return one ratio for all four kinds, or those given."""
    names = ("weight_offload", "grad_offload", "optimizer_offload", "activation_offload")
    return dict.fromkeys(names, ratio) | ratios
