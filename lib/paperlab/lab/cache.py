"""Keys of what is kept by content: what is found under a key is what making it again would give."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def content_key(settings: Mapping[str, Any], parts: Iterable[str | bytes] = (), code: Iterable[str] = ()) -> str:
    """Return the SHA-256, as hexadecimal, of all that decides about something that is kept.

    `settings` are values that JSON knows, in any order. `parts` are contents, such as bytes of arrays or hashes, and
    their order counts. `code` are names of modules, and of packages with all that is in them, whose source counts.

    Raises:
        ValueError: `code` names something that is no module with a source.
    """
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))  # so that parts cannot run into each other
        digest.update(data)
    for name in code:
        digest.update(_source_digest(name))
    return digest.hexdigest()


@cache  # once a process: what is imported does not follow later edits either
def _source_digest(name: str) -> bytes:
    try:
        found = find_spec(name)
    except ModuleNotFoundError:
        found = None
    if found is None or found.origin is None or not found.has_location:
        raise ValueError(f"code: {name!r} is no module with a source; use the name of a module or package")
    file = Path(found.origin)
    whole = found.submodule_search_locations is not None
    digest = hashlib.sha256(name.encode())
    for path in sorted(file.parent.rglob("*.py")) if whole else [file]:
        digest.update(path.relative_to(file.parent).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.digest()
