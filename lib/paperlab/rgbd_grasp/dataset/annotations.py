"""Object poses of a frame, in the data set's XML: position and quaternion to four decimals, read by position."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from scipy.spatial.transform import Rotation

from paperlab.lab.files import write_atomic
from paperlab.rgbd_grasp.geometry.checks import Floats
from paperlab.rgbd_grasp.geometry.rotations import rigid

_ID, _POSITION, _QUATERNION = 0, 3, 4  # of the children of <obj>


def read_annotation(path: Path) -> tuple[list[int], Floats]:
    """Return object ids and poses (n, 4, 4), camera from object, of a frame.

    Raises ValueError, naming the file, where it is not such an annotation.
    """
    ids, poses = [], []
    try:
        for item in ElementTree.parse(path).getroot():
            texts = [child.text or "" for child in item]
            w, *xyz = (float(word) for word in texts[_QUATERNION].split())
            position = [float(word) for word in texts[_POSITION].split()]
            poses.append(rigid(Rotation.from_quat([*xyz, w]).as_matrix(), position))
            ids.append(int(texts[_ID]))
    except (ElementTree.ParseError, IndexError, ValueError) as error:
        raise ValueError(f"{path}: {error}; needs <obj> with id, name, path, position and quaternion w x y z") from None
    return ids, np.array(poses).reshape(-1, 4, 4)


def write_annotation(path: Path, ids: Sequence[int], names: Sequence[str], poses: Floats) -> Path:
    """Write object ids and poses (n, 4, 4), camera from object, of a frame."""
    scene = ElementTree.Element("scene")
    for object_id, name, pose in zip(ids, names, poses, strict=True):
        x, y, z, w = Rotation.from_matrix(pose[:3, :3]).as_quat()
        item = ElementTree.SubElement(scene, "obj")
        texts = {
            "obj_id": str(object_id),
            "obj_name": name,
            "obj_path": f"models/{object_id:03d}/nontextured.ply",
            "pos_in_world": " ".join(f"{value:.4f}" for value in pose[:3, 3]),
            "ori_in_world": " ".join(f"{value:.4f}" for value in (w, x, y, z)),
        }
        for tag, text in texts.items():
            ElementTree.SubElement(item, tag).text = text
    ElementTree.indent(scene)
    return write_atomic(path, ElementTree.tostring(scene, encoding="unicode") + "\n")
