"""Other systems' searches in the same cost model: Megatron-LM-like, DeepSpeed-like, Aceso-like and heuristics."""
