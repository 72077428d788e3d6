"""The record of a search for the best network: the rungs of its ladder, what each tried, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from budwood.config.records import FrozenRecord
from budwood.evaluation.intervals import Metric

RungName = Literal["frozen", "fine-tuned", "together"]
CandidateState = Literal["tried", "no time", "failed"]


class Figure(FrozenRecord):
    """A figure with its 95 % interval.

    Attributes:
        value: The figure.
        low: Lower end; None where there are too few images.
        high: Upper end.
        n: Number of images.
    """

    value: float
    low: float | None = None
    high: float | None = None
    n: int

    def metric(self) -> Metric:
        """Return the figure as metrics are shown."""
        return Metric(self.value, self.low, self.high, self.n)


class CandidateRecord(FrozenRecord):
    """A recipe that was compared with others, or was not for want of time.

    Attributes:
        name: Some words that tell it from the others.
        recipe: Its options.
        state: `tried`; `no time`: it was left out, as it would have taken too long; `failed`.
        accuracy: Share of images that it gets right, held out: by cross-validation, or on validation.
        loss: Mean loss of held-out images, nats.
        difference: Its figure minus that of the chosen one, in what the search compares by (`LadderRecord.metric`: of a
            loss nats, else 0 to 1), with its paired interval.
        seconds: What it took, or was expected to take.
        note: A sentence, such as why it was left out; empty where there is nothing to say.
    """

    name: str
    recipe: Mapping[str, Any]
    state: CandidateState = "tried"
    accuracy: Figure | None = None
    loss: float | None = None
    difference: Figure | None = None
    seconds: float = 0.0
    note: str = ""


class RungRecord(FrozenRecord):
    """A rung of the ladder: what was tried there, the run that it left, and how that compares with the rung before.

    Attributes:
        name: frozen, fine-tuned or together.
        candidates: What was compared, in the order in which it was tried.
        chosen: Number of the chosen candidate, from 0; None where none was.
        run: Id of the run that the rung left; None where it left none.
        accuracy: Validation accuracy of that run (of images with several labels: those right in every class).
        gain: Its validation accuracy minus that of the best run before, with the paired interval.
        p: p-value of the paired test of that difference (McNemar).
        kept: Whether it is the best run from here on.
        ended: Seconds since the start at which the rung ended.
        note: A sentence on why it was kept or not, or not begun.
    """

    name: RungName
    candidates: tuple[CandidateRecord, ...] = ()
    chosen: int | None = None
    run: str | None = None
    accuracy: Figure | None = None
    gain: Figure | None = None
    p: float | None = None
    kept: bool = False
    ended: float = 0.0
    note: str = ""


def find_states(rungs: Sequence[RungRecord]) -> dict[tuple[RungName, str], CandidateState]:
    """Find what came in the end of each candidate, which may stand in several rungs.

    Args:
        rungs: The rungs, in order.

    Returns:
        The latest state of each, by the names of its rung and of itself, in the order in which they came up.
    """
    return {(rung.name, one.name): one.state for rung in rungs for one in rung.candidates}


class LadderRecord(FrozenRecord):
    """A search for the best network.

    Attributes:
        budget: Seconds that the whole command was given.
        seconds: Seconds that it took.
        compared: How the candidates of the first rung were compared, in words.
        metric: By what: `loss`, or the metric that was asked for.
        images: Number of training images that were used.
        of: Number of training images that there are.
        rungs: The rungs, in order; one may stand there more than once.
        best: Id of the best run.
        interrupted: Whether Ctrl-C ended it.
        advice: What more time would likely give, a sentence.
        longer: Seconds of the search that the advice speaks of; None where none is advised.
        given: Options that the user gave and that were the same in all that was tried, without `time`.
    """

    budget: float
    seconds: float
    compared: str
    metric: str = "loss"
    images: int
    of: int
    rungs: tuple[RungRecord, ...]
    best: str
    interrupted: bool = False
    advice: str = ""
    longer: float | None = None
    given: Mapping[str, Any] = Field(default_factory=dict)

    def find_best(self) -> RungRecord | None:
        """Find the rung that left the best run.

        Returns:
            The last one with that run; None where the record names no such rung.
        """
        return next((rung for rung in reversed(self.rungs) if rung.run == self.best), None)


@dataclass(frozen=True)
class PlannedRow:
    """A row of the plan of a search, before anything is trained.

    Attributes:
        rung: Name of the rung.
        what: What is tried there, in a few words.
        seconds: What it is expected to take.
        gain: What it typically gives, in words.
        fits: Whether it fits into the time.
    """

    rung: str
    what: str
    seconds: float
    gain: str
    fits: bool
