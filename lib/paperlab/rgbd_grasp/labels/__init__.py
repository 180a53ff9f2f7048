"""Which grasps hold: contacts, force closure, labels of objects and scenes, the network's heatmap targets."""
