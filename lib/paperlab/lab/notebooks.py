"""The notebooks as files: discovery, parameters, and the pairing of `NN_name.ipynb` with `py/NN_name.py`."""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paperlab.lab.files import write_atomic
from paperlab.lab.paths import notebooks_dir

if TYPE_CHECKING:
    from nbformat import NotebookNode

SYSTEMS = {1: "nexus", 2: "mist", 3: "seesaw", 4: "tempo", 5: "aquant", 6: "rgbd_grasp"}
KERNEL = {"display_name": "Python 3 (Paperlab)", "language": "python", "name": "python3"}


def notebook_names(select: str = "") -> list[str]:
    """Return the stems of all notebooks that start with `select` (such as `41` or `4`), in order.

    Raises:
        ValueError: none does; the message lists them all.
    """
    names = sorted(path.stem for path in notebooks_dir().glob("[0-9][0-9]_*.ipynb"))
    chosen = [name for name in names if name.startswith(select)]
    if not chosen:
        raise ValueError(f"notebook: nothing starts with {select!r}; there are {', '.join(names)}")
    return chosen


def system_of(notebook: str) -> str | None:
    """Return the system that a notebook is about (`41_tempo_experiments` -> `tempo`; 91: `across`), or None."""
    return "across" if notebook.startswith("91") else SYSTEMS.get(int(notebook[0]))


def notebook_path(notebook: str) -> Path:
    """Return the path of the notebook with this stem."""
    return notebooks_dir() / f"{notebook}.ipynb"


def script_path(notebook: str) -> Path:
    """Return the path of the notebook's py:percent twin."""
    return notebooks_dir() / "py" / f"{notebook}.py"


def code_of(notebook: str) -> str:
    """Return the Python code of all cells of a notebook, magics left out."""
    import nbformat

    cells = nbformat.read(notebook_path(notebook), as_version=4).cells
    lines = "\n".join(cell.source for cell in cells if cell.cell_type == "code").splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith(("%", "!")))


def title_of(notebook: str) -> str:
    """Return the first heading of a notebook."""
    import nbformat

    for cell in nbformat.read(notebook_path(notebook), as_version=4).cells:
        for line in cell.source.splitlines() if cell.cell_type == "markdown" else []:
            if line.startswith("# "):
                return line[2:].strip()
    return notebook


def parameters_of(notebook: str) -> dict[str, Any]:
    """Return the defaults of the cell tagged `parameters`, by name.

    Raises:
        ValueError: the notebook has no such cell.
    """
    import nbformat

    cells = nbformat.read(notebook_path(notebook), as_version=4).cells
    tagged = [cell.source for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    if not tagged:
        raise ValueError(f"{notebook}: no cell is tagged 'parameters'")
    assignments = [node for node in ast.parse(tagged[0]).body if isinstance(node, ast.AnnAssign)]
    return {ast.unparse(node.target): ast.literal_eval(node.value) for node in assignments if node.value}


def check_parameters(notebook: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return all parameters of a run: the notebook's defaults, overridden by `given`.

    papermill only warns of a misspelled parameter and then runs with the default, so the check is ours.

    Raises:
        ValueError: an unknown name, or a value whose type is not the default's.
    """
    defaults = parameters_of(notebook)
    for name, value in given.items():
        if name not in defaults:
            raise ValueError(f"{notebook}: unknown parameter {name!r}; it has {', '.join(defaults)}")
        wanted = type(defaults[name])
        if type(value) is not wanted and not (wanted is float and type(value) is int):
            raise ValueError(
                f"{notebook}: parameter {name} is {value!r}, a {type(value).__name__}; give a {wanted.__name__}"
            )
    return {**defaults, **given}


def paired(notebook: str) -> NotebookNode:
    """Return the notebook that `py/NN_name.py` stands for: no outputs, stable cell ids, our kernel."""
    import jupytext

    node = jupytext.read(script_path(notebook), fmt="py:percent")
    node.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    node.nbformat, node.nbformat_minor = 4, 5
    for index, cell in enumerate(node.cells):
        # Ids are required and normally random; derived ones keep the file the same on every sync.
        cell.id = hashlib.sha256(f"{notebook}/{index}".encode()).hexdigest()[:8]
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return node


def sync(check: bool = False) -> list[str]:
    """Write every notebook from its script; with `check`, write nothing. Return the stems that differed."""
    import nbformat

    changed = []
    for script in sorted((notebooks_dir() / "py").glob("[0-9][0-9]_*.py")):
        text = nbformat.writes(paired(script.stem)) + "\n"
        target = notebook_path(script.stem)
        if not target.exists() or target.read_text() != text:
            changed.append(script.stem)
            if not check:
                write_atomic(target, text)
    return changed


def adopt(notebook: str) -> Path:
    """Write the script from a notebook edited in JupyterLab, then strip the notebook. Return the script."""
    import jupytext
    import nbformat

    node = nbformat.read(notebook_path(notebook), as_version=4)
    node.metadata = {}
    write_atomic(script_path(notebook), jupytext.writes(node, fmt="py:percent"))
    write_atomic(notebook_path(notebook), nbformat.writes(paired(notebook)) + "\n")
    return script_path(notebook)
