"""Search for the best network that this machine gives in a time: rung by rung, each of which leaves a usable run.

data -> frozen trunks compared -> a run -> fine-tuned from it -> a run -> together -> a run -> the best, with its record
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from budwood.config.notation import normalize_value
from budwood.config.options import Options
from budwood.config.recipe import Recipe
from budwood.data import checks
from budwood.data.dataset import Dataset
from budwood.data.leaks import Leaks
from budwood.data.scanning import read_dataset
from budwood.errors import BudwoodError, RecipeError
from budwood.progress import DistinctNotes, Progress
from budwood.runs.ladder_record import LadderRecord, PlannedRow, RungName, find_states
from budwood.runs.run import Run, lock_results
from budwood.runs.run_ids import make_run_id, refuse_bad_id
from budwood.runs.run_record import save_record
from budwood.storage.atomic import raise_storage_errors
from budwood.storage.context import Context, open_context
from budwood.text import counted, format_seconds
from budwood.training.history import EpochCallback
from budwood.workflows import ladder_rules as rules
from budwood.workflows.frozen_rung import (
    FrozenPlan,
    climb_frozen,
    climb_frozen_further,
    climb_other_frozen,
    list_planned_frozen,
    plan_frozen,
)
from budwood.workflows.joint_rung import climb_together
from budwood.workflows.ladder_state import Ladder, begin_ladder
from budwood.workflows.novelty import add_novelty, read_share
from budwood.workflows.report import write_reports
from budwood.workflows.train import train_recipe
from budwood.workflows.tuned_rung import climb_tuned, list_planned_tuning

STEPS: Final[tuple[tuple[RungName, Callable[[Ladder], None]], ...]] = (  # after the first trunk, each in its turn
    ("frozen", climb_other_frozen),
    ("fine-tuned", climb_tuned),
    ("frozen", climb_frozen_further),
    ("together", climb_together),
)
LONGER: Final = 4  # times the budget, where something was left out for want of time


def train(
    data: Any,
    recipe: Recipe | None = None,
    *,
    time: float | str | None = None,
    quick: bool = False,
    out: str | Path = "runs",
    leaks: Leaks = "drop",
    cache: Path | None = None,
    progress: Progress | None = None,
    track: Sequence[object] = (),
    id: str | None = None,
    on_epoch_end: EpochCallback | None = None,
    novelty: bool = True,
) -> Run:
    """Train a classifier and keep it, with its evidence, as a new run.

    With a recipe that recipe is trained. Without one, the best network is searched for that this machine gives in the
    time: frozen trunks are compared, the best is fine-tuned, and several are joined where that is better. Every step
    leaves a run of its own (`ID-1`, `ID-2`, ...), and Ctrl-C ends the search with the best so far.

    Args:
        data: The data set, or what `scan` takes: a folder, several, a table, images with labels, a frame, ...
        recipe: The recipe; None: searched for.
        time: Seconds of the whole search, or a duration such as `10m`; None: five minutes. With a recipe, the limit is
            the recipe's own.
        quick: Whether to stop after frozen trunks were compared.
        out: Folder of runs.
        leaks: What to do where images leak between given splits: `drop` leaves out those of the training side (and
            validation images copied in the test set), which a finding says; `refuse` raises; `allow` trains with all.
        cache: The cache folder; None: the usual one.
        progress: Where bars and notes go; None: below the cell of a notebook, else nowhere.
        track: Tools that receive every epoch: tensorboard, mlflow, or your own as `package.module:name` or object.
        id: Name of the run, which must be new and a plain file name; of a search, what the names of its runs begin
            with. None: a new name.
        on_epoch_end: Is called with the whole history after every epoch; what it raises ends the training.
        novelty: Whether to measure at the end how images of none of the classes are told; `calibrate` can do it later.

    Returns:
        The finished run; of a search, the best.

    Raises:
        DataError: The given split leaks and `leaks` is `refuse`, or a split is empty.
        DivergedError: The loss is no longer a number.
        RecipeError: An option does not apply, memory is too small, or `time` or `quick` is given with a recipe.
        RunError: A launcher started several processes, or there is a run of that id, or it is not a file name.
        WeightsError: The weights are missing or do not fit.
        StorageError: `out` or the cache cannot be written.
    """
    data = read_dataset(data, cache, progress)
    hooks: dict[str, Any] = {"track": track, "on_epoch_end": on_epoch_end, "novelty": novelty, "id": id}
    if recipe is None:
        given = {} if time is None else {"time": time}
        return search(data, given, quick, Path(out), leaks, open_context(cache, progress), **hooks)
    _refuse_search_options(time, quick)
    return train_recipe(data, recipe, out=out, leaks=leaks, cache=cache, progress=progress, **hooks)


def _refuse_search_options(time: float | str | None, quick: bool) -> None:
    """Raises `RecipeError` where options of the search are given beside a recipe, of which nothing is searched for."""
    if quick:
        raise RecipeError("quick: a recipe is given, so nothing is searched for.", "Leave out quick, or the recipe.")
    if time is not None:
        raise RecipeError(
            "time: a recipe is given, which has its own time limit.", "Give time to the recipe: Recipe(time=...)."
        )


def search(
    data: Dataset,
    given: Options,
    quick: bool,
    out: Path,
    leaks: Leaks,
    context: Context,
    *,
    spent: float = 0.0,
    id: str | None = None,
    findings: tuple[checks.Finding, ...] | None = None,
    **hooks: Any,
) -> Run:
    """Search for the best network, with some options given.

    Args:
        data: The data set.
        given: Options that stay as they are in everything that is tried (`NARROWING`), and `time`, the budget.
        quick: Whether to stop after frozen trunks were compared.
        out: Folder of runs.
        leaks: What to do where images leak between given splits.
        context: The cache folder, and where bars and notes go.
        spent: Seconds of the budget that have gone already.
        id: What the names of the runs begin with; None: a new name.
        findings: The findings about the data where they are known already.
        **hooks: `track`, `on_epoch_end` and `novelty`, as `train` takes them.

    Returns:
        The best run, with the record of the search.

    Raises:
        BudwoodError: As of `train`.
    """
    id = id if id is not None else make_run_id("best")
    refuse_bad_id(id, out, search=True)
    context = replace(context, progress=DistinctNotes(context.progress))
    ladder = begin_ladder(data, given, read_budget(given), quick, out, id, leaks, context, findings, spent, hooks)
    plan = plan_frozen(ladder)
    _announce(ladder, _list_planned(ladder, plan), plan.notes)
    try:
        climb_frozen(ladder, plan)
        for name, climb in STEPS[: 1 if quick else None]:
            _climb_safely(ladder, name, climb)
    except KeyboardInterrupt:
        if not ladder.runs:
            raise
        ladder.note_interruption()
    try:
        return _finish(ladder)
    except KeyboardInterrupt:  # the best is there: what remains takes a moment
        ladder.note_interruption()
        return _finish(ladder)


def plan_search(
    data: Dataset, given: Options, quick: bool, out: Path, leaks: Leaks, context: Context, spent: float = 0.0
) -> tuple[list[PlannedRow], float, list[str]]:
    """Plan a search without training anything; the speed of this machine is measured on some images.

    Args:
        data: The data set.
        given: Options that stay as they are, and `time`.
        quick: Whether to stop after frozen trunks were compared.
        out: Folder of runs.
        leaks: What to do where images leak between given splits.
        context: The cache folder, and where bars and notes go.
        spent: Seconds of the budget that have gone already.

    Returns:
        What would be tried, the budget in seconds, and notes.

    Raises:
        BudwoodError: As of `train`.
    """
    budget = read_budget(given)
    ladder = begin_ladder(data, given, budget, quick, out, make_run_id("best"), leaks, context, None, spent, {})
    plan = plan_frozen(ladder)
    return _list_planned(ladder, plan), budget, list(plan.notes)


def _list_planned(ladder: Ladder, plan: FrozenPlan) -> list[PlannedRow]:
    """What would be tried, rung by rung."""
    rows = list_planned_frozen(ladder, plan)
    return rows if ladder.quick else [*rows, *list_planned_tuning(ladder, rows)]


def read_budget(given: Options) -> float:
    """Read the seconds that a search may take.

    Args:
        given: The options that the user gave.

    Returns:
        The seconds of the option `time`; else those of `BUDGET`.

    Raises:
        RecipeError: An option is malformed, or does not apply.
    """
    recipe = Recipe(**{name: normalize_value(name, value) for name, value in given.items()})
    return rules.BUDGET if recipe.time is None else recipe.time


def _announce(ladder: Ladder, rows: Sequence[PlannedRow], notes: Sequence[str]) -> None:
    """Say how long the search will take, and what each rung of it."""
    note = ladder.context.progress.note
    note(f"Searching for the best network in {format_seconds(ladder.budget)} (--time). Ctrl-C keeps the best so far.")
    names: dict[str, RungName] = {"Frozen": "frozen", "Fine-tuned": "fine-tuned", "Together": "together"}
    for words, name in names.items():
        fitting = [row for row in rows if row.rung == name and row.fits]
        if fitting:
            what = "; ".join(row.what for row in fitting)
            note(f"  {words} (about {format_seconds(sum(row.seconds for row in fitting))}): {what}.")
    for sentence in notes:
        note(sentence)


def _climb_safely(ladder: Ladder, name: RungName, climb: Callable[[Ladder], None]) -> None:
    """Climb a rung; what makes it fail is told, and costs only that rung."""
    try:
        climb(ladder)
    except BudwoodError as error:
        ladder.context.progress.note(f"This step failed, and the best network so far is kept: {error.message}")
        ladder.note_failure(name, error.message)


def _finish(ladder: Ladder) -> Run:
    """The best run, with the record of the search in it, and with what tells strangers where there is time."""
    best = ladder.best_run()
    with lock_results(best.path), raise_storage_errors(best.path):
        if ladder.hooks.get("novelty", True) and not ladder.interrupted:
            fit = max(int((ladder.left() - rules.WRITING) / 2 / max(ladder.seconds_an_image, 1e-4)), 0)
            best = add_novelty(best, ladder.context, read_share(best), fit)
        finished = Run(best.path, best.record.model_copy(update={"ladder": _make_record(ladder)}))
        write_reports(finished)
        save_record(finished.path, finished.record)
    return finished


def _make_record(ladder: Ladder) -> LadderRecord:
    return LadderRecord(
        budget=ladder.budget,
        seconds=round(ladder.spent(), 1),
        compared=ladder.compared,
        metric=ladder.select,
        images=ladder.images,
        of=ladder.of,
        rungs=tuple(ladder.rungs),
        best=ladder.best_run().record.id,
        interrupted=ladder.interrupted,
        advice=advise(ladder),
        longer=suggest_budget(ladder),
        given={name: value for name, value in ladder.given.items() if name != "time"},
    )


def suggest_budget(ladder: Ladder) -> float | None:
    """Suggest the seconds of a longer search.

    Args:
        ladder: The search.

    Returns:
        The budget again where it was not used up; four times as much where something was left out for want of time;
        None where more time would change little.
    """
    if ladder.quick or ladder.interrupted:
        return ladder.budget
    short = ladder.images < ladder.of or "no time" in find_states(ladder.rungs).values()
    return LONGER * ladder.budget if short else None


def advise(ladder: Ladder) -> str:
    """Say what more time would likely give.

    Args:
        ladder: The search.

    Returns:
        A sentence.
    """
    if ladder.interrupted:
        return "The same command goes on faster another time, as features that were computed are kept in the cache."
    late = [name for (_, name), state in find_states(ladder.rungs).items() if state == "no time"]
    if ladder.images < ladder.of:
        return f"More time would let all {ladder.of:,} training images be used, not only {ladder.images:,}."
    if ladder.quick:
        return "Without --quick the network would be fine-tuned, too."
    if late:
        what = counted(len(late), "candidate")
        return f"More time would let {what} more be tried ({'; '.join(late)})."
    return "All of the ladder was tried; more time would change little."
