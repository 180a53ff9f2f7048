"""Exercises have one source: the notebook with its solutions; the student's copy is made from it.

In a cell tagged `solution` the student finds each function with its docstring and a stub in place of its body.
"""

from __future__ import annotations

import ast
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING

from paperlab.lab.files import write_atomic
from paperlab.lab.notebooks import notebook_names, notebook_path

if TYPE_CHECKING:
    from nbformat import NotebookNode


class ExerciseError(AssertionError):
    """A solution is not right yet; the message says what to look at."""


def expect(condition: bool, hint: str) -> None:
    """Raise `ExerciseError` with `hint` unless `condition` holds."""
    if not condition:
        raise ExerciseError(hint)


def stub(source: str) -> str:
    """Return `source` with the body of every top-level function replaced by a stub, docstrings kept.

    Raises:
        ValueError: the cell defines no function, so there is nothing for a student to write.
    """
    functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    if not functions:
        raise ValueError("a cell tagged 'solution' must define a function")
    lines = source.splitlines()
    for function in reversed(functions):
        has_docstring = ast.get_docstring(function) is not None
        body = function.body[1:] if has_docstring else function.body
        first = body[0].lineno - 1
        lines[first : function.end_lineno] = [
            " " * body[0].col_offset + f'raise NotImplementedError("Write {function.name} here.")'
        ]
    return "\n".join(lines)


def tagged(node: NotebookNode, tag: str) -> list[NotebookNode]:
    """Return the cells of a notebook that carry `tag`."""
    return [cell for cell in node.cells if tag in cell.metadata.get("tags", [])]


def student_copy(notebook: str) -> NotebookNode:
    """Return the student's version of a notebook: every solution replaced by its stub."""
    import nbformat

    node = deepcopy(nbformat.read(notebook_path(notebook), as_version=4))
    for cell in tagged(node, "solution"):
        cell.source = stub(cell.source)
    return node


def write_workshop(out: Path) -> list[Path]:
    """Write `out/student` and `out/instructor`: every notebook with exercises, without and with solutions."""
    import nbformat

    written = []
    for name in notebook_names():
        teacher = nbformat.read(notebook_path(name), as_version=4)
        if not tagged(teacher, "solution"):
            continue
        for kind, node in (("student", student_copy(name)), ("instructor", teacher)):
            written.append(write_atomic(out / kind / f"{name}.ipynb", nbformat.writes(node) + "\n"))
    return written
