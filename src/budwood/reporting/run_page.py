"""Records to one HTML file that needs nothing else: no script, no font, no image from outside. Computes no result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from markupsafe import Markup

from budwood.comparison.ensemble_members import MemberScore
from budwood.config.metric_registry import LAST, LOSS, describe_metric, describe_selection
from budwood.config.recipe import find_default_valued
from budwood.data.checks import Finding
from budwood.evaluation.calibration import ReliabilityBin
from budwood.evaluation.intervals import Metric
from budwood.evaluation.label_mistakes import LabelMistakes, MistakenTogether
from budwood.evaluation.label_task import LabelTask, MultiLabel, SingleLabel
from budwood.evaluation.result_checks import ResultFinding
from budwood.evaluation.split_metrics import ClassMetrics, SplitMetrics
from budwood.reporting.card_summary import CardSummary
from budwood.reporting.charts import (
    Series,
    draw_counts,
    draw_interval_strip,
    draw_intervals,
    draw_lines,
    draw_reliability,
)
from budwood.reporting.commands import write_again_command, write_place
from budwood.reporting.confidence_section import ShownConfidence
from budwood.reporting.confused_part import cut_confused_part
from budwood.reporting.ensemble_text import describe_ensemble, describe_optimism
from budwood.reporting.first_screen import Step, answer_first
from budwood.reporting.ladder_section import show_ladder_section
from budwood.reporting.network_charts import draw_network, draw_norms
from budwood.reporting.novelty_section import ShownNovelty
from budwood.reporting.recipe_text import STEPS, describe_choices, describe_recipe
from budwood.reporting.templating import render_page
from budwood.runs.explanation_record import Explanation
from budwood.runs.run_record import DatasetRecord, NetworkRecord, RunRecord
from budwood.training.history import GRADIENT, WEIGHT, split_by_stage

MATRIX_MOST: Final = 25  # classes of a confusion matrix that can still be read
CHART_MOST: Final = 40  # rows of a chart that can still be read
WEAKEST_SHOWN: Final = 20
PAIRS_SHOWN: Final = 20


@dataclass(frozen=True)
class ShownImage:
    """One image of a gallery.

    Attributes:
        path: Path relative to the data set.
        label: Name of the true class, or of several.
        predicted: Name of the predicted class, or of several.
        probability: Probability of the prediction, 0 to 1.
        thumbnail: Picture as a data URI; None where the file cannot be read.
        top: The likeliest classes with their probabilities, the likeliest first.
        marks: Where images have several labels, whether it was called each of these and whether it has it.
    """

    path: str
    label: str
    predicted: str
    probability: float
    thumbnail: str | None
    top: tuple[tuple[str, float], ...]
    marks: tuple[tuple[bool, bool], ...] = ()


@dataclass(frozen=True)
class LabelEvidence:
    """What a report shows of each label, where images have several.

    Attributes:
        per_class: Figures of each label at its threshold.
        mistakes: Mistakes of each label.
        together: Labels of which one was missed where the other was called wrongly.
        images: Number of images by split, `train` and `val`.
        bare: Number of those that have none of the labels.
        chosen: How thresholds were chosen; empty where all are one half.
    """

    per_class: Mapping[str, ClassMetrics]
    mistakes: Sequence[LabelMistakes]
    together: Sequence[MistakenTogether]
    images: Mapping[str, int]
    bare: Mapping[str, int]
    chosen: str = ""


@dataclass(frozen=True)
class Pictures:
    """Pictures of a report.

    Attributes:
        thumbnails: Thumbnails of findings as data URIs, by path relative to the data set.
        mistakes: Gallery of the worst mistakes.
        hits: Gallery of the most confident correct images.
        augmented: Contact sheet of augmented images as a data URI; None for none.
        left_out: Number of images without a picture, as their files are gone, were changed or lie elsewhere.
    """

    thumbnails: Mapping[str, str] = field(default_factory=dict)
    mistakes: Sequence[ShownImage] = ()
    hits: Sequence[ShownImage] = ()
    augmented: str | None = None
    left_out: int = 0


@dataclass(frozen=True)
class Evidence:
    """What a run's report shows beside its record.

    Attributes:
        history: Values of each epoch, or of each strength of the penalty.
        pictures: Pictures of the report.
        confusion: Confusion matrix: counts by true class (rows) and predicted class (columns).
        reliability: Bins of the reliability diagram.
        results: Findings about the result.
        explanation: Explanation of the run; None where none was made.
        novelty: What is told of images that show none of the classes; None of a run that cannot tell them.
        members: Members of an ensemble with their scores; none of a run that was trained.
        confidence: What is told of temperature, prediction sets and thresholds; None of a run that has none.
        labels: What is shown of each label; None where images have one.
        card: Uses, limits and licences; None where they are not shown.
        folder: The run's folder, for commands; None where it is not known.
    """

    history: Sequence[Mapping[str, float]]
    pictures: Pictures
    confusion: Sequence[Sequence[int]]
    reliability: Sequence[ReliabilityBin]
    results: Sequence[ResultFinding] = ()
    explanation: Explanation | None = None
    members: Sequence[MemberScore] = ()
    confidence: ShownConfidence | None = None
    novelty: ShownNovelty | None = None
    labels: LabelEvidence | None = None
    card: CardSummary | None = None
    folder: Path | None = None


@dataclass(frozen=True)
class DataCheck:
    """What the page of findings shows of a data set.

    Attributes:
        source: The data as they were named.
        n: Number of images.
        dataset: The record of the data set.
        findings: Findings about it.
        place: The data as a word of a command that works from any folder.
    """

    source: str
    n: int
    dataset: DatasetRecord
    findings: Sequence[Finding]
    place: str = "DATA"


@dataclass(frozen=True)
class MatrixCell:
    """Images of one class that were predicted as one class.

    Attributes:
        called: Name of the predicted class.
        count: Number of images.
        share: Their share of the images of the true class, 0 to 1.
        right: Whether it is the true class.
    """

    called: str
    count: int
    share: float
    right: bool


@dataclass(frozen=True)
class MatrixRow:
    """The images of one class in a confusion matrix.

    Attributes:
        name: Name of the true class.
        n: Number of its images.
        cells: A cell for every predicted class.
    """

    name: str
    n: int
    cells: tuple[MatrixCell, ...]


def render_run(record: RunRecord, evidence: Evidence) -> str:
    """Render the report of a run as one HTML page.

    Args:
        record: Record of the run.
        evidence: What is shown beside the record.

    Returns:
        The page.
    """
    classes, val = record.dataset.classes, record.val
    task: LabelTask = MultiLabel(len(classes)) if record.dataset.several else SingleLabel(len(classes))
    headline = task.choose_headline(val.figures)
    labels = evidence.labels
    weakest = _sort_weakest_first(labels.per_class if labels else val.per_class)
    return render_page(
        "report.html",
        **_answer_first(record, evidence, task),
        part=_make_part(evidence.confusion, classes),
        record=record,
        val=val,
        recipe=record.recipe.table(),
        choices=describe_choices(record),
        pictures=evidence.pictures,
        results=evidence.results,
        ladder=show_ladder_section(record, evidence.folder),
        explanation=evidence.explanation,
        words=describe_ensemble(record) if record.ensemble else describe_recipe(record),
        optimism=describe_optimism(record),
        members=evidence.members,
        neutral=find_default_valued(record.recipe.table()),
        labels=labels,
        card=evidence.card,
        headline=headline,
        headline_name=_name_metric(task, headline),
        val_strip=Markup(_draw_strip("Validation", val, headline)),
        test_strip=Markup(_draw_strip("Test", record.test.metrics, headline) if record.test else ""),
        counts_chart=Markup(_draw_counts_chart(record.dataset)),
        selected_on_val=len(evidence.history) > 1 and record.recipe.select != LAST,
        selected_by=describe_selection(record.recipe.select or LOSS),
        curves=[Markup(svg) for svg in draw_training_curves(record, evidence.history, headline)],
        norms=Markup(_draw_norms_chart(evidence.history)),
        diagram=Markup("" if record.ensemble else _draw_diagram(record.network)),
        weakest=weakest if len(classes) <= MATRIX_MOST else weakest[:WEAKEST_SHOWN],
        by_class=weakest,
        classes_chart=Markup(_draw_classes_chart(weakest)) if len(classes) <= MATRIX_MOST else "",
        reliability=Markup(draw_reliability("Confidence against accuracy", evidence.reliability)),
        confidence=evidence.confidence,
        novelty=evidence.novelty,
        task=task,
        val_others=_list_headlines(task, val),
        test_others=_list_headlines(task, record.test.metrics) if record.test else [],
        matrix=make_matrix(evidence.confusion, classes) if len(classes) <= MATRIX_MOST and evidence.confusion else [],
        pairs=_list_confused(evidence.confusion, classes) if evidence.confusion else [],
        chance_loss=task.chance_loss,
        laps=[(STEPS.get(name, name), seconds) for name, seconds in record.timings.steps().items()],
        again=write_again_command(record, evidence.folder),
    )


def render_findings(check: DataCheck, pictures: Pictures) -> str:
    """Render the findings about a data set as one HTML page.

    Args:
        check: The data set and its findings.
        pictures: Thumbnails of the findings.

    Returns:
        The page.
    """
    chart = Markup(_draw_counts_chart(check.dataset))
    steps = [
        Step("Train: five minutes for the best that this machine gives", f"budwood train {check.place}"),
        Step("What would be tried, and how long it takes", f"budwood train {check.place} --dry-run"),
    ]
    return render_page(
        "inspect.html", check=check, data=check.dataset, pictures=pictures, counts_chart=chart, steps=steps
    )


def render_rates(
    name: str, model: str, rates: Sequence[float], losses: Sequence[float], suggestion: float | None
) -> str:
    """Render the curve of a learning-rate finder as one HTML page.

    Args:
        name: Name of the data.
        model: Name of the network.
        rates: Learning rates, rising, above 0.
        losses: Loss at each rate, nats.
        suggestion: The suggested rate, to be marked; None for none.

    Returns:
        The page.
    """
    series = [Series("loss", list(zip(rates, losses, strict=True)))]
    chart = draw_lines(
        "Loss at each learning rate", series, "learning rate", "loss (nats)", log_x=True, chosen=suggestion
    )
    return render_page("rates.html", name=name, model=model, suggestion=suggestion, chart=Markup(chart))


def _list_headlines(task: LabelTask, scores: SplitMetrics) -> list[tuple[str, Metric]]:
    """The scores beside the headline that the run has, by their names; one made later may have more."""
    return [(_name_metric(task, name), scores.figures[name]) for name in task.list_others(scores.figures)]


def _name_metric(task: LabelTask, name: str) -> str:
    """The name of a metric, with what it means where that is not plain."""
    note = task.note_metric(name)
    return f"{describe_metric(name)}: {note}" if note else describe_metric(name)


def _answer_first(record: RunRecord, evidence: Evidence, task: LabelTask) -> dict[str, object]:
    """What fills the first screen, and the run as a word of its commands."""
    place = write_place(record, evidence.folder)
    answers = answer_first(record, task, evidence.results, evidence.explanation, place)
    title = f"{answers.split.capitalize()} score with its 95 % confidence interval, beside others"
    marks = [(one.name, one.value) for one in answers.references]
    strip = Markup(draw_interval_strip(title, answers.score, marks))
    return {"answers": answers, "answer_strip": strip, "place": place}


def _draw_strip(split: str, scores: SplitMetrics, name: str) -> str:
    return draw_interval_strip(
        f"{split} {describe_metric(name)} with its 95 % confidence interval", scores.figures[name]
    )


def _make_part(counts: Sequence[Sequence[int]], classes: Sequence[str]) -> list[MatrixRow]:
    """The most confused part of a matrix that is too large to read."""
    return make_matrix(*cut_confused_part(counts, classes))[:-1] if len(classes) > MATRIX_MOST else []


def _draw_counts_chart(data: DatasetRecord) -> str:
    if len(data.classes) > CHART_MOST:
        return ""
    rows = [(name, (data.counts.train[name], data.counts.val[name])) for name in data.classes]
    return draw_counts("Images of each class", rows, ("train", "validation"))


def draw_training_curves(record: RunRecord, history: Sequence[Mapping[str, float]], headline: str) -> list[str]:
    """Draw how loss, score and learning rate changed in training.

    Args:
        record: Record of the run; a solved head that training started from is drawn as epoch 0.
        history: Values of each epoch, or of each strength of the penalty.
        headline: The metric that is drawn beside the loss.

    Returns:
        SVG elements; none of a history of fewer than two rows.
    """
    start = record.choices.probe
    history = [start, *history] if start else history
    if len(history) < 2:
        return []
    axis = next(iter(history[0]))
    log = axis == "regularisation" and min(row[axis] for row in history) > 0
    label = "strength of the L2 penalty" if axis == "regularisation" else "epoch"
    chosen = record.selected.value

    def drawn(title: str, y_label: str, *columns: tuple[str, str]) -> str:
        lines = [(name, [(row[axis], row[key]) for row in history if key in row]) for key, name in columns]
        series = [Series(name, line) for name, line in lines if line]
        return draw_lines(title, series, label, y_label, log_x=log, chosen=chosen)

    shown = ("loss", headline if any(f"val_{headline}" in row for row in history) else "accuracy")
    both = {name for name in shown if any(f"train_{name}" in row for row in history)}
    splits = {name: "training and validation" if name in both else "validation" for name in shown}
    figures = [
        drawn(
            f"{describe_metric(name).capitalize()} of {splits[name]}",
            f"{describe_metric(name)}{' (nats)' if name == 'loss' else ''}",
            *((f"{key}_{name}", split) for key, split in _NAMES),
        )
        for name in shown
    ]
    if len({row["lr"] for row in history if "lr" in row}) > 1:
        figures.append(drawn("Learning rate of each epoch", "learning rate", ("lr", "at its end")))
    return figures


def _draw_norms_chart(history: Sequence[Mapping[str, float]]) -> str:
    weights = split_by_stage(history, WEIGHT)
    if len(history) < 2 or not weights:
        return ""
    return draw_norms("Norms of weights and gradients by stage", weights, split_by_stage(history, GRADIENT))


def _draw_diagram(network: NetworkRecord) -> str:
    image = (network.channels, network.size, network.size)
    taps = [tap.name for tap in network.taps]
    return draw_network(f"{network.name}, stage by stage", image, network.stages, network.removed, network.head, taps)


_NAMES: Final = (("train", "training"), ("val", "validation"))


def _sort_weakest_first(by_class: Mapping[str, ClassMetrics]) -> list[tuple[str, ClassMetrics]]:
    """Classes by F1, the lowest first and those without one last."""

    def rank(row: tuple[str, ClassMetrics]) -> tuple[bool, float]:
        value = row[1].f1.value
        return value is None, value or 0.0

    return sorted(by_class.items(), key=rank)


def _draw_classes_chart(rows: Sequence[tuple[str, ClassMetrics]]) -> str:
    metrics = [(name, values.f1) for name, values in rows]
    return draw_intervals("F1 of each class with its 95 % confidence interval", metrics, "F1 on the validation set")


def make_matrix(counts: Sequence[Sequence[int]], classes: Sequence[str]) -> list[MatrixRow]:
    """Make the rows of a confusion matrix from counts by true class (row) and predicted class (column)."""
    return [
        MatrixRow(
            name,
            sum(row),
            tuple(
                MatrixCell(called, count, count / (sum(row) or 1), column == number)
                for column, (called, count) in enumerate(zip(classes, row, strict=True))
            ),
        )
        for number, (name, row) in enumerate(zip(classes, counts, strict=True))
    ]


def _list_confused(counts: Sequence[Sequence[int]], classes: Sequence[str]) -> list[tuple[str, str, int, int]]:
    pairs = [
        (classes[true], classes[guess], count, sum(row))
        for true, row in enumerate(counts)
        for guess, count in enumerate(row)
        if guess != true and count
    ]
    return sorted(pairs, key=lambda pair: -pair[2])[:PAIRS_SHOWN]


def render_explanation(found: Explanation, name: str, network: str) -> str:
    """Render an explanation as one HTML page.

    Args:
        found: The explanation.
        name: Name of the data.
        network: Name of the network.

    Returns:
        The page.
    """
    return render_page("explained.html", record=found.record, pictures=found.pictures, name=name, network=network)
