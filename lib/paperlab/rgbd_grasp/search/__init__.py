"""From a heatmap to grasps: decoding, workspace masks, and Fast Analytic Searching over widths and distances."""
