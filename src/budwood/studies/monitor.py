"""Who is told how a study goes on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from budwood.progress import Progress, Silent


@dataclass(frozen=True)
class RowLine:
    """One line of the table: a row's label, its state (waiting, training, done, failed, refused, pruned) and words."""

    label: str
    state: str
    text: str


class StudyMonitor(Progress, Protocol):
    """Is shown the table whenever it changes."""

    def show(self, lines: Sequence[RowLine], left: float | None) -> None:
        """Show the table.

        Args:
            lines: One line a row, in the order of the study.
            left: About how many seconds are left; None where that is not known yet.
        """

    @contextmanager
    def watching(self, title: str) -> Iterator[None]:
        """Show the table, under a title, while the block runs."""
        yield


class SilentMonitor(Silent):
    """Shows nothing: the default of the Python interface."""

    def show(self, lines: Sequence[RowLine], left: float | None) -> None:
        """Drop the table."""

    @contextmanager
    def watching(self, title: str) -> Iterator[None]:
        """Show nothing."""
        yield
