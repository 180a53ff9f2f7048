"""The house's own rules: who may import whom, what is declared, what every system must look like."""

import ast
import subprocess
import sys

import pytest
from packaging.utils import canonicalize_name

from paperlab.lab import conventions, inputs, locks
from paperlab.lab.notebooks import SYSTEMS
from paperlab.lab.paths import repo_root

PACKAGES = repo_root() / "lib" / "paperlab"
ACROSS = "across"  # joins the systems, for notebooks alone
BUILT = [name for name in (*SYSTEMS.values(), ACROSS) if (PACKAGES / name / "experiments.py").exists()]
SHARED = {
    "hardware": {"lab"},
    "transformer": {"lab"},
    "serving": {"lab", "hardware", "transformer"},
    "lab": {"hardware"},
}
# Declared because people or the graph run them, not because our code imports them.
RUN_NOT_IMPORTED = {
    "jupyterlab", "ipykernel", "snakemake", "ruff", "mypy", "pre-commit", "pytest-xdist", "pytest-benchmark",
    "pandas-stubs", "types-pyyaml", "tabulate", "ipywidgets", "sphinx", "myst-nb", "sphinx-book-theme",
    "sphinx-mathjax-offline",
}  # fmt: skip


def allowed(package):
    if package in SHARED:
        return SHARED[package]
    if package == ACROSS:
        return {*SHARED, *SYSTEMS.values()}
    return {"lab", "hardware", "transformer"} | ({"serving"} if package in ("nexus", "seesaw") else set())


def sources(folder):
    return [path for path in sorted(folder.rglob("*.py")) if "__pycache__" not in path.parts]


@pytest.mark.parametrize("package", sorted(path.name for path in PACKAGES.iterdir() if (path / "__init__.py").exists()))
def test_import_boundary(package):
    for file in sources(PACKAGES / package):
        for name in inputs._imported(file.read_text()):
            parts = name.split(".")
            other = parts[1] if len(parts) > 1 and (PACKAGES / parts[1]).is_dir() else package
            assert other == package or other in allowed(package), f"{file.name} imports {name}"


def test_importing_paperlab_is_light():
    heavy = "torch, transformers, triton, seaborn, matplotlib, mujoco, papermill, pandas"
    code = f"import sys, paperlab, paperlab.lab; print([m for m in {heavy.split(', ')!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("system", BUILT)
def test_system_follows_the_conventions(system):
    assert conventions.check_system(system) == []


@pytest.mark.parametrize("package", ["lab", "hardware", "transformer", "serving"])
def test_shared_packages_keep_files_and_functions_short(package):
    assert conventions.check_sources(PACKAGES / package) == []


def test_conventions_checker_finds_faults(tmp_path):
    (tmp_path / "long.py").write_text("def f():\n" + "    x = 1\n" * 260)
    assert len(conventions.check_sources(tmp_path)) == 2


def test_pyproject_environment_and_lock_agree():
    assert locks.disagreements() == []


def imported_packages():
    names = set()
    for folder in (repo_root() / "lib", repo_root() / "tests", repo_root() / "notebooks" / "py"):
        for file in sources(folder):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Import):
                    names |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - {"paperlab", "tests"}


def test_every_import_is_declared_and_every_declared_package_is_used():
    declared = {canonicalize_name(item.name) for item in locks.declared()}
    providers = locks.third_party_imports()
    used = set()
    for name in imported_packages():
        candidates = set(providers.get(name, [canonicalize_name(name)]))
        assert candidates & declared, f"import {name} is not declared in pyproject.toml"
        used |= candidates & declared
    assert declared - used - RUN_NOT_IMPORTED == set()


def test_nothing_in_the_repository_unpickles_data():
    for file in sources(PACKAGES):
        text = file.read_text()
        for call in ("pickle.load", "yaml.load(", "allow_pickle=True", "weights_only=False"):
            assert call not in text, f"{file}: {call}"
