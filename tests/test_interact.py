"""A slider's picture is always there, once; the slider only where somebody can move it."""

import pytest
from matplotlib.figure import Figure

from modernbert_edu.classroom import interact


@pytest.fixture
def screen(monkeypatch):
    """What is displayed, in order; a picture with an id is replaced where it stands."""
    import IPython.display

    outputs = []

    class Handle:
        def __init__(self, place):
            self.place = place

        def update(self, shown, raw):
            outputs[self.place] = shown

    def display(shown, raw=False, display_id=False):
        outputs.append(shown)
        return Handle(len(outputs) - 1) if display_id else None

    monkeypatch.setattr(IPython.display, "display", display)
    return outputs


def drawing(drawn):
    """A function to be drawn by, which remembers its values in `drawn`."""

    def draw(**values):
        drawn.append(values)
        figure = Figure(figsize=(1, 1))
        figure.text(0.1, 0.5, str(values))
        return figure

    return draw


def pictures(screen):
    return [shown["image/png"] for shown in screen if isinstance(shown, dict)]


def test_without_a_reader_the_picture_is_all_and_at_the_start_values(screen, monkeypatch):
    monkeypatch.setattr(interact, "interactive", lambda: False)
    drawn = []
    interact.slider(drawing(drawn), "a mask", window=(0, 8, 1, 2), n=(4, 32, 4, 12))
    assert drawn == [dict(window=2, n=12)]
    assert [shown["text/plain"] for shown in screen] == ["[figure: a mask]"]


def test_nothing_moves_under_a_runner_outside_a_notebook_or_without_widgets(monkeypatch):
    assert not interact.interactive()  # no kernel here
    monkeypatch.setattr("modernbert_edu.classroom.live.in_notebook", lambda: True)
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    monkeypatch.delenv("MODERNBERT_EDU_STATIC", raising=False)
    monkeypatch.setattr(interact, "find_spec", lambda name: object() if name == "ipywidgets" else None)
    assert interact.interactive()
    monkeypatch.setenv("MODERNBERT_EDU_STATIC", "1")
    assert not interact.interactive()
    monkeypatch.delenv("MODERNBERT_EDU_STATIC")
    monkeypatch.setattr(interact, "find_spec", lambda name: None)
    assert not interact.interactive()


def test_moving_a_slider_draws_the_one_picture_anew(screen, monkeypatch):
    pytest.importorskip("ipywidgets")
    monkeypatch.setattr(interact, "interactive", lambda: True)
    drawn = []
    interact.slider(drawing(drawn), "a mask", window=(0, 8, 1, 2), share=(0.0, 1.0, 0.25, 0.5))
    (box,) = [shown for shown in screen if not isinstance(shown, dict)]
    window, share = box.children
    assert [(s.description, s.min, s.max, s.step, s.value) for s in box.children] == [
        ("window", 0, 8, 1, 2), ("share", 0, 1, 0.25, 0.5),
    ]  # fmt: skip
    (first,) = pictures(screen)
    window.value = 5
    assert drawn == [dict(window=2, share=0.5), dict(window=5, share=0.5)]
    (moved,) = pictures(screen)
    assert moved != first
    share.value, window.value = 0.75, 2
    assert drawn[-1] == dict(window=2, share=0.75)
    share.value = 0.5
    assert pictures(screen) == [first]
