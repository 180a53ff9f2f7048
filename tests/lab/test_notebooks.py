import nbformat
import pytest

from paperlab.lab import exercises, inputs, notebooks
from paperlab.lab.notebooks import notebook_names

from .conftest import DEMO, write_notebook


def test_sync_is_stable_and_notices_edits(lab_root):
    assert notebooks.sync() == []
    path = notebooks.notebook_path("41_demo")
    node = nbformat.read(path, as_version=4)
    node.cells[-1].source += "\nprint('edited in JupyterLab')"
    nbformat.write(node, path)
    assert notebooks.sync(check=True) == ["41_demo"]
    script = notebooks.adopt("41_demo")
    assert "edited in JupyterLab" in script.read_text()
    assert notebooks.sync(check=True) == []


def test_notebooks_carry_no_outputs_and_papermill_finds_language_and_parameters(lab_root):
    node = nbformat.read(notebooks.notebook_path("41_demo"), as_version=4)
    nbformat.validate(node)
    assert node.metadata.kernelspec.language == "python"
    assert all(not cell.get("outputs") for cell in node.cells)
    assert notebooks.parameters_of("41_demo") == {"profile": "smoke", "seed": 0, "scale": 2.0}
    assert notebooks.title_of("41_demo") == "A demo"


def test_selection_by_prefix(lab_root):
    write_notebook(lab_root, "90_end", DEMO.replace("41_demo", "90_end"))
    assert notebooks.notebook_names() == ["41_demo", "90_end"]
    assert notebooks.notebook_names("4") == ["41_demo"]
    with pytest.raises(ValueError, match="nothing starts with '7'; there are 41_demo, 90_end"):
        notebooks.notebook_names("7")


def test_student_copy_has_stubs_and_everything_else(lab_root):
    student = exercises.student_copy("41_demo")
    teacher = nbformat.read(notebooks.notebook_path("41_demo"), as_version=4)
    differing = [s for s, t in zip(student.cells, teacher.cells, strict=True) if s.source != t.source]
    assert len(differing) == 1
    scope = {}
    exec(differing[0].source, scope)
    assert scope["double"].__doc__ == "Return twice x."
    with pytest.raises(NotImplementedError, match="Write double here"):
        scope["double"](1)


def test_workshop_writes_both_copies(lab_root, tmp_path):
    student, instructor = exercises.write_workshop(tmp_path)
    assert (student.parent.name, instructor.parent.name) == ("student", "instructor")
    assert "NotImplementedError" in student.read_text()
    assert "NotImplementedError" not in instructor.read_text()


def test_stub_needs_a_function():
    with pytest.raises(ValueError, match="must define a function"):
        exercises.stub("x = 1")


def test_inputs_follow_imports_but_not_other_systems(lab_root):
    write_notebook(
        lab_root, "41_demo", DEMO.replace("from paperlab.lab", "import paperlab.hardware\nfrom paperlab.lab")
    )
    names = {path.name for path in inputs.notebook_inputs("41_demo")}
    assert {"41_demo.ipynb", "tempo.csv", "record.py", "tables.py", "specs.py"} <= names
    # The executor and the pages do not shape a number, so editing them makes nothing stale.
    assert not {"execute.py", "report.py", "cli.py", "gelu.py"} & names


@pytest.mark.parametrize("name", notebook_names())
def test_committed_notebook_agrees_with_its_script_and_the_conventions(name):
    assert notebooks.notebook_path(name).read_text() == nbformat.writes(notebooks.paired(name)) + "\n"
    parameters = notebooks.parameters_of(name)
    assert parameters["profile"] == "smoke"
    assert parameters["seed"] == 0
    assert len(parameters) <= 5
    for cell in nbformat.read(notebooks.notebook_path(name), as_version=4).cells:
        assert len(cell.source.splitlines()) <= 60, "longer than a screen: move it to the library"
