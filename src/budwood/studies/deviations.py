"""Study to what `--quick` and `-s` put over its published rows, which are then not as published."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator

from budwood.studies.study import Experiment, Study
from budwood.studies.study_file import parse_study
from budwood.studies.study_tables import LIMITS


def describe_deviations(study: Study) -> dict[str, str]:
    """Describe what was put over the rows with published figures and is not as published.

    Args:
        study: The study.

    Returns:
        By the label of a row what it has otherwise, such as "weights none, epochs 4, 200 images at most"; rows that
        are as published are left out.
    """
    if not study.changed:
        return {}
    as_written = parse_study(tomllib.loads(study.text), study.name, study.text)
    described = {row.label: ", ".join(_list_changes(row, study)) for row in as_written.rows if row.published}
    return {label: words for label, words in described.items() if words}


def _list_changes(row: Experiment, study: Study) -> Iterator[str]:
    if row.recipe is None:
        return
    options = {**row.options, **row.recipe.table()}
    for name, value in study.changed.items():
        if name not in LIMITS and options.get(name) != value:
            yield f"{name} {value}"
    changed = study.changed
    longest = max([phase.epochs for phase in row.recipe.phases or ()] or [row.recipe.epochs or 0])
    if isinstance(limit := changed.get("epochs"), int) and longest > limit:
        yield f"epochs {limit}" + (" in each phase" if row.recipe.phases else "")
    if isinstance(limit := changed.get("images"), int) and limit < (row.images.images or limit + 1):
        yield f"{limit:,} images at most"
