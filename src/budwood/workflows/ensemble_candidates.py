"""Which runs may be joined: finished ones that were scored on the same images, or the folds of a cross-validation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from budwood.comparison.run_groups import find_folder_of_runs, find_runs
from budwood.data.dataset import Dataset
from budwood.data.listing import SPLITS
from budwood.errors import RunError
from budwood.evaluation.predictions import Predictions
from budwood.runs.run import Run
from budwood.runs.run_files import WEIGHTS
from budwood.text import counted, listed, quote_path

FOLD: Final = "fold "  # what the record of a fold says of its split, as in `fold 1 of 5`
_AGAIN: Final = (
    "Train the runs on the same DATA with the same --val, --test and classes, and leave out the run that differs."
)


@dataclass(frozen=True)
class Candidates:
    """Runs that an ensemble may be made of.

    Attributes:
        runs: The runs, each once.
        validation: What each predicts for its validation images. Without folds all have the same images in one order.
        folds: Whether the runs are folds of a cross-validation.
    """

    runs: tuple[Run, ...]
    validation: tuple[Predictions, ...]
    folds: bool


def open_candidates(runs: Sequence[Run | str | Path], out: Path) -> tuple[Run, ...]:
    """Open the runs that an ensemble is to be made of.

    Args:
        runs: Runs, their folders or ids, and folders of runs, of which all finished ones are taken that are no
            ensembles.
        out: The folder in which ids are looked up.

    Returns:
        The runs, in the order given.

    Raises:
        RunError: A run does not exist or is not finished, or a folder has no finished run.
    """
    found: list[Run] = []
    for item in runs:
        if isinstance(item, Run):
            found.append(item)
            continue
        group, _ = find_runs(item, out)
        is_folder = find_folder_of_runs(item, out) is not None
        found += [run for run in group if not (is_folder and run.record.ensemble)]
    return tuple(found)


def check_candidates(runs: Sequence[Run]) -> Candidates:
    """Check that runs can be joined: finished, different, and of the same images, splits and classes.

    Args:
        runs: The runs.

    Returns:
        The runs with their validation predictions.

    Raises:
        RunError: There are fewer than two runs, one is named twice or not finished, or one differs from the first in
            classes, labels, images or splits, which the message names; or the folds of a cross-validation are not
            complete.
    """
    _refuse_unusable(runs)
    folds = len({run.record.dataset.fingerprint for run in runs}) > 1 and any(map(_is_fold, runs))
    for run in runs[1:]:
        reason = _find_difference(runs[0], run, folds)
        if reason:
            raise RunError(f"{run.path}: cannot be joined with {runs[0].path}: it {reason}.", _AGAIN)
    validation = tuple(run.predictions("val") for run in runs)
    if folds:
        _refuse_incomplete_folds(runs, validation)
        return Candidates(tuple(runs), validation, True)
    aligned = tuple(_align(run, one, runs[0], validation[0]) for run, one in zip(runs, validation, strict=True))
    return Candidates(tuple(runs), aligned, False)


def identify(run: Run) -> str:
    """Return what a run and its copies in ensembles have in common, and no other run."""
    return f"{run.record.id} {run.record.created} {run.record.files.get(WEIGHTS, '')}"


def _refuse_unusable(runs: Sequence[Run]) -> None:
    """Raises `RunError` for runs that are too few, unfinished, given twice, or made of folds already."""
    for run in runs:
        if run.record.ensemble and run.record.ensemble.folds:
            raise RunError(
                f"{run.path}: is an ensemble of folds, which cannot be part of another.", "Give the folds themselves."
            )
        if run.record.state != "done":
            raise RunError(
                f"{run.path}: is not a finished run, so it cannot be part of an ensemble.",
                f"Finish it with `budwood resume {quote_path(run.path)}`, or leave it out.",
            )
    seen: dict[str, Run] = {}
    for run in runs:
        same = seen.setdefault(identify(run), run)
        if same is run:
            continue
        copy = "" if same.path.resolve() == run.path.resolve() else f" ({same.path} is the same run)"
        raise RunError(
            f"{run.path}: is given twice{copy}.",
            "Give every run once. `--weights validation` gives a run more weight where that helps.",
        )
    if len(runs) < 2:
        named = ", ".join(str(run.path) for run in runs) or "none"
        raise RunError(f"An ensemble needs two or more finished runs (found: {named}).", "Give two or more runs.")


def _is_fold(run: Run) -> bool:
    return run.record.dataset.split.startswith(FOLD)


def _find_difference(first: Run, run: Run, folds: bool) -> str:
    """In what a run differs from the first; empty where they can be joined."""
    theirs, mine = first.record.dataset, run.record.dataset
    if theirs.classes != mine.classes:
        return f"has other classes ({listed(mine.classes, 4)} instead of {listed(theirs.classes, 4)})"
    if theirs.several != mine.several:
        return "has several labels for an image, the other one label" if mine.several else "has one label for an image"
    if theirs.value_range != mine.value_range:
        ranges = f"{mine.value_range or 'none'} instead of {theirs.value_range or 'none'}"
        return f"scales values of more than 8 bits otherwise ({ranges})"
    if folds:
        return _find_fold_difference(first, run)
    if theirs.fingerprint != mine.fingerprint:
        return (
            f"was trained on other images or another split ({mine.name} {mine.fingerprint[:8]} instead of "
            f"{theirs.name} {theirs.fingerprint[:8]})"
        )
    return ""


def _find_fold_difference(first: Run, run: Run) -> str:
    if not _is_fold(run):
        return f"is no fold of a cross-validation, as the other is (its split: {run.record.dataset.split})"
    if not _is_fold(first):
        return f"is a fold of a cross-validation ({run.record.dataset.split}), and the other is none"
    theirs, mine = first.dataset(), run.dataset()
    if sorted(theirs.samples("test").ids) != sorted(mine.samples("test").ids):
        return "has another test set"
    if _list_open(theirs) != _list_open(mine):
        return "is a fold of other images"
    return ""


def _list_open(data: Dataset) -> set[str]:
    """The ids of all images outside the test split, those that a row was not given among them."""
    is_open = data.column("split") != SPLITS.index("test")
    return {id for id, chosen in zip(data.table["id"].to_pylist(), is_open.tolist(), strict=True) if chosen}


def _list_known(run: Run) -> set[str]:
    """The ids of a run's images outside the test split."""
    data = run.dataset()
    return {*data.samples("train").ids, *data.samples("val").ids}


