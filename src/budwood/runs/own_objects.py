"""Objects of the user's own in the recipe of a run that is read again, as the program still has them."""

from __future__ import annotations

from pathlib import Path

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
