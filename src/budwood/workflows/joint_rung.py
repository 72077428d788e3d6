"""The last rung: several networks together, where cross-validation on the validation images says that it is better."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from budwood.evaluation.ensembles import select_greedily
from budwood.evaluation.label_task import task_of
from budwood.runs.ladder_record import CandidateRecord
from budwood.runs.run import Run
from budwood.workflows.ensemble import ensemble
from budwood.workflows.ladder_rules import WRITING
from budwood.workflows.ladder_state import Ladder, TriedHead
from budwood.workflows.ladder_verdict import choose_weighting, is_mean_better

Key = tuple[str, int, str]  # trunk, size and way to make an image square, of which one network is enough
OTHERS: Final = 2  # frozen networks of other trunks or sizes that are trained to be joined


def climb_together(ladder: Ladder) -> None:
    """Join the runs so far, and frozen networks of other trunks, where the mean of them is better than the best.

    Args:
        ladder: The search.

    Raises:
        BudwoodError: A run cannot be read or written.
    """
    if _is_frozen(ladder) and (team := _choose_team(ladder)):
        _join_frozen(ladder, team)
        return
    _train_others(ladder)
    if len(ladder.runs) < 2:
        return
    ids = ladder.predictions(ladder.best).ids
    members = [ladder.predictions(number).in_order(ids) for number in range(len(ladder.runs))]
    names = " + ".join(run.recipe.model for run in ladder.runs)
    candidate = CandidateRecord(name=f"the mean of {len(members)} networks", recipe={}, note=names)
    weighting = choose_weighting(members, ladder.best)
    if weighting is None:
        note = "The mean of all networks is not better than the best alone by more than one standard error."
        ladder.close_rung("together", (candidate,), None, note=note)
        return
    joined = ensemble(ladder.runs, weighting, out=ladder.out, id=ladder.next_id())
    if joined.record.ensemble is None or len(joined.record.ensemble.members) < 2:
        ladder.close_rung("together", (candidate,), None, note="Validation gives all weight to one network.")
        return
    ladder.runs.append(joined)
    ladder.close_rung("together", (candidate,), 0)
    if ladder.rungs[-1].kept:
        _tell(ladder, len(joined.record.ensemble.members))


def _is_frozen(ladder: Ladder) -> bool:
    """Whether there are frozen networks alone, which cross-validation can compare on more than validation images."""
    return bool(ladder.heads) and all(run.record.trained == "head" for run in ladder.runs)


def _choose_team(ladder: Ladder) -> tuple[TriedHead, ...]:
    """The heads of frozen trunks whose mean is better on held-out images than the best alone; empty where none is.

    Held-out answers of training and validation images tell more than those of validation images alone.
    """
    heads = _list_others(ladder.heads, set())
    samples = ladder.data.samples("train").in_content_order().join(ladder.data.samples("val"))
    labels = samples.labels
    task, true = task_of((), len(ladder.data.classes)), []
    for head in heads:
        seen = ~np.isnan(head.score.losses)
        true.append(np.asarray(task.true_probabilities(task.read_labels(labels[seen]), head.score.logits[seen])))
    if len(heads) < 2 or not is_mean_better(true, 0):
        return ()
    picks = select_greedily(true).picks
    team = tuple(head for head, count in zip(heads, picks, strict=True) if count)
    return team if len(team) > 1 else ()


def _join_frozen(ladder: Ladder, team: Sequence[TriedHead]) -> None:
    """Train those of a team that have no run yet, and join all of them with equal weights."""
    names = " + ".join(head.name for head in team)
    candidate = CandidateRecord(name=f"the mean of {len(team)} frozen networks", recipe={}, note=names)
    members = []
    for head in team:
        key = _identify(head)
        known = [run for run in ladder.runs if run.record.trained == "head" and _identify_run(run) == key]
        if not known and ladder.left() < 2 * WRITING:
            late = candidate.model_copy(update={"state": "no time"})
            ladder.close_rung("together", (late,), None, note="No time was left to train all of them.")
            return
        members.append(known[-1] if known else ladder.carry_out(head.options))
    ladder.runs.append(ensemble(members, "equal", out=ladder.out, id=ladder.next_id()))
    note = "Kept: on held-out images the mean of them is better than the best alone, by more than one standard error."
    ladder.close_rung("together", (candidate,), 0, replaces=True, note=note)
    _tell(ladder, len(team))


def _tell(ladder: Ladder, count: int) -> None:
    ladder.context.progress.note(
        f"{count} networks together are better than the best alone. Each answer takes as long as all of them."
    )


def _train_others(ladder: Ladder) -> None:
    """Train the best heads of trunks and sizes that no run has yet, as far as there is time."""
    had = set(map(_identify_run, ladder.runs))
    for head in _list_others(ladder.heads, had)[:OTHERS]:
        if ladder.left() < 3 * WRITING:
            return
        ladder.carry_out(head.options)


def _list_others(heads: Sequence[TriedHead], had: set[Key]) -> list[TriedHead]:
    """The best head of each trunk, size and way to make an image square that no run has, the best first."""
    found: dict[Key, TriedHead] = {}
    for head in sorted(heads, key=lambda one: one.loss):
        if _identify(head) not in had:
            found.setdefault(_identify(head), head)
    return list(found.values())


def _identify(head: TriedHead) -> Key:
    return str(head.options["model"]), int(head.options["size"]), str(head.options["resize"])


def _identify_run(run: Run) -> Key:
    return run.recipe.model, run.recipe.size or 0, str(run.recipe.resize)