def _refuse_incomplete_folds(runs: Sequence[Run], validation: Sequence[Predictions]) -> None:
    """Raises `RunError` unless every image outside the test split is held out by equally many runs, at least one."""
    counts = Counter(id for predictions in validation for id in predictions.ids)
    missing = len(_list_known(runs[0]) - counts.keys())
    if not missing and len(set(counts.values())) == 1:
        return
    held = Counter(run.record.dataset.split for run in runs)
    told = listed([f"{split}: {counted(count, 'run')}" for split, count in sorted(held.items())], 6)
    problem = f"{counted(missing, 'image')} held out by none" if missing else "not the same number for every image"
    raise RunError(
        f"These folds are not complete ({told}; {problem}), so there is no cross-validated score.",
        "Give every fold of the cross-validation once, or the same number of runs for each.",
    )


def _align(run: Run, mine: Predictions, first: Run, theirs: Predictions) -> Predictions:
    """A run's predictions in the order of the first run's; raises `RunError` where images or labels differ."""
    if set(mine.ids) != set(theirs.ids):
        shared = len(set(mine.ids) & set(theirs.ids))
        reason = f"has another validation set ({shared:,} of its {len(mine.ids):,} images are shared)"
        raise RunError(f"{run.path}: cannot be joined with {first.path}: it {reason}.", _AGAIN)
    aligned = replace(mine.in_order(theirs.ids), paths=theirs.paths)
    if not np.array_equal(aligned.targets, theirs.targets):
        raise RunError(
            f"{run.path}: cannot be joined with {first.path}: it has other labels of the validation images.", _AGAIN
        )
    return aligned
