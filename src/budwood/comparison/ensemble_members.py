"""An ensemble beside its members, and what is to be said of it beside the other rows of a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from budwood.comparison.alignment import align_predictions, score_rows
from budwood.comparison.pairs import compare_pairs
from budwood.comparison.rows import RowSpec
from budwood.evaluation.intervals import Metric
from budwood.evaluation.result_checks import ResultFinding
from budwood.runs.run import Run
from budwood.runs.run_record import EnsembleMember
from budwood.text import listed


@dataclass(frozen=True)
class MemberScore:
    """A member of an ensemble with its validation scores.

    Attributes:
        member: The member, with its weight.
        network: Name of its network.
        size: Side of its input, pixels.
        split: Which fold of how many validated it, or how the data were split.
        metric: The metric that it is scored by: accuracy, or mean average precision of several labels.
        score: Its score on its own validation images.
        log_loss: Its loss on these, nats.
        looks: At which look its test split was opened before the ensemble was made; None where it was sealed.
        difference: Score of the ensemble minus its own, on the same images; None for a fold, which has others.
        p: p-value of that difference, corrected over all members (Holm); None for a fold.
        test: Name of the test; empty for a fold.
    """

    member: EnsembleMember
    network: str
    size: int
    split: str
    metric: str
    score: Metric
    log_loss: Metric
    looks: int | None
    difference: Metric | None = None
    p: float | None = None
    test: str = ""


def compare_members(run: Run) -> tuple[MemberScore, ...]:
    """Compare an ensemble with each of its members on the validation images that all of them were scored on.

    Args:
        run: An ensemble.

    Returns:
        The members in the order of the record; none of a run that was trained.

    Raises:
        RunError: A member is missing or damaged.
    """
    made = run.record.ensemble
    if made is None:
        return ()
    members = run.members()
    metric = _choose_metric(run, members)
    names = [f"member {number}" for number in range(len(members))]
    pairs = {}
    if not made.folds:
        every = dict(zip(["ensemble", *names], (run, *members), strict=True))
        aligned = [align_predictions(name, [one], "val") for name, one in every.items()]
        scored = dict(zip(every, score_rows(aligned, metric), strict=True))
        groups = [{"ensemble": scored["ensemble"], name: scored[name]} for name in names]
        pairs = {pair.other: pair for pair in compare_pairs(groups, metric)}
    scores = []
    for name, member, one in zip(names, made.members, members, strict=True):
        record, pair = one.record, pairs.get(name)
        scores.append(
            MemberScore(
                member=member,
                network=record.network.name,
                size=record.network.size,
                split=record.dataset.split,
                metric=metric,
                score=record.val.figures[metric],
                log_loss=record.val.figures["log_loss"],
                looks=record.test.looks if record.test else None,
                difference=pair.difference if pair else None,
                p=pair.p_holm if pair else None,
                test=pair.test if pair else "",
            )
        )
    return tuple(scores)


def _choose_metric(run: Run, members: Sequence[Run]) -> str:
    """The metric that an ensemble and its members are compared by; one that all have."""
    chosen = {one.task.choose_headline(one.record.val.figures) for one in (run, *members)}
    return chosen.pop() if len(chosen) == 1 else "accuracy"


def find_chosen_weights(entries: Sequence[RowSpec], split: str) -> tuple[ResultFinding, ...]:
    """Find ensembles whose weights were chosen on the images that a table compares on.

    Args:
        entries: Rows of the table.
        split: `val` or `test`.

    Returns:
        A finding; none where there is no such row.
    """
    chosen = [
        entry.label
        for entry in entries
        for run in entry.runs
        if split == "val" and run.record.ensemble and run.record.ensemble.rule == "validation"
    ]
    if not chosen:
        return ()
    one = len(chosen) == 1
    message = (
        f"{listed(chosen, 4)}: the weights of {'this ensemble' if one else 'these ensembles'} were chosen on the "
        "validation set, so the score here is too optimistic beside rows of single runs."
    )
    advice = "Believe the difference on the test set alone: of one run `budwood test RUN`, of a study --test opens it."
    return (ResultFinding("R020", "note", message, advice, tuple(chosen)),)
