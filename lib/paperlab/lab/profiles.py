"""Profiles: how much work a run does (`smoke`, `cpu`, `gpu`), read from the one table `profiles.toml`."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

Config = TypeVar("Config")


@dataclass(frozen=True)
class Profile:
    """One row of the profile table: its device, its budgets and each system's settings."""

    name: str
    description: str
    device: str  # "cpu" or "cuda"
    total_minutes: float  # budget of the whole set on 2 cores
    notebook_minutes: float  # budget of one notebook
    memory_GiB: float  # peak resident memory of one notebook and its children
    threads: int  # OMP threads of a notebook's kernel
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.device not in ("cpu", "cuda"):
            raise ValueError(f"profile {self.name}: device {self.device!r} is not 'cpu' or 'cuda'")
        if min(self.total_minutes, self.notebook_minutes, self.memory_GiB, self.threads) <= 0:
            raise ValueError(f"profile {self.name}: budgets and threads must be positive")

    def config(self, system: str, cls: type[Config]) -> Config:
        """Build `system`'s frozen config dataclass from its section of the table.

        Raises:
            KeyError: the section holds a key that `cls` does not know.
        """
        section = self.settings.get(system, {})
        known = {item.name for item in fields(cls)}  # type: ignore[arg-type]
        unknown = sorted(set(section) - known)
        if unknown:
            where = f"profiles.toml [{self.name}.{system}]"
            raise KeyError(f"{where}: unknown {', '.join(unknown)}; known: {', '.join(sorted(known))}")
        # TOML has arrays, frozen dataclasses want hashable tuples.
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in section.items()}
        return cls(**values)


@cache
def _table() -> dict[str, Profile]:
    text = Path(__file__).with_name("profiles.toml").read_text()
    return {name: _profile(name, row) for name, row in tomllib.loads(text).items()}


def _profile(name: str, row: dict[str, Any]) -> Profile:
    settings = {key: value for key, value in row.items() if isinstance(value, dict)}
    return Profile(name, settings=settings, **{key: row[key] for key in row if key not in settings})


def profile_names() -> list[str]:
    """Return the names of all profiles in the order of the table."""
    return list(_table())


def get_profile(name: str) -> Profile:
    """Return the profile called `name`.

    Raises:
        ValueError: there is none; the message lists them.
    """
    if name not in _table():
        raise ValueError(f"profile: {name!r} is unknown; use one of {', '.join(_table())}")
    return _table()[name]
