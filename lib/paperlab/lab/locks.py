"""pyproject.toml is the one source of dependencies; `environment.yml` and the lock follow from it.

The lock is a pip constraints file: the versions of this environment's packages that paperlab reaches. torch's
CUDA libraries and triton stay out, because each torch build brings the ones it was made for.
"""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path
from typing import Any

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from paperlab.lab.files import write_atomic
from paperlab.lab.paths import repo_root

EXTRAS = ("dev", "book")
LOCK = "requirements/lock.txt"
_CHOSEN_BY_TORCH = re.compile(r"^(triton|nvidia-.*|cuda-.*)$")
_OLDEST_PYTHON = Version("3.11.0")
_LOCK_HEADER = """\
# Written by `paperlab lock` from a tested environment. Used as constraints:
#   pip install -c requirements/lock.txt -e '.[dev,book]'
# triton and torch's CUDA libraries are left to the torch build that needs them.
"""


def declared(extras: tuple[str, ...] = EXTRAS) -> list[Requirement]:
    """Return the requirements of pyproject.toml, with those of `extras`."""
    project = tomllib.loads((repo_root() / "pyproject.toml").read_text())["project"]
    lines = list(project["dependencies"])
    for extra in extras:
        lines += project["optional-dependencies"][extra]
    return [Requirement(line) for line in lines]


def environment_yml() -> str:
    """Return the conda environment that installs what pyproject.toml declares, pinned by the lock."""
    return f"""\
# Written by `paperlab lock`. conda env create -f environment.yml (mamba and Binder read it too)
name: paperlab
channels:
  - conda-forge
dependencies:
  - python=3.11
  - pip
  - pip:
      - --constraint {LOCK}
      - --editable .[dev,book]
"""


def lock_text() -> str:
    """Return the constraints: every installed package that the declared ones reach, at its version."""
    pins: dict[str, Requirement] = {}
    queue: list[tuple[Requirement, tuple[str, ...]]] = [(item, ()) for item in declared()]
    while queue:
        requirement, extras = queue.pop()
        name = canonicalize_name(requirement.name)
        if not _applies(requirement.marker, extras) or _CHOSEN_BY_TORCH.match(name):
            continue
        distribution = _distribution(name)
        if name in pins and not requirement.extras:
            continue
        pins[name] = _pin(name, distribution)
        queue += [(Requirement(line), tuple(requirement.extras)) for line in distribution.requires or []]
    return _LOCK_HEADER + "".join(f"{pins[name]}\n" for name in sorted(pins))


def _pin(name: str, distribution: importlib.metadata.Distribution) -> Requirement:
    """Pin a version; where it needs a newer Python than the oldest we support, allow older versions too."""
    pythons = SpecifierSet(str(distribution.metadata.json.get("requires_python", "")))
    sign = "==" if _OLDEST_PYTHON in pythons else "<="
    return Requirement(f"{name}{sign}{Version(distribution.version).public}")


def _applies(marker: Marker | None, extras: tuple[str, ...]) -> bool:
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras))


def _distribution(name: str) -> importlib.metadata.Distribution:
    try:
        return importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        raise ValueError(f"lock: {name} is not installed here; run pip install -e '.[dev,book]' first") from None


def write_locks() -> list[Path]:
    """Write `environment.yml` and the lock; return their paths."""
    root = repo_root()
    return [write_atomic(root / "environment.yml", environment_yml()), write_atomic(root / LOCK, lock_text())]


def read_lock() -> dict[str, Version]:
    """Return the pinned, or newest allowed, version of each package in the lock."""
    lines = (repo_root() / LOCK).read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {pin.name: Version(next(iter(pin.specifier)).version) for pin in pins}


def disagreements() -> list[str]:
    """Return where pyproject.toml, environment.yml and the lock do not agree, one line each."""
    pins = read_lock()
    problems = (
        []
        if (repo_root() / "environment.yml").read_text() == environment_yml()
        else ["environment.yml is not what pyproject.toml implies; run `paperlab lock`"]
    )
    for requirement in declared():
        name = canonicalize_name(requirement.name)
        if _CHOSEN_BY_TORCH.match(name):
            continue
        if name not in pins:
            problems.append(f"{LOCK} lacks {name}; run `paperlab lock`")
        elif pins[name] not in requirement.specifier:
            problems.append(f"{LOCK} pins {name}=={pins[name]}, pyproject.toml wants {requirement.specifier}")
    return problems


def third_party_imports() -> dict[str, Any]:
    """Return the distribution names that each top-level import name can come from."""
    return {
        name: sorted(set(map(canonicalize_name, names)))
        for name, names in importlib.metadata.packages_distributions().items()
    }
