"""What-if panels: sliders in JupyterLab, a static grid of the same drawings when run headlessly."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from paperlab.lab.record import STAGING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Draw = Callable[..., None]


def panel(draw: Draw, **choices: Sequence[Any]) -> Figure | None:
    """Let a reader vary the arguments of `draw(axes, **values)`.

    Args:
        draw: draws into the axes it is given.
        choices: the values each argument can take; the first is where a slider starts.

    Returns:
        the grid's figure when headless, None in JupyterLab, where the widget shows itself.

    Raises:
        ValueError: an argument has no choices.
    """
    empty = [name for name, values in choices.items() if not values]
    if empty or not choices:
        raise ValueError(f"panel: give at least one choice for {', '.join(empty) or 'an argument'}")
    if STAGING in os.environ:
        return static_grid(draw, choices)
    _interact(draw, choices)
    return None


def static_grid(draw: Draw, choices: dict[str, Sequence[Any]]) -> Figure:
    """Draw the first argument's choices side by side, and a row for each choice of the second."""
    from matplotlib import pyplot as plt

    names = list(choices)
    columns = choices[names[0]]
    rows = choices[names[1]] if len(names) > 1 else [None]
    first = {name: values[0] for name, values in choices.items()}
    size = (4.2 * len(columns), 3.2 * len(rows))
    figure, grid = plt.subplots(len(rows), len(columns), figsize=size, squeeze=False, sharex=True, layout="constrained")
    for row, axes_of_row in zip(rows, grid, strict=True):
        for column, axes in zip(columns, axes_of_row, strict=True):
            second = {names[1]: row} if len(names) > 1 else {}
            draw(axes, **{**first, names[0]: column, **second})
    return figure


def _interact(draw: Draw, choices: dict[str, Sequence[Any]]) -> None:
    import ipywidgets
    from matplotlib import pyplot as plt

    def redraw(**values: Any) -> None:
        _, axes = plt.subplots(layout="constrained")
        draw(axes, **values)
        plt.show()

    sliders = {
        name: ipywidgets.SelectionSlider(options=list(values), value=values[0], description=name)
        for name, values in choices.items()
    }
    ipywidgets.interact(redraw, **sliders)
