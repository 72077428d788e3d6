"""What the first screen of a report answers: is it good enough, what is wrong with my data, what next?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from budwood.evaluation.intervals import Metric
from budwood.evaluation.label_task import LabelTask
from budwood.evaluation.result_checks import ResultFinding
from budwood.evaluation.split_metrics import SplitMetrics
from budwood.reporting.findings_order import count_severities, sort_by_importance
from budwood.reporting.judgements import judge_suspects
from budwood.reporting.known_scores import KNOWN_SCORES
from budwood.runs.explanation_record import Explanation, JudgedLabels
from budwood.runs.run_record import RunRecord
from budwood.text import LEAST_TOLD, SPLITS, counted, say_too_few, show_unprintable

NEW: Final = "NEW_IMAGES"  # stands for the user's images in a command


@dataclass(frozen=True)
class Reference:
    """A figure that a score is held against.

    Attributes:
        name: Whose figure it is.
        value: The figure, 0 to 1.
        told: How the score stands to it.
    """

    name: str
    value: float
    told: str


@dataclass(frozen=True)
class Step:
    """A command that may come next.

    Attributes:
        title: What it is for.
        command: The command.
    """

    title: str
    command: str


@dataclass(frozen=True)
class FirstScreen:
    """The answers of the first screen.

    Attributes:
        split: The split of the score in words: that of the test set once it is open.
        score: The score.
        verdict: Whether it is good, in a sentence or two.
        references: What it is held against.
        weakest: The weakest class in a sentence; empty where none can be told.
        result: The finding about the result that matters most, where it is more than a note.
        found: The findings about the data counted by severity; empty where there are none.
        data: The sentence of the most important one; empty where there are none.
        severity: Its severity.
        code: Its number.
        advice: What to do about it.
        suspects: What is known of wrong labels; empty where nothing is.
        steps: What may come next.
    """

    split: str
    score: Metric
    verdict: str
    references: Sequence[Reference]
    weakest: str
    result: ResultFinding | None
    found: str
    data: str
    severity: str
    code: str
    advice: str
    suspects: str
    steps: Sequence[Step]


def answer_first(
    record: RunRecord,
    task: LabelTask,
    results: Sequence[ResultFinding],
    explanation: Explanation | None,
    place: str,
) -> FirstScreen:
    """Answer the three questions of the first screen.

    Args:
        record: The record of the run.
        task: What its images are labelled with.
        results: Findings about the result.
        explanation: What was found out about the run; None where nothing was.
        place: The run as a word of a command.

    Returns:
        The answers.
    """
    split, scores = ("test", record.test.metrics) if record.test else ("val", record.val)
    headline = task.choose_headline(scores.figures)
    score = scores.figures[headline]
    references = [*find_baseline(record, task, scores), *_list_published(record, headline, score)]
    serious = [one for one in sort_by_importance(results) if one.severity != "note"]
    worst = next(iter(sort_by_importance(record.findings)), None)
    return FirstScreen(
        split=SPLITS[split],
        score=score,
        verdict=_judge(task, score, references[:1], SPLITS[split]),
        references=references,
        weakest=_name_weakest(scores),
        result=serious[0] if serious else None,
        found=count_severities(record.findings),
        data=worst.message if worst else "",
        severity=worst.severity if worst else "",
        code=worst.code if worst else "",
        advice=worst.advice if worst else "",
        suspects=_count_suspects(explanation),
        steps=list_steps(record, explanation is not None, place),
    )


def find_baseline(record: RunRecord, task: LabelTask, scores: SplitMetrics) -> list[Reference]:
    """Find what the simplest answer would score on the same images.

    With one label an image, that is to call each what most training images are; with several, to rank the images by
    chance, which gives each label its share of the images.

    Args:
        record: The record of the run.
        task: What its images are labelled with.
        scores: The scores of a split.

    Returns:
        The figure; none where no image has a label, or the run is compared by another metric.
    """
    headline = task.choose_headline(scores.figures)
    score, support = scores.figures[headline], {name: one.support for name, one in scores.per_class.items()}
    if not score.n or not any(support.values()):
        return []
    if task.multilabel:
        if headline != "mean_average_precision":
            return []
        shares = [count / score.n for count in support.values() if count]
        return [_hold("Images ranked by chance", sum(shares) / len(shares), score)]
    train = record.dataset.counts.train
    usual = max(support, key=lambda name: train.get(name, 0))
    name = f"Always answering {show_unprintable(usual)}, the most frequent class"
    return [_hold(name, support[usual] / sum(support.values()), score)]


def _list_published(record: RunRecord, headline: str, score: Metric) -> list[Reference]:
    if headline != "accuracy":
        return []
    known = KNOWN_SCORES.get(record.source, {})
    return [_hold(f"Published: {name}", value, score) for name, value in known.items()]


def _hold(name: str, value: float, score: Metric) -> Reference:
    """A figure with how a score stands to it, as far as its interval tells."""
    if score.value is None or score.low is None or score.high is None or score.n < LEAST_TOLD:
        return Reference(name, value, "")
    if score.low > value:
        return Reference(name, value, "this run is better")
    return Reference(name, value, "this run is worse" if score.high < value else "within the interval")


def _judge(task: LabelTask, score: Metric, baseline: Sequence[Reference], split: str) -> str:
    if score.value is None or score.n < LEAST_TOLD:
        return f"That is {say_too_few(score.n)}: add {split} images."
    said = {
        "this run is better": "Clearly better than the simplest answer.",
        "this run is worse": "Worse than the simplest answer: something is wrong.",
        "within the interval": "Not clearly better than the simplest answer.",
    }
    parts = [said[one.told] for one in baseline if one.told]
    if not task.multilabel and score.low is not None and score.high is not None:
        low, high = math.floor(100 * score.low), math.ceil(100 * score.high)
        range_ = f"{low}" if low == high else f"{low} to {high}"
        parts.append(f"Of 100 new images of the same kind, expect {range_} right; if you need more, it is not enough.")
    return " ".join(parts)


def _name_weakest(scores: SplitMetrics) -> str:
    """The class with the lowest F1 among those with enough images, and how many have too few."""
    known = [
        (one.f1.value, name) for name, one in scores.per_class.items() if one.f1.value is not None and _is_told(one.f1)
    ]
    few = sum(not _is_told(one.f1) for one in scores.per_class.values())
    said = []
    if known:
        value, name = min(known)
        metric = scores.per_class[name].f1
        ends = f", {100 * metric.low:.0f} to {100 * metric.high:.0f}" if None not in (metric.low, metric.high) else ""  # type: ignore[operator]
        said.append(f"Weakest class: {show_unprintable(name)}, F1 {100 * value:.0f} %{ends} (n = {metric.n:,}).")
    if few:
        has = "has" if few == 1 else "have"
        said.append(f"{counted(few, 'class', 'classes')} {has} fewer than {LEAST_TOLD} images: too few to tell.")
    return " ".join(said)


def _is_told(metric: Metric) -> bool:
    return metric.n >= LEAST_TOLD


def _count_suspects(explanation: Explanation | None) -> str:
    labels = explanation.record.labels if explanation else None
    if not isinstance(labels, JudgedLabels) or not labels.rows or judge_suspects(labels):
        return ""
    return f"{counted(len(labels.rows), 'label')} of {labels.n:,} may be wrong."


def list_steps(record: RunRecord, explained: bool, place: str) -> list[Step]:
    """List the commands that may come next.

    Args:
        record: The record of the run.
        explained: Whether it was explained.
        place: The run as a word of a command.

    Returns:
        What each is for and the command, which works where `place` does.
    """
    steps = []
    if record.dataset.counts.test and record.test is None:
        steps.append(Step("Score it on the sealed test images, once you have chosen it", f"budwood test {place}"))
    steps.append(Step("Use it on new images (a file, a folder or an archive)", f"budwood predict {place} {NEW}"))
    steps.append(Step("Take it elsewhere, as one file that answers alike", f"budwood export {place} --to model.onnx"))
    several = record.dataset.several
    if not explained:
        doubtful = "" if several else ", and which labels are doubtful"
        steps.append(Step(f"See where it looks{doubtful}", f"budwood explain {place}"))
    if not several and not record.ensemble and record.network.weights.kind != "none":
        steps.append(Step("Would more images help?", f"budwood suggest {place}"))
    return steps
