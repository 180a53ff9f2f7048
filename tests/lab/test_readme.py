"""What the README shows exists: imports, calls with their arguments, modules, commands, and paths."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re

import pytest

from paperlab.lab.paths import repo_root

README = (repo_root() / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_examples_import_and_call_what_exists(block):
    tree, names = ast.parse(block), {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            exec(ast.unparse(node), names)
    assert names
    called = 0
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        target = _resolve(call.func, names)
        if target is not None:
            keywords = {item.arg: None for item in call.keywords}
            inspect.signature(target).bind(*(None for _ in call.args), **keywords)
            called += 1
    assert called


def _resolve(expression, names):
    """Return what a name or `module.name` of an imported module stands for; None for methods of results."""
    if isinstance(expression, ast.Name):
        return names.get(expression.id)
    if isinstance(expression, ast.Attribute) and isinstance(expression.value, ast.Name):
        owner = names.get(expression.value.id)
        return getattr(owner, expression.attr) if inspect.ismodule(owner) else None
    return None


@pytest.mark.parametrize("module", sorted(set(re.findall(r"-m (paperlab[.\w]+)", README))))
def test_modules_that_the_readme_runs_exist(module):
    assert importlib.util.find_spec(module)


def test_linked_files_exist():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (repo_root() / target).exists(), target
