"""What is said while work goes on: bars with the time left, and notes, on stderr or nowhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol


class Progress(Protocol):
    """Receives notes and the steps of long jobs."""

    def note(self, sentence: str) -> None:
        """Say one sentence."""

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        """A bar of `total` steps; the yielded function is told how many more are done."""
        yield lambda steps: None


class Silent:
    """Says nothing: the default of the Python interface."""

    def note(self, sentence: str) -> None:
        """Drop the sentence."""

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        """A bar that is not drawn."""
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
    """Notes and bars with the time left, on stderr."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False)

    def note(self, sentence: str) -> None:
        """Print one sentence."""
        self._console.print(sentence, markup=False)

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        """A bar with count, share and time left, which goes when the block ends."""
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
