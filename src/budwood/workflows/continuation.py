"""How a run that was trained before goes on: by which recipe, and whether there is anything left to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from budwood.config.recipe import Recipe
from budwood.errors import RunError
from budwood.runs.run import Run
from budwood.runs.run_files import HISTORY
from budwood.text import counted
from budwood.training.schedules import find_best_epoch


def continue_recipe(run: Run, changes: Mapping[str, Any]) -> Recipe:
    """Change epochs, patience or rate in a run's recipe.

    Of phases, the last gets the epochs and the first that is not finished the rate.

    Args:
        run: The run.
        changes: New values of `epochs`, `patience` and `lr`, where they are given.

    Returns:
        The recipe by which the run goes on.

    Raises:
        RunError: An option cannot be changed in a training that has begun.
    """
    recipe, head_only = run.recipe, run.record.trained == "head"
    if "epochs" in changes and _is_solved(run):
        raise _make_solved_error(run)
    for name in ("lr", "patience"):
        if name in changes and (head_only or (name == "patience" and recipe.phases)):
            what = "a run that trains only the head" if head_only else "a training in phases"
            raise RunError(f"{run.path}: --{name} does not apply to {what}.", "Start a new training with this option.")
    options = {**recipe.table(), **changes}
    if "epochs" in changes:
        options.pop("time", None)  # it is over
    if recipe.phases:
        phases = [phase.model_dump() for phase in recipe.phases]
        if "epochs" in changes:
            phases[-1]["epochs"] = options.pop("epochs")
        if "lr" in changes:
            done = [_count_epochs_done(run, number) for number in range(1, len(phases) + 1)]
            open_ = [n for n, phase in enumerate(phases) if done[n] < phase["epochs"]]
            phases[open_[0] if open_ else -1]["lr"] = options.pop("lr")
        options["phases"] = phases
    return Recipe(**options)


def refuse_nothing_to_do(run: Run, recipe: Recipe, changes: Mapping[str, Any]) -> None:
    """Refuse to go on with a run that would not be trained any further.

    Args:
        run: The run.
        recipe: The recipe by which it would go on.
        changes: The options that were changed, as for `continue_recipe`.

    Raises:
        RunError: The run is finished, or has so many epochs already.
    """
    last = len(recipe.phases or ())
    done = _count_epochs_done(run, last)
    if "epochs" in changes and changes["epochs"] <= done:
        raise RunError(
            f"{run.path}: already has {counted(done, 'epoch')}, which is not less than {changes['epochs']}.",
            "Give a larger number.",
        )
    if run.record.state != "done":
        return
    if _is_solved(run):
        raise _make_solved_error(run)
    last_epoch = recipe.phases[-1].epochs if recipe.phases else recipe.epochs
    if recipe.time is not None or last_epoch is None or done >= last_epoch:
        raise RunError(f"{run.path}: is already finished.", "Use `--epochs N` to train it for more epochs.")
    since = done - find_best_epoch(
        [row for row in run.history() if row.get("phase", last) == last],
        recipe.select or "loss",
        None if recipe.phases or recipe.wise_ft not in (None, 1) else run.record.choices.probe,
    )
    if recipe.patience and since >= recipe.patience:
        raise RunError(
            f"{run.path}: stopped after {counted(since, 'epoch')} without improvement.",
            f"Use a --patience larger than {since}.",
        )


def _is_solved(run: Run) -> bool:
    """Whether a run's head was solved at once, so that there are no epochs of which it could have more."""
    return run.recipe.optimizer == "lbfgs"


def _make_solved_error(run: Run) -> RunError:
    return RunError(
        f"{run.path}: is finished: its head was solved, not trained in epochs, so there are no more to train.",
        "Train a new run in steps (--optimizer adam), or more layers than the head (--freeze none).",
    )


def _count_epochs_done(run: Run, phase: int) -> int:
    """The epochs that a run has done: of one phase, counted from 1, or of all where it has none (0)."""
    if not (run.path / HISTORY).is_file():
        return 0
    return sum(row.get("phase", phase) == phase for row in run.history())
