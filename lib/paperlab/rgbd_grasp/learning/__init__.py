"""Learning the Angle-View Heatmap: samples, losses, training, metrics, and trained nets kept by content."""
