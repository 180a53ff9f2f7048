"""Grasps, orientations, cameras, meshes and signed distances: what every other part measures with."""
