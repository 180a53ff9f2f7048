"""Nexus's measurements on a GPU: sizes (scope.py), single iterations, whole systems, their stages. None has run yet."""
