import itertools
import sys

import pytest

from paperlab.lab import cache
from paperlab.lab.cache import content_key


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package `kept_demo` with a module `one` and a subpackage, importable until the test ends."""
    folder = tmp_path / "kept_demo"
    (folder / "inner").mkdir(parents=True)
    for name in ("__init__", "one", "inner/__init__", "inner/two"):
        (folder / f"{name}.py").write_text(f"NAME = {name!r}\n")
    monkeypatch.syspath_prepend(tmp_path)
    cache._source_digest.cache_clear()
    yield folder
    cache._source_digest.cache_clear()
    for name in [name for name in sys.modules if name.split(".")[0] == "kept_demo"]:
        del sys.modules[name]


def test_everything_that_decides_changes_the_key(package):
    keys = [
        content_key({"seed": 0}),
        content_key({"seed": 1}),
        content_key({"seed": 0, "size": 2}),
        content_key({"seed": 0}, ["ab", "c"]),
        content_key({"seed": 0}, ["a", "bc"]),
        content_key({"seed": 0}, ["c", "ab"]),
        content_key({"seed": 0}, code=["kept_demo"]),
        content_key({"seed": 0}, code=["kept_demo.one"]),
        content_key({"seed": 0}, code=["kept_demo.inner.two"]),
    ]
    assert all(first != second for first, second in itertools.combinations(keys, 2))


def test_order_of_settings_and_kind_of_string_do_not_count():
    assert content_key({"a": 1, "b": (2, 3)}, ["x"]) == content_key({"b": [2, 3], "a": 1}, [b"x"])


@pytest.mark.parametrize(("file", "whole", "module"), [("one", True, True), ("inner/two", True, False)])
def test_a_package_counts_with_all_that_is_in_it_and_a_module_alone(package, file, whole, module):
    def keys():
        cache._source_digest.cache_clear()
        return [content_key({}, code=[name]) for name in ("kept_demo", "kept_demo.one")]

    before = keys()
    assert keys() == before
    (package / f"{file}.py").write_text("NAME = 'changed'\n")
    changed = [old != new for old, new in zip(before, keys(), strict=True)]
    assert changed == [whole, module]


def test_a_file_that_moves_within_a_package_changes_the_key(package):
    before = content_key({}, code=["kept_demo"])
    (package / "one.py").rename(package / "other.py")
    cache._source_digest.cache_clear()
    assert content_key({}, code=["kept_demo"]) != before


@pytest.mark.parametrize("name", ["kept_nowhere", "kept_nowhere.one", "paperlab.lab.nothing", "sys"])
def test_code_that_is_not_there_is_told(name):
    with pytest.raises(ValueError, match=f"code: '{name}' is no module with a source"):
        content_key({}, code=[name])
