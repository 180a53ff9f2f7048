"""Grasps from images: the trained net as a detector, one call for a user's own image, swapped modalities."""
