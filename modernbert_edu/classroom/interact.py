"""Sliders in a lesson, where there is somebody to move them.

The picture is always drawn once, as it is stored with the lesson. A slider is added only in a live JupyterLab with
ipywidgets installed: a stored widget would be a grey box to everyone else.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from .show import show_figure


def interactive() -> bool:
    """Whether a reader can move a slider here: a notebook that no runner executes, with ipywidgets installed."""
    if os.environ.get("MODERNBERT_EDU_STATIC") or os.environ.get("PYTEST_CURRENT_TEST"):
        return False
    try:
        import ipywidgets  # noqa: F401
        from IPython import get_ipython
    except ImportError:
        return False
    return get_ipython() is not None and hasattr(get_ipython(), "kernel")


def slider(draw: Callable, text: str, **ranges: tuple[float, float, float, float]) -> None:
    """Show `draw(**values)`, a matplotlib Figure, at the start values; live, with a slider for each name.

    `ranges` are name=(low, high, step, start); whole numbers make whole steps. `text` says what is in the picture.
    """
    starts = {name: start for name, (_, _, _, start) in ranges.items()}
    show_figure(draw(**starts), text)
    if not interactive():
        return
    import ipywidgets
    from IPython.display import display

    def make(low, high, step, start):
        kind = ipywidgets.IntSlider if all(isinstance(x, int) for x in (low, high, step, start)) else None
        kind = kind or ipywidgets.FloatSlider
        return kind(value=start, min=low, max=high, step=step, continuous_update=False)

    sliders = {name: make(*limits) for name, limits in ranges.items()}
    for name, one in sliders.items():
        one.description = name
    output = ipywidgets.interactive_output(lambda **values: show_figure(draw(**values), text), sliders)
    display(ipywidgets.VBox([*sliders.values(), output]))
