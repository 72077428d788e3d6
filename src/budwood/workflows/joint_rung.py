"""The last rung: several networks together, where cross-validation on the validation images says that it is better."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from budwood.runs.ladder_record import CandidateRecord
from budwood.workflows.ensemble import ensemble
from budwood.workflows.ladder_rules import WRITING
from budwood.workflows.ladder_state import Ladder, TriedHead
from budwood.workflows.ladder_verdict import align, is_better_together

OTHERS: Final = 2  # frozen networks of other trunks or sizes that are trained to be joined


def climb_together(ladder: Ladder) -> None:
    """Join the runs so far, and frozen networks of other trunks, where the mean of them is better than the best.

    Args:
        ladder: The search.

    Raises:
        BudwoodError: A run cannot be read or written.
    """
    if ladder.multilabel and len(ladder.runs) < 2:
        return
    _train_others(ladder)
    if len(ladder.runs) < 2:
        return
    first = ladder.predictions(ladder.best)
    members = [align(ladder.predictions(number), first) for number in range(len(ladder.runs))]
    names = " + ".join(run.recipe.model for run in ladder.runs)
    candidate = CandidateRecord(name=f"the mean of {len(members)} networks", recipe={}, note=names)
    if not is_better_together(members, ladder.best):
        note = "The mean of all networks is not better than the best alone by more than one standard error."
        ladder.close_rung("together", (candidate,), None, note=note)
        return
    joined = ensemble(ladder.runs, "validation", out=ladder.out, id=ladder.next_id())
    if joined.record.ensemble is None or len(joined.record.ensemble.members) < 2:
        ladder.close_rung("together", (candidate,), None, note="Validation gives all weight to one network.")
        return
    ladder.runs.append(joined)
    ladder.close_rung("together", (candidate,), 0)
    if ladder.rungs[-1].kept:
        count = len(joined.record.ensemble.members)
        ladder.context.progress.note(
            f"{count} networks together are better than the best alone. Each answer takes as long as all of them."
        )


def _train_others(ladder: Ladder) -> None:
    """Train the best heads of trunks and sizes that no run has yet, as far as there is time."""
    had = {(run.recipe.model, run.recipe.size or 0, str(run.recipe.resize)) for run in ladder.runs}
    for head in _list_others(ladder.heads, had)[:OTHERS]:
        if ladder.left() < 3 * WRITING:
            return
        ladder.carry_out(head.options)


def _list_others(heads: Sequence[TriedHead], had: set[tuple[str, int, str]]) -> list[TriedHead]:
    """The best head of each trunk, size and way to make an image square that no run has, the best first."""
    found: dict[tuple[str, int, str], TriedHead] = {}
    for head in sorted(heads, key=lambda one: float(one.score.losses[one.score.losses == one.score.losses].mean())):
        key = (str(head.options["model"]), int(head.options["size"]), str(head.options["resize"]))
        if key not in had:
            found.setdefault(key, head)
    return list(found.values())
