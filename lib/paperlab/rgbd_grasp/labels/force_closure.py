"""Two-contact force closure: the line between the contacts must lie in both friction cones (Nguyen 1988)."""

from __future__ import annotations

import numpy as np

from paperlab.rgbd_grasp.geometry.checks import Floats
from paperlab.rgbd_grasp.labels.contacts import Contacts

EVALUATED_FRICTIONS = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2)  # by the evaluator
LABELED_FRICTIONS = tuple(k / 10 for k in range(1, 11))  # by the object labels
NO_CLOSURE = -1.0


def contact_angles(contacts: Contacts) -> Floats:
    """Return the larger of both angles (N,) in radians between a contact's normal and the line between the contacts.

    The side that a normal faces does not matter, as in the evaluator; π/2 where there is no pair of contacts.
    """
    first, second = contacts.points[:, 0], contacts.points[:, 1]
    line = second - first
    length = np.linalg.norm(line, axis=1)
    apart = contacts.found & (length > 0)
    along = np.abs(np.einsum("nji,ni->nj", contacts.normals, line)).min(axis=1, where=apart[:, None], initial=np.inf)
    cosine = np.where(apart, along, 0.0) / np.where(apart, length, 1.0)
    return np.arccos(np.clip(cosine, 0.0, 1.0))


def smallest_friction(contacts: Contacts, frictions: tuple[float, ...] = EVALUATED_FRICTIONS) -> Floats:
    """Return the smallest of the ascending `frictions` (N,) at which each grasp is in force closure, else -1."""
    levels = np.array(frictions)
    if not len(levels) or (np.diff(levels) <= 0).any():
        raise ValueError(f"frictions: got {frictions}, needs ascending coefficients")
    angle = contact_angles(contacts)
    index = np.searchsorted(np.arctan(levels), angle)
    held = contacts.found & (angle < np.pi / 2) & (index < len(levels))
    return np.where(held, levels[np.minimum(index, len(levels) - 1)], NO_CLOSURE)
