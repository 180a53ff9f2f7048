"""From a file under `results/` back to the notebook, parameters, commit and inputs it came from."""

from __future__ import annotations

import json
from pathlib import Path

from paperlab.lab.execute import MANIFEST
from paperlab.lab.files import sha256
from paperlab.lab.record import read_index


def trace(file: Path) -> str:
    """Return a readable account of where `file` comes from.

    Raises:
        FileNotFoundError: no such file, or no manifest in its folder.
        ValueError: the manifest does not list the file.
    """
    if not file.is_file():
        raise FileNotFoundError(f"no such file: {file}")
    folder = file.resolve().parent
    if not (folder / MANIFEST).is_file():
        raise FileNotFoundError(f"{file}: its folder has no {MANIFEST}, so `paperlab run` did not make it")
    manifest = json.loads((folder / MANIFEST).read_text())
    if file.name not in manifest["outputs"]:
        raise ValueError(f"{file}: not among the outputs of {manifest['notebook']}; was it put there by hand?")
    return "\n".join(_lines(file, folder, manifest))


def _lines(file: Path, folder: Path, manifest: dict) -> list[str]:
    changed = "" if sha256(file) == manifest["outputs"][file.name] else "  (CHANGED since that run)"
    artifacts, findings = read_index(folder)
    shown = next((item for item in artifacts if file.name in item.files), None)
    lines = [f"file        {file.name}{changed}"]
    if shown:
        claims = [item.claim_id for item in findings if item.artifact == shown.name]
        lines += [
            f"shows       {shown.caption}",
            f"evidence    {', '.join(shown.evidence)}{' (timed)' if shown.timed else ''}",
            f"decides     {', '.join(claims) or 'no claim'}",
        ]
    lines += [
        f"notebook    notebooks/{manifest['notebook']}.ipynb, profile {manifest['profile']}",
        f"parameters  {json.dumps(manifest['parameters'])}",
        f"settings    {json.dumps(manifest['settings'])}",
        f"made        {manifest['started_utc']} in {manifest['wall_s']} s, commit {manifest['commit']}",
        f"host        {json.dumps(manifest['host'])}",
        "inputs",
    ]
    return lines + [f"  {digest[:12]}  {path}" for path, digest in manifest["inputs"].items()]
