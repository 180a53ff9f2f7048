"""A tree of boxes over triangles that answers many queries at once, level by level."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from paperlab.rgbd_grasp.geometry.checks import Bools, Floats, Ints

_LEAF = 4  # triangles per leaf
_CHUNK = 5000  # queries at a time, to bound memory
BoxTest = Callable[[Ints, Floats, Floats], Bools]


class Bvh:
    """Boxes over triangles (F, 3, 3), split in halves along the longest side until at most four share one."""

    def __init__(self, triangles: Floats) -> None:
        levels = max(0, int(np.ceil(np.log2(len(triangles) / _LEAF))))
        count = _LEAF << levels
        # A triangle shrunk to a corner of the first one fills up the tree: no ray hits it, no distance changes.
        filler = np.broadcast_to(triangles[0, 0], (count - len(triangles), 3, 3))
        self.triangles = np.concatenate([triangles, filler])
        self.faces = np.concatenate([np.arange(len(triangles)), np.zeros(count - len(triangles), dtype=int)])
        order = np.arange(count)[None]
        centers = self.triangles.mean(axis=1)
        for _ in range(levels):
            points = centers[order]
            axis = np.ptp(points, axis=1).argmax(axis=1)
            along = np.take_along_axis(points, axis[:, None, None], axis=2)[..., 0]
            order = np.take_along_axis(order, along.argsort(axis=1, kind="stable"), axis=1)
            order = order.reshape(2 * len(order), -1)
        self._leaves = order
        corners = self.triangles[order].reshape(len(order), -1, 3)
        self._boxes = [(corners.min(axis=1), corners.max(axis=1))]
        for _ in range(levels):
            low, high = self._boxes[0]
            self._boxes.insert(0, (low.reshape(-1, 2, 3).min(axis=1), high.reshape(-1, 2, 3).max(axis=1)))

    def candidates(self, query_count: int, in_box: BoxTest) -> Iterator[tuple[Ints, Ints]]:
        """Yield (queries, triangles), the pairs that `in_box(queries, lows, highs)` does not rule out.

        All pairs of one query come together.
        """
        for start in range(0, query_count, _CHUNK):
            query = np.arange(start, min(start + _CHUNK, query_count))
            node = np.zeros(len(query), dtype=int)
            for low, high in self._boxes:
                if low is not self._boxes[0][0]:  # below the root: both children of every node
                    query, node = np.repeat(query, 2), np.stack([2 * node, 2 * node + 1], axis=-1).ravel()
                keep = in_box(query, low[node], high[node])
                query, node = query[keep], node[keep]
            yield np.repeat(query, _LEAF), self._leaves[node].ravel()
