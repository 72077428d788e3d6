"""Study to what `--quick` and `-s` put over its published rows, which are then not as published."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping

from budwood.config.recipe import Recipe
from budwood.studies.study import Experiment, Study
from budwood.studies.study_file import parse_study


def describe_deviations(study: Study, trained: Mapping[str, Recipe]) -> dict[str, str]:
    """Describe what was put over the rows with published figures and is not as published.

    Args:
        study: The study.
        trained: The recipe that each row was trained with, by label; rows that were not trained are missing.

    Returns:
        By the label of a row what it has otherwise, such as "weights none, epochs 4, 200 images at most"; rows that
        are as published are left out.
    """
    if not study.changed:
        return {}
    as_written = parse_study(tomllib.loads(study.text), study.name, study.text)
    described = {
        row.label: ", ".join(_list_changes(row, trained[row.label], study))
        for row in as_written.rows
        if row.published and row.label in trained
    }
    return {label: words for label, words in described.items() if words}


def _list_changes(row: Experiment, trained: Recipe, study: Study) -> Iterator[str]:
    if row.recipe is None:
        return
    written, made = row.recipe.table(), trained.table()
    for name, value in study.changed_options.items():
        if written.get(name) != made.get(name):
            yield f"{name} {value}"
    epochs = _count_longest(trained)
    if "epochs" in study.changed and epochs != _count_longest(row.recipe):
        yield f"epochs {epochs}" + (" in each phase" if trained.phases else "")
    if isinstance(limit := study.changed.get("images"), int) and limit < (row.images.images or limit + 1):
        yield f"{limit:,} images at most"


def _count_longest(recipe: Recipe) -> int:
    """The epochs of the longest phase, or of the whole training."""
    return max([phase.epochs for phase in recipe.phases or ()] or [recipe.epochs or 0])
