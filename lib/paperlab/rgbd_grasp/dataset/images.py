"""PNG images of the data set: color, depth in millimeters, object labels."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from paperlab.lab.files import write_atomic

_MODES: dict[str, tuple[tuple[str, ...], Any]] = {
    "rgb": (("RGB",), np.uint8),
    "depth": (("I;16", "I"), np.uint16),
    "label": (("L", "P"), np.uint8),
}


def read_png(path: Path, kind: str) -> NDArray[Any]:
    """Read an image of a kind: rgb (H, W, 3) uint8, depth (H, W) uint16, label (H, W) uint8.

    Raises ValueError, naming the file, for what is no such image.
    """
    modes, dtype = _MODES[kind]
    try:
        with Image.open(path) as image:
            mode, array = image.mode, np.array(image)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"{path}: {error}; needs a PNG image") from None
    if mode not in modes:
        raise ValueError(f"{path}: is an image of mode {mode}, needs {modes[0]} for {kind}")
    return array.astype(dtype)


def write_png(path: Path, image: NDArray[Any], kind: str) -> Path:
    """Write an image of a kind, as in `read_png`; raises ValueError for another dtype."""
    _, dtype = _MODES[kind]
    if image.dtype != dtype:
        raise ValueError(f"{kind}: got {image.dtype}, needs {np.dtype(dtype)}")
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", compress_level=3)
    return write_atomic(path, buffer.getvalue())
