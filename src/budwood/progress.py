"""What is said while work goes on: bars with the time left, and notes, on stderr, in a notebook or nowhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import Any, Final, Protocol

REDRAWN: Final = 0.1  # seconds between two drawings of a bar in a notebook


class Progress(Protocol):
    """Interface of what receives notes and the steps of long jobs."""

    def note(self, sentence: str) -> None:
        """Show one sentence.

        Args:
            sentence: The text, without a line break at its end.
        """

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show a progress bar while the block runs.

        Args:
            label: What is being done, shown beside the bar.
            total: Number of steps of the whole job.

        Yields:
            A function to call with the number of steps completed since its last call.
        """
        yield lambda steps: None


class Silent:
    """Progress that shows nothing, the default of the Python interface outside notebooks."""

    def note(self, sentence: str) -> None:
        """Discard the sentence.

        Args:
            sentence: The text that is not shown.
        """

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        """Run the block without drawing a bar.

        Args:
            label: Ignored.
            total: Ignored.

        Yields:
            A function that accepts a number of steps and does nothing.
        """
        yield lambda steps: None


class DistinctNotes:
    """Progress that says each note once, however often it is given."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._said: set[str] = set()

    def note(self, sentence: str) -> None:
        """Say a sentence that was not said yet."""
        if sentence not in self._said:
            self._said.add(sentence)
            self._progress.note(sentence)

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        """A bar as ever."""
        with self._progress.bar(label, total) as step:
            yield step


class Terminal:
    """Progress on stderr: notes, and bars with the time left."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False)

    def note(self, sentence: str) -> None:
        """Print one sentence to stderr.

        Args:
            sentence: The text, printed as it is, without markup.
        """
        self._console.print(sentence, markup=False, soft_wrap=True)  # a log has a line for each

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        """Draw a bar with count, share and time left, which disappears when the block ends.

        Nothing is drawn where stderr is not a terminal, as a log has no use for a bar.

        Args:
            label: What is being done, shown beside the bar.
            total: Number of steps of the whole job.

        Yields:
            A function to call with the number of steps completed since its last call.
        """
        from rich import progress

        columns = (
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeRemainingColumn(),
        )
        silent = not self._console.is_terminal  # a log has no use for a bar
        with progress.Progress(*columns, console=self._console, transient=True, disable=silent) as shown:
            task = shown.add_task(label, total=total)
            yield lambda steps: shown.advance(task, steps)


@dataclass
class _Bar:
    """A bar in a notebook: what is done, of how many steps, since when."""

    label: str
    total: int
    begun: float
    done: int = 0

    def draw(self, now: float) -> str:
        """A line of HTML; what the seconds so far say of those to come."""
        spent = now - self.begun
        left = spent / self.done * (self.total - self.done) if self.done else 0.0
        told = f"{self.done:,} of {self.total:,}{f', {left:.0f} s left' if self.done and left >= 1 else ''}"
        share = min(self.done / self.total, 1.0) if self.total else 1.0
        bar = f'<progress value="{share:.3f}" max="1" style="width: 12em; max-width: 40%"></progress>'
        return f'<div style="color: inherit">{bar} {escape(self.label)}: {told}</div>'


class Notebook:
    """Progress under the cell of a notebook: notes as text, and bars that go when they are done; no widgets needed."""

    def __init__(self, display: Callable[..., Any] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """Draw nothing yet.

        Args:
            display: Shows HTML and returns a handle to change it, as `IPython.display.display` does, which it is where
                it is None.
            clock: Gives the time in seconds.
        """
        self._show = display
        self._clock = clock
        self._bars: list[_Bar] = []
        self._handle: Any = None
        self._drawn = -REDRAWN
        self._lock = threading.Lock()

    def note(self, sentence: str) -> None:
        """Print one sentence below the cell.

        Args:
            sentence: The text.
        """
        print(sentence)

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        """Draw a bar with count and time left, which disappears when the block ends.

        Args:
            label: What is being done, shown beside the bar.
            total: Number of steps of the whole job.

        Yields:
            A function to call with the number of steps completed since its last call, from any thread.
        """
        bar = _Bar(label, total, self._clock())
        self._bars.append(bar)
        self._draw(at_once=True)

        def step(steps: int) -> None:
            bar.done += steps
            self._draw()

        try:
            yield step
        finally:
            self._bars.remove(bar)
            self._draw(at_once=True)

    def _draw(self, *, at_once: bool = False) -> None:
        """Draw all bars in the one place of this progress; not more often than can be seen."""
        with self._lock:
            now = self._clock()
            if not at_once and now - self._drawn < REDRAWN:
                return
            self._drawn = now
            shown = _Html("".join(bar.draw(now) for bar in self._bars), ", ".join(bar.label for bar in self._bars))
            if self._handle is None:
                self._handle = self._find_display()(shown, display_id=True)
            else:
                self._handle.update(shown)

    def _find_display(self) -> Callable[..., Any]:
        if self._show is None:
            from IPython.display import display

            self._show = display
        return self._show


@dataclass(frozen=True, repr=False)
class _Html:
    """HTML for a notebook, and the text for a program that shows none."""

    html: str
    text: str

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.text


def choose_progress() -> Progress:
    """Choose where progress goes that nobody has chosen: below the cell of a Jupyter notebook, else nowhere.

    IPython is not imported for it: a notebook has done so.

    Returns:
        The progress.
    """
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return Notebook() if hasattr(shell, "kernel") else Silent()
