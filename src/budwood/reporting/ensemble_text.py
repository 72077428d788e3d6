"""How an ensemble was made, in words."""

from __future__ import annotations

from budwood.runs.run_record import EnsembleRecord, RunRecord
from budwood.text import counted, listed


def describe_ensemble(record: RunRecord) -> str:
    """Describe in plain sentences what an ensemble is the mean of, and how its weights were chosen.

    Args:
        record: Record of an ensemble.

    Returns:
        Sentences on the mean, the weights, and what the validation score is worth.
    """
    made = record.ensemble
    assert made
    apart = ", of each class by itself" if record.dataset.several else ""
    count = counted(len(made.members), "network")
    what = f"The answer is the mean of the probabilities of {count}{apart}"
    sentences = [f"{what}, {_describe_weights(made)}", describe_optimism(record)]
    if made.folds:
        sentences.append("New images and the test set are answered by all of them")
    return " ".join(f"{sentence}." for sentence in sentences if sentence)


def describe_optimism(record: RunRecord) -> str:
    """Describe what the validation score of a run is worth that was made of others, where that is not plain.

    Args:
        record: Record of a run.

    Returns:
        One sentence without its full stop; empty where there is nothing to say.
    """
    made = record.ensemble
    if made is None:
        return ""
    if made.folds:
        return (
            "The networks are folds of a cross-validation: the validation answer for an image is that of the networks "
            "that were not trained on it, so the validation score is the cross-validated score"
        )
    if made.rule == "validation":
        until = ": go by the test score" if record.test else " until the test set is opened"
        return f"The weights were chosen on the validation set, so the validation score is too optimistic{until}"
    return ""


def _describe_weights(made: EnsembleRecord) -> str:
    if made.rule == "equal":
        return "each with the same weight" if _are_equal(made) else "weighted as the ensembles that it was made of"
    picks = made.picks or ()
    if len(made.members) == 1:
        return (
            f"which had a lower loss on the validation set alone than with any other of {counted(len(picks), 'run')} "
            "(greedy selection with replacement, Caruana et al. 2004)"
        )
    dropped = [run for run, count in zip(made.candidates, picks, strict=True) if not count]
    left = f"; left out, because never picked: {listed(dropped, 6)}" if dropped else ""
    return (
        f"weighted by the share of {counted(sum(picks), 'pick')} of a greedy selection with replacement from "
        f"{counted(len(made.candidates), 'run')} (Caruana et al. 2004): each time that run was picked with which the "
        f"mean had the lowest loss on the validation set{left}"
    )


def _are_equal(made: EnsembleRecord) -> bool:
    return max(one.weight for one in made.members) - min(one.weight for one in made.members) < 1e-9
