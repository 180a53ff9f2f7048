"""Tasks, trained networks, and what a user brings: an ImageNet folder and published checkpoints."""
