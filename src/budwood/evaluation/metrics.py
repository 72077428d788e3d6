"""How good predictions are, with intervals: the definitions of the metrics, and all of them for one split.

What differs between images with one label and images with several is asked of a `Scoring`: `label_task` has two.
`intervals` has the 95 % intervals: Wilson's for shares, a normal one for means, percentiles of resampled images for the
rest. An undefined value is None. `metric_registry` has the names.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from budwood.config.metric_registry import find_metric
from budwood.config.registry import import_entry
from budwood.errors import RecipeError
from budwood.evaluation.class_counts import (
    compute_f1,
    compute_recall,
    count_images,
    mean_over_present,
    sum_counts,
)
from budwood.evaluation.intervals import (
    Metric,
    Values,
    iterate_bootstrap_weights,
    mean_interval,
    percentile_interval,
    proportion_interval,
)
from budwood.evaluation.scoring import ClassCounts, Counts, Labels, Logits, Scoring
from budwood.evaluation.split_metrics import ClassMetrics, SplitMetrics


class Evaluation:
    """The answers to one split: what several metrics need is computed once."""

    def __init__(self, task: Scoring, labels: Labels, logits: Logits) -> None:
        self.task, self.labels, self.logits = task, labels, logits

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def counts(self) -> ClassCounts:
        """Images by class, [classes] each."""
        return sum_counts(count_images(self.task, self.labels, self.logits))

    @cached_property
    def resampled(self) -> ClassCounts:
        """The same of bootstrap samples, [resamples, classes] each."""
        return self.task.resample_counts(self.labels, self.logits)

    @cached_property
    def f1(self) -> tuple[Values, Values]:
        """The F1 of each class, float64 [classes], and of bootstrap samples, [resamples, classes]."""
        return compute_f1(self.counts), compute_f1(self.resampled)

    @cached_property
    def average_precision(self) -> tuple[Values, Values]:
        """The average precision of each class, float64 [classes], and of bootstrap samples, [resamples, classes]."""
        return _compute_average_precision(self.task.to_targets(self.labels), self.logits)


class MetricDefinition(ABC):
    """How a metric is computed."""

    @abstractmethod
    def score(self, task: Scoring, labels: Labels, logits: Logits) -> float:
        """Return the value alone."""

    @abstractmethod
    def evaluate(self, answers: Evaluation) -> Metric:
        """Return the value with its 95 % interval."""


class ResampledMetric(MetricDefinition):
    """A metric that is no mean over images, so that intervals and tests need bootstrap samples of them."""

    @abstractmethod
    def resample(self, task: Scoring, labels: Labels, answers: Sequence[Logits]) -> tuple[Values, Values]:
        """Return the values of several networks on the same images, and on bootstrap samples of them.

        Args:
            task: What the images are labelled with.
            labels: Class numbers int32 [n], or bool [n, classes] where an image may have several.
            answers: Logits of each network, float32 [n, classes].

        Returns:
            The values, float64 [networks], and the same for every bootstrap sample, float64 [resamples, networks]. All
            networks share the samples.
        """


@dataclass(frozen=True)
class ImageMean(MetricDefinition):
    """A mean over images of what each adds, float64 [n]: of 0s and 1s where it `is_proportion`."""

    values: Callable[[Scoring, Labels, Logits], Values]
    is_proportion: bool

    def score(self, task: Scoring, labels: Labels, logits: Logits) -> float:
        """Return the mean over the images."""
        return float(self.values(task, labels, logits).mean())

    def evaluate(self, answers: Evaluation) -> Metric:
        """Return the mean with the interval of a proportion, or else of a mean."""
        values = self.values(answers.task, answers.labels, answers.logits)
        return proportion_interval(int(values.sum()), len(values)) if self.is_proportion else mean_interval(values)


@dataclass(frozen=True)
class ClassMean(ResampledMetric):
    """A mean, over the classes that have an image, of a figure that the counts of a class give: float64 [classes]."""

    by_class: Callable[[ClassCounts], Values]

    def score(self, task: Scoring, labels: Labels, logits: Logits) -> float:
        """Return the mean over the classes that have an image."""
        return float(self._mean(sum_counts(count_images(task, labels, logits))))

    def evaluate(self, answers: Evaluation) -> Metric:
        """Return the mean with its bootstrap percentile interval."""
        return percentile_interval(self._mean(answers.counts), self._mean(answers.resampled), len(answers))

    def resample(self, task: Scoring, labels: Labels, answers: Sequence[Logits]) -> tuple[Values, Values]:
        """Return the means of several networks, and those of shared bootstrap samples."""
        counts = [count_images(task, labels, logits) for logits in answers]
        stacked = [np.concatenate(count, axis=1).astype(np.float32) for count in counts]  # exact in float32
        drawn = [
            [self._mean(ClassCounts(*np.split((weights @ one).astype(np.int64), 3, axis=1))) for one in stacked]
            for part in iterate_bootstrap_weights(len(labels))
            for weights in [part.astype(np.float32)]
        ]
        values = [float(self._mean(sum_counts(count))) for count in counts]
        return np.array(values), np.concatenate([np.stack(part, axis=1) for part in drawn])

    def _mean(self, counts: ClassCounts) -> Values:
        return mean_over_present(self.by_class(counts), counts)


@dataclass(frozen=True)
class MeanAveragePrecision(ResampledMetric):
    """The mean over the classes that have an image of the mean precision at each of its images, by falling logit."""

    def score(self, task: Scoring, labels: Labels, logits: Logits) -> float:
        """Return the mean average precision."""
        return float(self._of_all(Evaluation(task, labels, logits)))

    def evaluate(self, answers: Evaluation) -> Metric:
        """Return the mean average precision with its bootstrap percentile interval."""
        drawn = mean_over_present(np.nan_to_num(answers.average_precision[1]), answers.resampled)
        return percentile_interval(self._of_all(answers), drawn, len(answers))

    def resample(self, task: Scoring, labels: Labels, answers: Sequence[Logits]) -> tuple[Values, Values]:
        """Return the mean average precision of several networks, and that of shared bootstrap samples."""
        targets = task.to_targets(labels)
        support = np.concatenate([part @ targets for part in iterate_bootstrap_weights(len(targets))])
        drawn = ClassCounts(support, support, support)
        made = [Evaluation(task, labels, logits) for logits in answers]
        spread = [mean_over_present(np.nan_to_num(one.average_precision[1]), drawn) for one in made]
        return np.array([float(self._of_all(one)) for one in made]), np.stack(spread, axis=1)

    def _of_all(self, answers: Evaluation) -> Values:
        return mean_over_present(answers.average_precision[0], answers.counts)


@dataclass(frozen=True)
class FunctionMetric(ResampledMetric):
    """Any function of labels and logits; its interval is that of bootstrap samples of the images, one after another."""

    function: Callable[[Scoring, Labels, Logits], float]

    def score(self, task: Scoring, labels: Labels, logits: Logits) -> float:
        """Return what the function gives."""
        return float(self.function(task, labels, logits))

    def evaluate(self, answers: Evaluation) -> Metric:
        """Return the value with its bootstrap percentile interval; undefined where there is no image."""
        n = len(answers)
        if n == 0:
            return proportion_interval(0, 0)
        values, spread = self.resample(answers.task, answers.labels, [answers.logits])
        return percentile_interval(values[0], spread[:, 0], n)

    def resample(self, task: Scoring, labels: Labels, answers: Sequence[Logits]) -> tuple[Values, Values]:
        """Return the values of several networks, and those of shared bootstrap samples; NaN where one has none."""
        samples = [
            np.repeat(np.arange(len(labels)), weights)
            for part in iterate_bootstrap_weights(len(labels))
            for weights in part
        ]
        drawn = [[self._score_sample(task, labels[rows], logits[rows]) for logits in answers] for rows in samples]
        return np.array([self.score(task, labels, logits) for logits in answers]), np.array(drawn, np.float64)

    def _score_sample(self, task: Scoring, labels: Labels, logits: Logits) -> float:
        """The value; NaN where a sample, which may lack a class, has none."""
        try:
            return self.score(task, labels, logits)
        except (ValueError, ZeroDivisionError):
            return float("nan")


def define_metric(name: str) -> MetricDefinition:
    """Return how a metric is computed.

    Args:
        name: A name of `metric_registry`, or `package.module:name` of a function of labels (class numbers int32 [n], or
            bool [n, classes] where an image may have several) and logits float32 [n, classes] that gives a float.

    Raises:
        RecipeError: There is no such metric, or what is named is no function.
    """
    definition = import_entry(find_metric(name).definition, "metric")
    if isinstance(definition, MetricDefinition):
        return definition
    if not callable(definition):
        raise RecipeError(
            f"metric: {name} is no function, found {type(definition).__name__}.",
            "A metric is a function of labels and logits that gives a float.",
        )
    return FunctionMetric(lambda task, labels, logits: definition(labels, logits))


def evaluate(
    task: Scoring, labels: Labels, logits: Logits, classes: Sequence[str], names: Sequence[str]
) -> SplitMetrics:
    """Compute the metrics of one split.

    Balanced accuracy and macro F1 are means over the classes that have an image. Undefined values are None. The loss is
    in nats.

    Args:
        task: What the images are labelled with.
        labels: True classes, int32 [n], or bool [n, classes] where an image may have several.
        logits: Logits, float32 [n, classes].
        classes: Names of the classes.
        names: Names of the metrics, as `define_metric` takes them.

    Returns:
        The metrics by name, each with its 95 % confidence interval; and `per_class`, with precision, recall, F1 and
        support of each class by name, and its average precision where `mean_average_precision` is asked for.
    """
    answers = Evaluation(task, labels, logits)
    scores = {name: define_metric(name).evaluate(answers) for name in names}
    per_class = {name: _evaluate_class(answers, c) for c, name in enumerate(classes)}
    if "mean_average_precision" in names:
        for c, name in enumerate(classes):
            whole, drawn = answers.average_precision
            support = int(answers.counts.support[c])
            precision = percentile_interval(whole[c], drawn[:, c], support)
            per_class[name] = replace(per_class[name], average_precision=precision)
    return SplitMetrics(scores, per_class)


def _evaluate_class(answers: Evaluation, c: int) -> ClassMetrics:
    counts = answers.counts
    correct, support, predicted = int(counts.correct[c]), int(counts.support[c]), int(counts.predicted[c])
    return ClassMetrics(
        precision=proportion_interval(correct, predicted),
        recall=proportion_interval(correct, support),
        f1=percentile_interval(answers.f1[0][c], answers.f1[1][:, c], support),
        support=support,
    )


def _mean_auroc(task: Scoring, labels: Labels, logits: Logits) -> float:
    """The mean over classes that have an image of the AUROC of each against all others (Hanley and McNeil 1982)."""
    targets, scores = task.to_targets(labels), task.rank_scores(logits)
    present = np.flatnonzero(targets.any(axis=0)).tolist()
    return float(np.mean([_compute_auroc(targets[:, c], scores[:, c]) for c in present]))


def _compute_auroc(positive: NDArray[np.bool_], scores: Values) -> float:
    """The share of pairs of a positive and a negative that are in the right order; one half where there is no pair."""
    _, rank, count = np.unique(scores, return_inverse=True, return_counts=True)
    middle = np.cumsum(count) - (count - 1) / 2
    hits, misses = int(positive.sum()), int((~positive).sum())
    if not hits or not misses:
        return 0.5
    return float((middle[rank][positive].sum() - hits * (hits + 1) / 2) / (hits * misses))


def _compute_average_precision(targets: NDArray[np.bool_], logits: Logits) -> tuple[Values, Values]:
    """The mean precision at each image of a class, by falling logit: float64 [classes], and [resamples, classes]."""
    orders = np.argsort(-logits, axis=0, kind="stable")

    def weighed(part: Counts) -> Values:
        values = []
        for c in range(targets.shape[1]):
            ordered = part[:, orders[:, c]]
            found = ordered * targets[orders[:, c], c]
            with np.errstate(invalid="ignore", divide="ignore"):
                precision = np.nan_to_num(np.cumsum(found, axis=1) / np.cumsum(ordered, axis=1))
                values.append((found * precision).sum(axis=1) / found.sum(axis=1))
        return np.stack(values, axis=1)

    whole = weighed(np.ones((1, len(targets)), np.int64))[0]
    return whole, np.concatenate([weighed(part) for part in iterate_bootstrap_weights(len(targets))])


ACCURACY: Final = ImageMean(lambda task, labels, logits: task.is_correct(labels, logits).astype(np.float64), True)
LOG_LOSS: Final = ImageMean(lambda task, labels, logits: task.losses(labels, logits), False)
BALANCED_ACCURACY: Final = ClassMean(compute_recall)
MACRO_F1: Final = ClassMean(compute_f1)
MEAN_AVERAGE_PRECISION: Final = MeanAveragePrecision()
AUROC: Final = FunctionMetric(_mean_auroc)
