"""The options by which runs are told apart: a recipe's, and of an ensemble those that all its members share."""

from __future__ import annotations

from budwood.comparison.recipe_diff import ENSEMBLE, normalize_options
from budwood.runs.run import Run


def list_run_options(run: Run) -> dict[str, object]:
    """List the options of a run, without the seed.

    Args:
        run: A run.

    Returns:
        The options of its recipe; of an ensemble what it is made of, and the options that its members share.

    Raises:
        RunError: A member of an ensemble is missing or damaged.
    """
    made = run.record.ensemble
    if made is None:
        return normalize_options(run.recipe.table())
    tables = [normalize_options(member.recipe.table()) for member in run.members()]
    shared = {name: value for name, value in tables[0].items() if all(one.get(name) == value for one in tables)}
    parts = "folds" if made.folds else "run" if len(tables) == 1 else "runs"
    chosen = " by validation" if made.rule == "validation" else ""
    return {ENSEMBLE: f"of {len(tables)} {parts}{chosen}", **shared}
