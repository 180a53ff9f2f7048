"""What of Mist only a GPU can show: operators, single-GPU plans under memory caps, interference. See `gpu_evidence`."""
