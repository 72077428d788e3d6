"""Whether a later run is better than the best before it, by what both say of the same validation images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from budwood.config.metric_registry import LOSS, describe_metric
from budwood.evaluation.differences import paired_difference_interval
from budwood.evaluation.ensembles import compute_mean_loss, select_greedily
from budwood.evaluation.intervals import proportion_interval
from budwood.evaluation.predictions import Predictions
from budwood.evaluation.significance import ALPHA, mcnemar_test
from budwood.runs.ladder_record import Figure
from budwood.workflows.ensemble import Rule

ROUNDING: Final = 1e-9  # nats, which the mean of copies may seem to gain
FOLDS: Final = 5  # of the validation images, on which the weights of an ensemble are chosen and scored in turn


@dataclass(frozen=True)
class Verdict:
    """How a run compares with the best before it on the validation images.

    Attributes:
        accuracy: Its accuracy.
        gain: Its accuracy minus that of the other.
        p: p-value of McNemar's exact test of that difference.
        kept: Whether it is kept in the other's place.
        note: A sentence that says why.
    """

    accuracy: Figure
    gain: Figure
    p: float
    kept: bool
    note: str


def judge(before: Predictions, after: Predictions, select: str = LOSS) -> Verdict:
    """Compare a later run with the best before it, image by image.

    What took more time is expected to be better, so that it need not prove it: it is kept where its loss is lower and
    its accuracy is not lower by more than one standard error of the paired difference. Losses are those after each
    run's own temperature, so that label smoothing does not count against it. Where a metric was asked for, that metric
    stands in the place of the loss, and accuracy may be lower unless the paired test is sure of it.

    Args:
        before: Validation predictions of the best run so far.
        after: Those of the later run, for the same images.
        select: The metric that was asked for, or `loss`.

    Returns:
        The verdict.
    """
    after = after.in_order(before.ids)
    was, now = before.correct, after.correct
    n, wins, losses = len(now), int((now & ~was).sum()), int((was & ~now).sum())
    low, high = paired_difference_interval(np.float64(wins), np.float64(losses), n)  # type: ignore[arg-type]
    difference = (wins - losses) / n
    error = float((now.astype(float) - was).std() / np.sqrt(n))
    p = float(mcnemar_test(np.stack([was, now], axis=1).astype(np.float64))[0, 1])
    name, better = _compare(before, after, select)
    bearable = difference >= -error if select == LOSS else p >= ALPHA or difference >= 0
    kept = better and bearable
    if kept:
        note = f"Kept: its {name} on validation is better."
    elif better:
        note = "Not kept: it gets too many validation images wrong that the best before it gets right."
    else:
        note = f"Not kept: its {name} on validation is no better."
    return Verdict(
        measure_accuracy(after), Figure(value=difference, low=float(low), high=float(high), n=n), p, kept, note
    )


def measure_accuracy(predictions: Predictions) -> Figure:
    """Measure the accuracy of predictions.

    Args:
        predictions: The predictions.

    Returns:
        Share of images that are right, in every class where they have several, with its exact interval.
    """
    metric = proportion_interval(int(predictions.correct.sum()), len(predictions.ids))
    return Figure(value=metric.value or 0.0, low=metric.low, high=metric.high, n=metric.n)


def _compare(before: Predictions, after: Predictions, select: str) -> tuple[str, bool]:
    """What decides, and whether the later run is better by it."""
    if select == LOSS:
        return "loss", bool(compute_calibrated_losses(after).mean() < compute_calibrated_losses(before).mean())
    one, other = (each.task.score(select, each.truth, each.logits) for each in (before, after))
    return describe_metric(select), bool(other > one or (other == one and after.losses.mean() < before.losses.mean()))


def compute_calibrated_losses(predictions: Predictions) -> NDArray[np.float64]:
    """Compute the loss of each image after the temperature that suits the predictions best (Guo et al. 2017).

    Args:
        predictions: The predictions.

    Returns:
        Losses in nats, float64 [n].
    """
    temperatures = predictions.task.fit_temperatures(predictions.truth, predictions.logits)
    logits = (predictions.logits / temperatures).astype(np.float32)
    return replace(predictions, logits=logits).losses


def choose_weighting(members: Sequence[Predictions], best: int) -> Rule | None:
    """Choose how several runs are averaged, where their mean is better than the best of them.

    Equal weights fit nothing to the images that they are judged by, and are often the better for it; weights that are
    chosen leave out what does harm, and are judged by cross-validation.

    Args:
        members: Validation predictions of each run, for the same images in the same order.
        best: Number of the best of them.

    Returns:
        `equal`, or `validation` for weights that are chosen on it, whichever has the lower loss; None where the mean is
        not better by more than one standard error, as `is_mean_better` tells it.
    """
    true = [np.asarray(one.task.true_probabilities(one.truth, one.logits)) for one in members]
    if not _can_tell(true):
        return None
    alone = _measure_losses(true[best])
    equal, chosen = alone - _measure_losses(np.mean(true, axis=0)), alone - _cross_validate(true)
    name: Rule = "equal" if equal.mean() >= chosen.mean() else "validation"
    return name if _is_surely_positive(equal if name == "equal" else chosen) else None


def is_mean_better(true: Sequence[NDArray[np.float64]], best: int) -> bool:
    """Tell whether the mean of several networks is better than the best of them, by cross-validation.

    The weights are chosen on four fifths of the images and scored on the last, in turn, so that choosing them is not
    counted as a gain. An answer of several networks takes as long as all of them, so it has to be better by one
    standard error of the paired difference.

    Args:
        true: Probability that each network gives to what is true of each image, which it has not seen: float64 [n], or
            [n, classes] where an image has several labels.
        best: Number of the best network.

    Returns:
        Whether it is.
    """
    return _can_tell(true) and _is_surely_positive(_measure_losses(true[best]) - _cross_validate(true))


def _can_tell(true: Sequence[NDArray[np.float64]]) -> bool:
    return len(true) > 1 and len(true[0]) >= 2 * FOLDS


def _is_surely_positive(gain: NDArray[np.float64]) -> bool:
    """Whether the mean of differences is above 0 by more than its standard error."""
    return bool(gain.mean() > max(gain.std() / np.sqrt(len(gain)), ROUNDING))


def _cross_validate(true: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The loss of each image by weights that were chosen on other images: float64 [n]."""
    n = len(true[0])
    losses, order = np.empty(n), np.random.default_rng(0).permutation(n)
    for fold in range(FOLDS):
        held = order[fold::FOLDS]
        rest = np.setdiff1d(order, held)
        weights = select_greedily([one[rest] for one in true]).weights
        losses[held] = _measure_losses(
            np.sum([weight * one[held] for weight, one in zip(weights, true, strict=True)], 0)
        )
    return losses


def _measure_losses(true: NDArray[np.float64]) -> NDArray[np.float64]:
    """The loss of each image, nats: float64 [n]."""
    return np.array([compute_mean_loss(each) for each in true])
