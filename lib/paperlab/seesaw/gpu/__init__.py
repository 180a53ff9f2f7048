"""What `paperlab.seesaw.gpu_evidence` measures on a GPU."""
