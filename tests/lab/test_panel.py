import matplotlib.pyplot as plt
import pytest

from paperlab.lab.panel import panel
from paperlab.tempo.what_if import draw_kept, kept_by_operator


def test_headless_panel_draws_every_choice(monkeypatch):
    monkeypatch.setenv("PAPERLAB_STAGING", "anywhere")
    drawn = []
    figure = panel(lambda axes, x, y, z: drawn.append((x, y, z)), x=[1, 2], y=["a", "b"], z=[True, False])
    assert drawn == [(1, "a", True), (2, "a", True), (1, "b", True), (2, "b", True)]
    plt.close(figure)


def test_panel_in_a_session_shows_a_widget(monkeypatch):
    monkeypatch.delenv("PAPERLAB_STAGING", raising=False)
    seen = {}
    monkeypatch.setattr("ipywidgets.interact", lambda function, **sliders: seen.update(sliders))
    assert panel(lambda axes, x: None, x=[3, 1]) is None
    assert seen["x"].value == 3
    assert seen["x"].options == (3, 1)


def test_panel_needs_choices():
    with pytest.raises(ValueError, match="at least one choice for x"):
        panel(lambda axes, x: None, x=[])


def test_what_if_agrees_with_the_closed_form():
    table = kept_by_operator(512, 1024, "fp32", batch=1)
    total = table.sum() * 2**20 / (512 * 1024)
    assert total["paper era"] == pytest.approx(170, abs=0.02)
    assert total["Tempo"] == pytest.approx(86, abs=0.02)
    figure, axes = plt.subplots()
    draw_kept(axes, 512, 1024, "fp32")
    assert "1.98x and 1.60x" in axes.get_title()
    plt.close(figure)
    with pytest.raises(ValueError, match="dtype is 'int8'; use one of fp32, 16-bit"):
        kept_by_operator(512, 1024, "int8")
    with pytest.raises(ValueError, match="multiple of the head size"):
        kept_by_operator(512, 100, "fp32")
