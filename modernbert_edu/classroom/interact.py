"""Sliders in a lesson, where there is somebody to move them.

There is one picture. It is stored with the lesson as every picture is, and a slider draws it anew in its place. The
sliders are added only in a live JupyterLab with ipywidgets installed: a stored one would be a grey box to all others.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

from .live import watched
from .show import figure_bundle, show_figure


def interactive() -> bool:
    """Whether a reader can move a slider here: a notebook that no runner executes, with ipywidgets installed."""
    return watched() and find_spec("ipywidgets") is not None


def slider(draw: Callable, text: str, **ranges: tuple[float, float, float, float]) -> None:
    """Show `draw(**values)`, a matplotlib Figure, at the start values; live, with a slider for each name above it.

    `ranges` are name=(low, high, step, start); whole numbers make whole steps. `text` says what is in the picture.
    """
    starts = {name: start for name, (_, _, _, start) in ranges.items()}
    if not interactive():
        show_figure(draw(**starts), text)
        return
    import ipywidgets
    from IPython.display import display

    sliders = {name: _slider(name, *limits) for name, limits in ranges.items()}
    display(ipywidgets.VBox(list(sliders.values())))
    picture = display(figure_bundle(draw(**starts), text), raw=True, display_id=True)

    def moved(_) -> None:
        values = {name: one.value for name, one in sliders.items()}
        try:
            bundle = figure_bundle(draw(**values), text)
        except Exception as error:  # from here it would reach no cell
            bundle = {"text/plain": f"{type(error).__name__}: {error}"}
        picture.update(bundle, raw=True)

    for one in sliders.values():
        one.observe(moved, names="value")


def _slider(name: str, low: float, high: float, step: float, start: float):
    import ipywidgets

    whole = all(isinstance(x, int) for x in (low, high, step, start))
    kind = ipywidgets.IntSlider if whole else ipywidgets.FloatSlider
    return kind(value=start, min=low, max=high, step=step, description=name, continuous_update=False)
