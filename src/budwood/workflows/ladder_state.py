"""A search for the best network that is under way: what it was given, the runs and rungs so far, the time left."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from budwood.config.ladder_options import lay_over
from budwood.config.metric_registry import LOSS
from budwood.config.options import Options
from budwood.config.recipe import Recipe
from budwood.data import checks
from budwood.data.dataset import Dataset
from budwood.data.leaks import Leaks
from budwood.evaluation.predictions import Predictions
from budwood.runs.ladder_record import CandidateRecord, RungName, RungRecord
from budwood.runs.preflight import Preflight, check_and_plan
from budwood.runs.run import Run
from budwood.storage.context import Context
from budwood.training.candidate_choice import CandidateChoice
from budwood.training.head_selection import Assignment, CandidateScore
from budwood.workflows.ladder_rules import FrozenCandidate
from budwood.workflows.ladder_verdict import judge, measure_accuracy
from budwood.workflows.train import train_recipe


@dataclass(frozen=True)
class FlipFindings:
    """Which flips leave classes as they are.

    Attributes:
        harmless: Letters of these flips, of `h` (left to right) and `v` (upside down).
        sentence: What was measured, in words.
    """

    harmless: tuple[str, ...]
    sentence: str


@dataclass(frozen=True, eq=False)
class TriedHead:
    """A head that was scored on held-out images.

    Attributes:
        name: Some words that tell it from others.
        options: The options of its recipe, as the ladder chose them.
        score: What its heads said of held-out images.
        cost: Multiply-adds of one answer.
        seconds: What it took.
        candidate: The frozen trunk that it is on.
    """

    name: str
    options: Mapping[str, Any]
    score: CandidateScore
    cost: float
    seconds: float
    candidate: FrozenCandidate

    @property
    def loss(self) -> float:
        """Return its mean loss on held-out images, nats."""
        return float(np.nanmean(self.score.losses))


@dataclass
class Ladder:
    """A search that is under way.

    Attributes:
        data: The data set, as far as it is used, without what leaks.
        given: The options that the user gave.
        budget: Seconds of the whole command.
        quick: Whether to stop after the first rung.
        out: The folder of runs.
        id: What the names of the runs begin with.
        leaks: What is done where images leak between given splits.
        context: The cache folder, and where bars and notes go.
        findings: Findings about the data.
        began: When the command began, on the clock of `time.perf_counter`.
        hooks: What each training is given beside its recipe.
        images: Number of training images that are used.
        of: Number of training images that there are.
        runs: The runs so far.
        rungs: What was tried so far.
        best: Number of the best run so far, from 0.
        heads: The heads of frozen trunks that were compared.
        pending: Frozen candidates for which there was no time yet.
        choices: What was chosen among the first heads, by their number.
        folds: The parts of the images by which all heads are compared; empty before the first.
        compared: How frozen candidates were compared, in words.
        flips: Which flips are harmless; None: not measured yet.
        seconds_an_image: Seconds that the first trunk takes for an image.
        interrupted: Whether Ctrl-C has ended it.
    """

    data: Dataset
    given: Options
    budget: float
    quick: bool
    out: Path
    id: str
    leaks: Leaks
    context: Context
    findings: tuple[checks.Finding, ...]
    began: float
    hooks: Mapping[str, Any]
    images: int
    of: int
    runs: list[Run] = field(default_factory=list)
    rungs: list[RungRecord] = field(default_factory=list)
    best: int = 0
    heads: tuple[TriedHead, ...] = ()
    pending: tuple[FrozenCandidate, ...] = ()
    choices: dict[int, CandidateChoice] = field(default_factory=dict)
    folds: tuple[Assignment, ...] = ()
    compared: str = ""
    flips: FlipFindings | None = None
    seconds_an_image: float = 0.02
    interrupted: bool = False

    def spent(self) -> float:
        """Return the seconds since the command began."""
        return time.perf_counter() - self.began

    def left(self) -> float:
        """Return the seconds of the budget that are left."""
        return self.budget - self.spent()

    def best_run(self) -> Run:
        """Return the best run so far."""
        return self.runs[self.best]

    @property
    def multilabel(self) -> bool:
        """Return whether images have several labels."""
        return bool(self.data.label_sets)

    @property
    def select(self) -> str:
        """Return the metric that the user asked for, or `loss`."""
        return str(self.given.get("select", LOSS))

    def next_id(self) -> str:
        """Return the name of the next run."""
        return f"{self.id}-{len(self.runs) + 1}"

    def make_recipe(self, options: Mapping[str, Any]) -> Recipe:
        """Make the recipe of options that the search chose, over which those of the user are laid.

        Args:
            options: Options by name.

        Returns:
            The recipe.

        Raises:
            RecipeError: They do not go together.
        """
        return Recipe(**lay_over(options, self.given))

    def plan(self, options: Mapping[str, Any]) -> Preflight:
        """Check and plan the recipe of options that the search chose.

        Args:
            options: Options by name.

        Returns:
            Its network, and the images.

        Raises:
            BudwoodError: As of `check_and_plan`.
        """
        recipe = self.make_recipe(options)
        return check_and_plan(self.data, recipe, self.out, self.leaks, self.context, self.findings)

    def carry_out(self, options: Mapping[str, Any], limit: float | None = None) -> Run:
        """Train the recipe of options that the search chose as the next run.

        Args:
            options: Options by name.
            limit: Seconds that it may take; None: as many as it takes.

        Returns:
            The run.

        Raises:
            BudwoodError: As of `train_recipe`.
        """
        run = train_recipe(
            self.data,
            self.make_recipe(options),
            out=self.out,
            leaks=self.leaks,
            cache=self.context.cache,
            progress=self.context.progress,
            id=self.next_id(),
            findings=self.findings,
            limit=limit,
            **{**self.hooks, "novelty": False},
        )
        self.runs.append(run)
        return run

    def predictions(self, number: int) -> Predictions:
        """Return what a run says of the validation images."""
        return self.runs[number].predictions("val")

    def close_rung(
        self,
        name: RungName,
        candidates: tuple[CandidateRecord, ...],
        chosen: int | None,
        replaces: bool = False,
        note: str = "",
    ) -> None:
        """Note a rung, and compare the latest run with the best before it.

        Args:
            name: Name of the rung.
            candidates: What was compared there.
            chosen: Number of the candidate that became the latest run; None where there is no new run.
            replaces: Whether it takes the place of the best run without being compared: cross-validation, which sees
                more images, has chosen it already.
            note: Why it is kept; empty: what the comparison says.
        """
        ended = round(self.spent(), 1)
        if chosen is None:
            self.rungs.append(RungRecord(name=name, candidates=candidates, ended=ended, note=note))
            return
        latest, after = len(self.runs) - 1, self.predictions(len(self.runs) - 1)
        record = RungRecord(
            name=name,
            candidates=candidates,
            chosen=chosen,
            run=self.runs[latest].record.id,
            accuracy=measure_accuracy(after),
            kept=True,
            ended=ended,
            note=note,
        )
        if latest:
            verdict = judge(self.predictions(self.best), after, self.select)
            kept = replaces or verdict.kept
            update = {"gain": verdict.gain, "p": verdict.p, "kept": kept, "note": note if replaces else verdict.note}
            record = record.model_copy(update=update)
        if record.kept:
            self.best = latest
        self.rungs.append(record)

    def note_interruption(self) -> None:
        """Note that Ctrl-C has ended the search."""
        self.interrupted = True
        self.context.progress.note("Interrupted: the best network so far is kept.")

    def note_failure(self, name: RungName, message: str) -> None:
        """Note that a rung has failed.

        Args:
            name: Name of the rung.
            message: Why.
        """
        failed = CandidateRecord(name=name, recipe={}, state="failed", note=message)
        self.rungs.append(RungRecord(name=name, candidates=(failed,), ended=round(self.spent(), 1), note=message))


def begin_ladder(
    data: Dataset,
    given: Options,
    budget: float,
    quick: bool,
    out: Path,
    id: str,
    leaks: Leaks,
    context: Context,
    findings: tuple[checks.Finding, ...] | None,
    spent: float,
    hooks: Mapping[str, Any],
) -> Ladder:
    """Begin a search: the data are checked, and what leaks is left out.

    Args:
        data: The data set.
        given: The options that the user gave.
        budget: Seconds of the whole command.
        quick: Whether to stop after the first rung.
        out: The folder of runs.
        id: What the names of the runs begin with.
        leaks: What is done where images leak between given splits.
        context: The cache folder, and where bars and notes go.
        findings: Findings about the data where they are known already.
        spent: Seconds of the budget that have gone already.
        hooks: What each training is given beside its recipe.

    Returns:
        The search, before its first rung.

    Raises:
        BudwoodError: As of `check_and_plan`.
    """
    began = time.perf_counter() - spent
    options = {name: value for name, value in given.items() if name != "time"}
    flight: Preflight = check_and_plan(data, Recipe(**options), out, leaks, context, findings)
    count = len(flight.training)
    return Ladder(
        flight.data, given, budget, quick, out, id, leaks, context, flight.findings, began, hooks, count, count
    )
