"""Progress in notebooks: bars in one place below the cell, notes as text, and nothing where there is no notebook."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from budwood.progress import Notebook, Silent, choose_progress
from budwood.storage.context import open_context


class FakeDisplay:
    """What IPython's `display` does: the first call makes a place, `update` changes it."""

    def __init__(self) -> None:
        self.made = 0
        self.shown: list[str] = []

    def __call__(self, value: Any, *, display_id: bool) -> FakeDisplay:
        assert display_id
        self.made += 1
        self.update(value)
        return self

    def update(self, value: Any) -> None:
        self.shown.append(value._repr_html_())


class Clock:
    """A time that the test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_bar_is_drawn_in_one_place_with_the_time_left_and_goes_when_it_is_done() -> None:
    display, clock = FakeDisplay(), Clock()
    progress = Notebook(display, clock)
    with progress.bar("Reading <images>", 1000) as step:
        assert "Reading &lt;images&gt;: 0 of 1,000<" in display.shown[-1]
        clock.now = 10.0
        step(250)
        assert 'value="0.250"' in display.shown[-1]
        assert "250 of 1,000, 30 s left" in display.shown[-1]
    assert display.shown[-1] == ""
    assert display.made == 1


def test_bars_within_bars_stand_below_each_other_and_a_second_uses_the_same_place() -> None:
    display, clock = FakeDisplay(), Clock()
    progress = Notebook(display, clock)
    with progress.bar("outer", 2):
        with progress.bar("inner", 3):
            assert display.shown[-1].index("outer") < display.shown[-1].index("inner")
        assert "inner" not in display.shown[-1]
    with progress.bar("later", 1):
        pass
    assert display.made == 1


def test_it_is_not_drawn_more_often_than_can_be_seen() -> None:
    display, clock = FakeDisplay(), Clock()
    with Notebook(display, clock).bar("steps", 10_000) as step:
        for number in range(10_000):
            clock.now = number / 10_000
            step(1)
    assert len(display.shown) <= 2 + 10


def test_a_bar_goes_when_the_work_fails() -> None:
    display = FakeDisplay()
    with pytest.raises(ValueError, match="broken"), Notebook(display, Clock()).bar("work", 1):
        raise ValueError("broken")
    assert display.shown[-1] == ""


def test_a_note_is_text_below_the_cell(capsys: pytest.CaptureFixture[str]) -> None:
    Notebook(FakeDisplay(), Clock()).note("<5 images>")
    assert capsys.readouterr().out == "<5 images>\n"


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> FakeDisplay:
    """IPython as a Jupyter kernel has it."""
    display = FakeDisplay()
    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display))
    return display


def test_in_a_notebook_progress_is_shown_without_being_asked_for(notebook: FakeDisplay) -> None:
    progress = open_context().progress
    assert isinstance(progress, Notebook)
    with progress.bar("work", 1):
        assert "work" in notebook.shown[0]
    assert isinstance(open_context(progress=Silent()).progress, Silent), "what is given is used"


@pytest.mark.parametrize("shell", [None, SimpleNamespace()], ids=["no shell", "IPython in a terminal"])
def test_elsewhere_nothing_is_shown(shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    assert isinstance(choose_progress(), Silent)
    monkeypatch.delitem(sys.modules, "IPython")
    assert isinstance(choose_progress(), Silent)
    assert "IPython" not in sys.modules
