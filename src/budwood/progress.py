"""What is said while work goes on: bars with the time left, and notes, on stderr or nowhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol


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
    """Progress that shows nothing, the default of the Python interface."""

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
