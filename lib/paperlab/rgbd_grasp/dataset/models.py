"""Objects' models on disk: point clouds and meshes as PLY, meshes as OBJ."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np

from paperlab.lab.files import write_atomic
from paperlab.rgbd_grasp.geometry.checks import Floats
from paperlab.rgbd_grasp.geometry.mesh import Mesh

_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip
_FORMATS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}


def read_points(path: Path) -> Floats:
    """Read the vertices (N, 3) of a PLY file, in meters; faces are left out, as the evaluator does.

    Raises ValueError, naming the file, where it is not a PLY file with vertices first.
    """
    try:
        header, _, body = path.read_bytes().partition(b"end_header")
        lines = [line.split() for line in header.decode("ascii").splitlines()]
        order = _FORMATS[next(line[1] for line in lines if line[:1] == ["format"])]
        first = next(i for i, line in enumerate(lines) if line[:1] == ["element"])
        if lines[0] != ["ply"] or lines[first][1] != "vertex":
            raise ValueError("its first element is not vertex")
        count = int(lines[first][2])
        fields = [(line[2], line[1]) for line in _properties(lines[first + 1 :])]
        body = body[body.index(b"\n") + 1 :]
        if not order:
            rows = np.array(
                [row.split()[: len(fields)] for row in body.decode("ascii").splitlines()[:count]], dtype=float
            )
            columns = {name: rows[:, i] for i, (name, _) in enumerate(fields)}
        else:
            record = np.dtype([(name, order + _TYPES[kind]) for name, kind in fields])
            data = np.frombuffer(body, record, count)
            columns = {name: data[name] for name, _ in fields}
        return np.stack([columns[axis] for axis in "xyz"], axis=-1).astype(np.float64)
    except (KeyError, ValueError, IndexError, StopIteration, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {error}; needs a PLY file whose vertices have x, y and z") from None


def _properties(lines: list[list[str]]) -> list[list[str]]:
    end = next((i for i, line in enumerate(lines) if line[:1] == ["element"]), len(lines))
    return [line for line in lines[:end] if line[:1] == ["property"]]


def write_points(path: Path, points: Floats) -> Path:
    """Write points (N, 3) as a binary PLY file."""
    head = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(points)}\n"
    head += "".join(f"property float {axis}\n" for axis in "xyz") + "end_header\n"
    return write_atomic(path, head.encode() + points.astype("<f4").tobytes())


def read_obj(path: Path) -> Mesh:
    """Read vertices and faces of an OBJ file, in meters; polygons become triangles, everything else is left out.

    Raises ValueError, naming the file, where there is no mesh in it.
    """
    vertices, faces = [], []
    try:
        for line in path.read_text().splitlines():
            word, *values = line.split() or [""]
            if word == "v":
                vertices.append([float(value) for value in values[:3]])
            elif word == "f":
                corners = [int(value.split("/")[0]) for value in values]
                corners = [c - 1 if c > 0 else len(vertices) + c for c in corners]
                faces += [[corners[0], *pair] for pair in pairwise(corners[1:])]
        return Mesh(np.array(vertices, dtype=float).reshape(-1, 3), np.array(faces, dtype=int).reshape(-1, 3))
    except (ValueError, IndexError) as error:
        raise ValueError(f"{path}: {error}; needs an OBJ file with v and f lines") from None


def write_obj(path: Path, mesh: Mesh) -> Path:
    """Write a mesh as an OBJ file."""
    lines = [f"v {x:.9g} {y:.9g} {z:.9g}" for x, y, z in mesh.vertices]
    lines += [f"f {a} {b} {c}" for a, b, c in mesh.faces + 1]
    return write_atomic(path, "\n".join(lines) + "\n")
