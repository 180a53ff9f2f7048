"""Average precision of ranked grasps, exactly as graspnetAPI 1.2.11 computes it, and its uncertainty."""
