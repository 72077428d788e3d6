"""What training tells of itself: what was chosen for the machine, what was selected, what came from the cache."""

from __future__ import annotations

from typing import Any

from budwood.config.records import FrozenRecord


class Choices(FrozenRecord):
    """What was decided for the machine: engine and device of what is frozen and of what is trained, threads, precision,
    where the data lay, and the learning rate, where it was found by a trial."""

    device: str = "cpu"
    engine: str = ""
    engine_check: str | None = None
    threads: int | None = None
    training: str | None = None
    precision: str | None = None
    batch: str | None = None
    data: str | None = None
    freed_memory: str | None = None
    training_threads: int | None = None
    compiled: bool | None = None
    lr: float | None = None

    def table(self) -> dict[str, Any]:
        """Return the choices that were made."""
        return self.model_dump(exclude_unset=True)

    def merged(self, later: Choices) -> Choices:
        """Return these choices, and others that stand where both have one."""
        return Choices(**{**self.table(), **later.table()})


class Selected(FrozenRecord):
    """What was kept, by validation: an epoch, counted from 1, or a strength of the L2 penalty."""

    epoch: int | None = None
    regularisation: float | None = None

    @property
    def axis(self) -> str:
        """The column of the history that it was chosen from."""
        return "regularisation" if self.epoch is None else "epoch"

    @property
    def value(self) -> float:
        """The value in that column."""
        return float((self.regularisation if self.epoch is None else self.epoch) or 0.0)


class PrefixRecord(FrozenRecord):
    """The stage up to which the network was computed once per image (None: nothing was), and how many images were
    computed and taken from earlier runs."""

    stage: str | None = None
    computed: int = 0
    reused: int = 0
