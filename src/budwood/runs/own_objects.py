"""The user's own code and objects in a run: kept when it is read again, and told where they come from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from budwood.config.own_objects import explain_unportable
from budwood.config.resolved_recipe import OwnPart
from budwood.progress import Progress
from budwood.runs.run import Run


def keep_objects(found: Run, given: Run | str | Path) -> Run:
    """Put the recipe of a run that a caller has in the place of the same one that was read from its folder.

    What no module holds, such as a lambda, is in the first alone.

    Args:
        found: The run as its folder has it now.
        given: The run as it was given; a path has no objects.

    Returns:
        The run of the folder, with the objects where there are any.
    """
    if not isinstance(given, Run) or given.record.recipe != found.record.recipe:
        return found
    return Run(found.path, found.record.model_copy(update={"recipe": given.record.recipe}))


def tell_own_code(parts: Mapping[str, OwnPart], progress: Progress) -> None:
    """Say which files the user's own code is read from.

    Args:
        parts: The user's own parts by option.
        progress: Where notes go.
    """
    for option, part in parts.items():
        if part.file:
            progress.note(f"Code of your own: {option} {part.name} is read from {part.file}.")
    if told := explain_unportable({option: part.name for option, part in parts.items()}):
        progress.note(f"Warning: {told}.")


def tell_changed_code(before: Mapping[str, OwnPart], now: Mapping[str, OwnPart], progress: Progress) -> None:
    """Warn of own code that is another than when the run was trained.

    Args:
        before: The user's own parts by option, when the run was trained.
        now: Those now.
        progress: Where notes go.
    """
    for option, part in now.items():
        if option in before and before[option].digest != part.digest:
            progress.note(
                f"Warning: {option}: the source of {part.name} has changed since this run was trained. "
                "The epochs before and after are of different code; start a new training to have one."
            )
