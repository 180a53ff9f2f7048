"""GraspNet-1Billion's folder layout, read and written; generated scenes and the real data go through the same code."""
