"""The runs of a folder in a list: what was trained on what, how good it is, and in which state it is."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

from budwood.comparison.recipe_diff import ENSEMBLE, Options, describe_options, normalize_options
from budwood.config.recipe import Recipe, find_default_valued
from budwood.errors import RecipeError, RunError, did_you_mean
from budwood.evaluation.intervals import Metric
from budwood.runs.lookup import list_run_folders
from budwood.runs.run import Run, is_locked
from budwood.runs.run_record import read_record

ListedState = Literal["finished", "interrupted", "training", "damaged"]
STATES: Final[tuple[ListedState, ...]] = get_args(ListedState)
CHOOSING: Final = ("model", "optimizer")  # options that decide which others there are
FILLED_IN: Final = ("size",)  # an option that every run has, also where it was not given


@dataclass(frozen=True)
class ListedRun:
    """One run of a list.

    Attributes:
        path: Its folder.
        name: Its name in the folder of runs; of a run of a study with the study's.
        state: `finished`, `interrupted`, `training` (by a process at this moment) or `damaged`.
        began: When it was trained or resumed last, UTC, ISO 8601; empty where that is not known.
        data: Name of its data set.
        source: The data as they were named.
        model: Name of the network.
        recipe: The options that are not the default.
        metric: The metric of `score`.
        score: That metric on validation, with its 95 % interval and n; None of a run that is not finished.
        looks: Number of looks at its test split; 0: sealed.
        problem: Why it was interrupted, or cannot be read.
    """

    path: Path
    name: str
    state: ListedState
    began: str = ""
    data: str = ""
    source: str = ""
    model: str = ""
    recipe: dict[str, Any] | None = None
    metric: str = ""
    score: Metric | None = None
    looks: int = 0
    problem: str = ""

    @property
    def short_recipe(self) -> str:
        """Return what was trained in a line: the network, and the options that are not the default."""
        options = {name: value for name, value in (self.recipe or {}).items() if name != "model"}
        return ", ".join(filter(None, (self.model, describe_options(options, short=True))))

    def table(self) -> dict[str, Any]:
        """Return the run as plain values for JSON."""
        return {**asdict(self), "path": str(self.path), "short_recipe": self.short_recipe}


def list_runs(
    folder: str | Path = "runs", *, data: str | None = None, state: str | None = None, model: str | None = None
) -> list[ListedRun]:
    """List the runs in a folder, and in the studies there, the newest first.

    Args:
        folder: The folder of runs.
        data: Only runs of data whose name or place has this in it, without regard to case; None: all.
        state: Only runs in this state: `finished`, `interrupted`, `training` or `damaged`; None: all.
        model: Only runs of networks of this name, or that a pattern such as `*resnet*` finds; None: all.

    Returns:
        The runs.

    Raises:
        RunError: There is no such folder or state.
    """
    folder = Path(folder)
    if state is not None and state not in STATES:
        raise RunError(f"state: there is no state {state!r} of a run.", did_you_mean(state, STATES))
    if not folder.is_dir():
        raise RunError(f"{folder}: is no folder of runs.", "`budwood train DATA` makes one, `runs`; or name another.")
    found = [_list_run(one, str(one.relative_to(folder))) for one in list_run_folders(folder)]
    chosen = [
        one
        for one in found
        if (data is None or data.casefold() in f"{one.data}\n{one.source}".casefold())
        and (state is None or one.state == state)
        and (model is None or fnmatch.fnmatchcase(one.model.casefold(), model.casefold()))
    ]
    return sorted(chosen, key=lambda one: (one.began, one.name), reverse=True)


def find_dependents(run: Run, others: Sequence[ListedRun]) -> list[str]:
    """Find the runs that have begun with the trunk of another.

    Args:
        run: The run whose trunk it is.
        others: Runs of its folder.

    Returns:
        Their names.
    """
    names = {f"run:{run.path.name}", f"run:{run.path.absolute()}"}
    return [one.name for one in others if (one.recipe or {}).get("weights") in names]


def _list_run(folder: Path, name: str) -> ListedRun:
    try:
        record = read_record(folder)
    except RunError as error:
        return ListedRun(folder, name, "damaged", problem=error.message)
    run = Run(folder, record)
    scores = record.metrics.get("val") if record.state == "done" else None
    metric = run.task.choose_headline(scores.figures) if scores else ""
    going = record.state != "done" and is_locked(folder)
    return ListedRun(
        path=folder,
        name=name,
        state="finished" if record.state == "done" else "training" if going else "interrupted",
        began=max([record.created, *record.resumed]),
        data=record.dataset.name,
        source=record.source,
        model=record.network.name,
        recipe=_list_own_options(run),
        metric=metric,
        score=scores.figures[metric] if scores else None,
        looks=record.test.looks if record.test else 0,
        problem=record.problem or "",
    )


def _list_own_options(run: Run) -> dict[str, Any]:
    """The options of a run that are not the default; of an ensemble what it is made of."""
    made = run.record.ensemble
    if made:
        return {ENSEMBLE: f"of {len(made.members)}"}
    table = normalize_options(run.recipe.table())
    usual = {**_list_usual_options(table), **{name: Recipe().table()[name] for name in CHOOSING}}
    quiet = find_default_valued(table)
    return {
        name: value
        for name, value in table.items()
        if name not in FILLED_IN and value != usual.get(name) and (name in CHOOSING or name not in quiet)
    }


def _list_usual_options(table: Options) -> Options:
    """What a recipe of the same network and optimizer has where nothing else is given."""
    with suppress(RecipeError):  # as of code that is not here
        return normalize_options(Recipe(**{name: table[name] for name in CHOOSING if name in table}).table())
    return Recipe().table()
