"""Who is told how a study goes on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from budwood.progress import Progress, Silent


@dataclass(frozen=True)
class Line:
    """One line of the table: a row's label, its state (waiting, training, done, failed, refused, pruned) and words."""

    label: str
    state: str
    told: str


class Watcher(Progress, Protocol):
    """Is shown the table whenever it changes, with the seconds that are left (None: not known yet)."""

    def show(self, lines: Sequence[Line], left: float | None) -> None:
        """Show the table."""

    @contextmanager
    def watching(self, title: str) -> Iterator[None]:
        """The table is shown while the block runs."""
        yield


class Unwatched(Silent):
    """Shows nothing: the default of the Python interface."""

    def show(self, lines: Sequence[Line], left: float | None) -> None:
        """Drop the table."""

    @contextmanager
    def watching(self, title: str) -> Iterator[None]:
        """Nothing is shown."""
        yield
