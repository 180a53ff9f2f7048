"""What every system package must look like, checked by one function over all of them (DESIGN of the house)."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

MAX_FILE_LINES = 250
MAX_FUNCTION_LINES = 50  # what fits a screen
_EXHIBIT = re.compile(r"^(figure|table|exhibit)_\w+$")


def check_system(system: str) -> list[str]:
    """Return every way in which `paperlab.<system>` departs from the conventions, one line each."""
    package = importlib.import_module(f"paperlab.{system}")
    experiments = importlib.import_module(f"paperlab.{system}.experiments")
    plots = importlib.import_module(f"paperlab.{system}.plots")
    config = importlib.import_module(f"paperlab.{system}.config").Config
    return [
        *_check_package(package),
        *_check_config(config),
        *_check_experiments(experiments, plots),
        *check_sources(Path(package.__file__ or "").parent),
    ]


def _check_package(package: ModuleType) -> Iterator[str]:
    name = package.__name__
    for path in sorted(Path(package.__file__ or "").parent.iterdir()):
        is_part = path.suffix == ".py" or (path / "__init__.py").exists()
        if is_part and path.name != "__init__.py" and path.name not in (package.__doc__ or ""):
            yield f"{name}: the docstring, a map from the paper's parts to files, leaves out {path.name}"
    for public in getattr(package, "__all__", []):
        item = getattr(package, public)
        if (inspect.isfunction(item) or inspect.isclass(item)) and not inspect.getdoc(item):
            yield f"{name}.{public}: no docstring"
    if not getattr(package, "__all__", []):
        yield f"{name}: no __all__"


def _check_config(config: type) -> Iterator[str]:
    if not dataclasses.is_dataclass(config) or not config.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        yield f"{config.__module__}.Config: must be a frozen dataclass"
    elif any(item.default is dataclasses.MISSING for item in dataclasses.fields(config)):
        yield f"{config.__module__}.Config: every field needs a default"


def _check_experiments(experiments: ModuleType, plots: ModuleType) -> Iterator[str]:
    exhibits = dict(_own_functions(experiments))
    for name, function in exhibits.items():
        if not _EXHIBIT.match(name):
            yield f"{experiments.__name__}.{name}: name it figure_*, table_* or exhibit_*"
        if list(inspect.signature(function).parameters)[:1] != ["config"]:
            yield f"{experiments.__name__}.{name}: its first parameter must be `config`"
    for name, _ in _own_functions(plots):
        if name not in exhibits:
            yield f"{plots.__name__}.{name}: no experiment of that name"


def _own_functions(module: ModuleType) -> Iterator[tuple[str, Callable[..., object]]]:
    for name, item in inspect.getmembers(module, inspect.isfunction):
        if item.__module__ == module.__name__ and not name.startswith("_"):
            yield name, item


def check_sources(folder: Path) -> list[str]:
    """Return the files and functions below `folder` that are too long, and public ones without a docstring."""
    return [problem for file in sorted(folder.rglob("*.py")) for problem in _check_file(file)]


def _check_file(file: Path) -> Iterator[str]:
    source = file.read_text()
    if len(source.splitlines()) > MAX_FILE_LINES:
        yield f"{file.name}: {len(source.splitlines())} lines, at most {MAX_FILE_LINES}"
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef):
            continue
        length = (node.end_lineno or node.lineno) - node.lineno + 1 - len((ast.get_docstring(node) or "").splitlines())
        if length > MAX_FUNCTION_LINES:
            yield f"{file.name}:{node.name}: {length} lines without its docstring, at most {MAX_FUNCTION_LINES}"
