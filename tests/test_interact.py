"""A slider's picture is always there; the slider only where somebody can move it."""

import pytest

from modernbert_edu.classroom import interact


@pytest.fixture
def shown(monkeypatch):
    drawn = []
    monkeypatch.setattr(interact, "show_figure", lambda figure, text: drawn.append((figure, text)))
    return drawn


def test_the_picture_is_drawn_once_at_the_start_values(shown, monkeypatch):
    monkeypatch.setattr(interact, "interactive", lambda: False)
    interact.slider(lambda window, n: (window, n), "a mask", window=(0, 8, 1, 2), n=(4, 32, 4, 12))
    assert shown == [((2, 12), "a mask")]


def test_nothing_moves_under_a_runner_or_outside_a_notebook(monkeypatch):
    assert not interact.interactive()  # no kernel here
    monkeypatch.setenv("MODERNBERT_EDU_STATIC", "1")
    assert not interact.interactive()


def test_moving_a_slider_draws_anew(shown, monkeypatch):
    widgets = pytest.importorskip("ipywidgets")
    made, real = [], widgets.IntSlider

    def remember(**options):
        made.append(real(**options))
        return made[-1]

    monkeypatch.setattr(widgets, "IntSlider", remember)
    monkeypatch.setattr(interact, "interactive", lambda: True)
    interact.slider(lambda window: window, "a mask", window=(0, 8, 1, 2))
    assert [(s.description, s.min, s.max, s.value) for s in made] == [("window", 0, 8, 2)]
    shown.clear()
    made[0].value = 5
    assert shown == [(5, "a mask")]
