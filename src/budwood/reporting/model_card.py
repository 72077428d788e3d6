"""A run's model card: what the network is, what it is for, how good it is, and what it was not checked on.

The card is Markdown with the head of YAML that the Hugging Face hub reads (Mitchell et al. 2019, Model Cards for Model
Reporting). All of it comes from the run's own files: what they do not tell is said not to be known.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Final, Protocol

from budwood.config.metric_registry import describe_metric, is_loss
from budwood.data.checks import Finding
from budwood.evaluation.intervals import Metric
from budwood.evaluation.metrics import evaluate
from budwood.evaluation.result_checks import ResultFinding
from budwood.evaluation.split_metrics import ClassMetrics, SplitMetrics
from budwood.reporting.card_summary import CardSummary, summarize_card
from budwood.reporting.ensemble_text import describe_ensemble, describe_optimism
from budwood.reporting.ladder_text import describe_ladder
from budwood.reporting.markdown import escape_markdown, escape_prose, format_code, format_markdown_table
from budwood.reporting.recipe_text import describe_recipe
from budwood.runs.confidence_record import ConfidenceRecord, NoveltyRecord
from budwood.runs.explanation_record import load_explanation
from budwood.runs.run import Run
from budwood.text import TOO_FEW, counted

CARD_FILE: Final = "model_card.md"
CLASSES_NAMED: Final = 50  # classes that are listed by name
CLASSES_SHOWN: Final = 20  # rows of the table of classes
SEVERITIES: Final = ("error", "warning", "note")


class ExportParity(Protocol):
    """What the check of an exported file against its run has found, on the same images."""

    @property
    def n(self) -> int:
        """Number of images."""

    @property
    def largest_difference(self) -> float:
        """The largest difference of a class's probability, 0 to 1."""

    @property
    def agreement(self) -> Metric:
        """The share of images that both call the same."""

    @property
    def accuracy(self) -> Metric:
        """Accuracy of the exported file."""

    @property
    def run_accuracy(self) -> Metric:
        """Accuracy of the run."""


def render_model_card(run: Run, parity: ExportParity | None = None, summary: CardSummary | None = None) -> str:
    """Render the model card of a run.

    Args:
        run: The finished run.
        parity: What the check of the exported file found that the card goes with; None: the card is of the run alone.
        summary: What `summarize_card` says of the run, where that is known already.

    Returns:
        Markdown with a head of YAML.

    Raises:
        RunError: A file of the run is missing, damaged or was changed.
    """
    summary = summary or summarize_card(run)
    results = sorted(summary.results, key=lambda finding: SEVERITIES.index(finding.severity))
    sections = [
        ("", _describe_model(run)),
        ("How to use it", _describe_usage(run)),
        ("Intended use", _list_lines((*summary.uses, *summary.misuses))),
        ("Data", _describe_data(run)),
        ("Scores", _describe_scores(run)),
        ("The exported file", _describe_parity(parity)),
        ("Where it is weak", [*_describe_classes(run), *_describe_slices(run)]),
        ("Confidence", _describe_confidence(run)),
        ("Limits", [*map(_format_finding, results), *_list_lines(summary.limits)]),
        ("Licences", _list_lines(summary.licences)),
        ("Versions", _describe_versions(run)),
    ]
    head = [*_make_head(run), "", f"# {escape_markdown(run.record.dataset.name)}: image classifier"]
    body = [[*([f"## {title}", ""] if title else []), *lines] for title, lines in sections if lines]
    return "\n\n".join("\n".join(part) for part in (head, *body)) + "\n"


def _make_head(run: Run) -> list[str]:
    """The YAML that the hub reads; strings as JSON has them, which is YAML, too."""
    network = run.record.network.name
    tags = ["image-classification", "budwood", *(["multi-label"] if run.task.multilabel else []), network]
    return [
        "---",
        "license: unknown",
        "library_name: budwood",
        "pipeline_tag: image-classification",
        "tags:",
        *(f"- {json.dumps(tag, ensure_ascii=True)}" for tag in tags),
        "metrics:",
        "- accuracy",
        "- f1",
        "---",
    ]


def _describe_model(run: Run) -> list[str]:
    record, classes = run.record, run.classes
    network = record.network
    labels = "any number of labels, or none, of" if run.task.multilabel else "one of"
    names = ", ".join(map(escape_markdown, classes[:CLASSES_NAMED]))
    more = f" and {len(classes) - CLASSES_NAMED:,} more" if len(classes) > CLASSES_NAMED else ""
    made = describe_ensemble(record) if record.ensemble else describe_recipe(record)
    found = [escape_prose(describe_ladder(record.ladder, record.id)), ""] if record.ladder else []
    size = f"{network.parameters.trainable + network.parameters.frozen:,} parameters, {network.macs:,} multiply-adds"
    return [
        f"Gives an image {labels} {len(classes):,} classes: {names}{more}.",
        "",
        f"{escape_prose(made)}",
        "",
        *found,
        f"The network has {size} for an image of {network.channels} x {network.size} x {network.size}. "
        f"Made by Budwood {escape_markdown(record.budwood)} on {record.created[:10]}, run {format_code(record.id)}.",
    ]


def _describe_usage(run: Run) -> list[str]:
    return [
        "```python",
        "import budwood as bw",
        f"predictor = bw.Predictor.open({run.record.id!r})  # the run's folder, or its name under runs/",
        'print(predictor.predict("photo.jpg")[0].top)  # the likeliest classes with their probabilities',
        "```",
    ]


def _list_lines(sentences: Iterable[str]) -> list[str]:
    return [f"- {escape_prose(sentence)}" for sentence in sentences]


def _describe_data(run: Run) -> list[str]:
    data = run.record.dataset
    counts = data.counts
    train, val = sum(counts.train.values()), sum(counts.val.values())
    if run.task.multilabel:
        used = run.dataset()
        train, val = (len(used.samples(split)) for split in ("train", "val"))
    lines = [
        f"{escape_markdown(data.name)}: {counted(train, 'image')} for training, {val:,} for validation, "
        f"{counts.test:,} for test; the split was {escape_markdown(data.split)}. "
        f"Fingerprint of images and split: {format_code(data.fingerprint)}.",
        "",
    ]
    if data.leaks_allowed:
        lines += [
            "**The split leaks: the same images or groups are in different splits. No score can be trusted.**",
            "",
        ]
    remarks = sorted(run.record.findings, key=lambda finding: SEVERITIES.index(finding.severity))
    lines += ["Findings about the data:", "", *map(_format_finding, remarks)] if remarks else ["No findings."]
    return lines


def _format_finding(finding: Finding | ResultFinding) -> str:
    return f"- {finding.severity} {finding.code}: {escape_prose(finding.message)}"


def format_score(name: str, metric: Metric) -> str:
    """Format a figure with its interval and the number of images.

    Args:
        name: The metric's name.
        metric: The figure.

    Returns:
        The figure in words.
    """
    if metric.value is None:
        return f"undefined (n = {metric.n:,})"
    scale, unit = (1.0, " nats") if is_loss(name) else (100.0, " %")
    digits = 3 if is_loss(name) else 1
    value = f"{scale * metric.value:.{digits}f}{unit}"
    if metric.low is None or metric.high is None:
        return f"{value} ({TOO_FEW}, n = {metric.n:,})"
    ends = f"{scale * metric.low:.{digits}f} to {scale * metric.high:.{digits}f}{unit}"
    return f"{value} (95 % interval {ends}, n = {metric.n:,})"


def _describe_scores(run: Run) -> list[str]:
    record, task = run.record, run.task
    test = record.test
    columns: list[SplitMetrics] = [record.val, *([test.metrics] if test else [])]
    names = [name for name in record.val.figures if name != task.default_metric]
    note = f" ({task.accuracy_note})" if task.accuracy_note else ""
    rows = [
        [
            escape_markdown(describe_metric(name)) + (note if name == "accuracy" else ""),
            *(format_score(name, scores.figures[name]) if name in scores.figures else "-" for scores in columns),
        ]
        for name in (task.default_metric, *names)
        if name in record.val.figures
    ]
    lines = format_markdown_table(["metric", "validation", *(["test"] if test else [])], rows)
    optimism = describe_optimism(record)
    lines += [
        "",
        f"{optimism or 'The validation set took part in choices, so its scores are slightly too optimistic'}.",
    ]
    if test:
        opened = counted(test.looks, "time")
        lines.append(
            f"The test set was looked at {opened}"
            + ("." if test.looks == 1 else ", so its scores are no longer those of a first look.")
        )
    elif record.dataset.counts.test:
        lines.append(f"The test set ({counted(record.dataset.counts.test, 'image')}) is still sealed.")
    else:
        lines.append("There is no test set.")
    return lines


def _describe_parity(parity: ExportParity | None) -> list[str]:
    if parity is None:
        return []
    return [
        f"The exported file was checked against the run on {counted(parity.n, 'image')}:",
        "",
        f"- largest difference of a probability: {parity.largest_difference:.2g}",
        f"- images that both call the same: {format_score('accuracy', parity.agreement)}",
        f"- accuracy of the exported file: {format_score('accuracy', parity.accuracy)}",
        f"- accuracy of the run: {format_score('accuracy', parity.run_accuracy)}",
    ]


def _sort_by_f1(by_class: Mapping[str, ClassMetrics]) -> list[tuple[str, ClassMetrics]]:
    return sorted(by_class.items(), key=lambda row: (row[1].f1.value is None, row[1].f1.value or 0.0))


def _measure_classes(run: Run) -> Mapping[str, ClassMetrics]:
    """The figures of each class on validation; where labels have thresholds, at these."""
    rule = run.decision_rule
    if rule.thresholds is None:
        return run.record.val.per_class
    predictions = run.predictions("val")
    shifted = rule.shift_logits(predictions.logits)
    names = ("mean_average_precision",)
    return evaluate(predictions.task, predictions.targets, shifted, run.classes, names).per_class


def _describe_classes(run: Run) -> list[str]:
    weakest = _sort_by_f1(_measure_classes(run))
    ranked = run.task.multilabel and any(scores.average_precision for _, scores in weakest)

    def cells(name: str, scores: ClassMetrics) -> list[str]:
        figures = [scores.f1, scores.precision, scores.recall]
        if ranked and scores.average_precision:
            figures.append(scores.average_precision)
        return [escape_markdown(name), *map(_format_short, figures), f"{scores.support:,}"]

    head = ["class", "F1", "precision", "recall", *(["average precision"] if ranked else []), "n"]
    rows = [cells(name, scores) for name, scores in weakest[:CLASSES_SHOWN]]
    which = (
        "All classes" if len(weakest) <= CLASSES_SHOWN else f"The {CLASSES_SHOWN} weakest of {len(weakest):,} classes"
    )
    return [
        f"{which} on the validation set, the weakest first, with 95 % intervals:",
        "",
        *format_markdown_table(head, rows, range(1, len(head))),
    ]


def _format_short(metric: Metric) -> str:
    if metric.value is None:
        return "-"
    if metric.low is None or metric.high is None:
        return f"{100 * metric.value:.1f} % ({TOO_FEW})"
    return f"{100 * metric.value:.1f} % ({100 * metric.low:.0f} to {100 * metric.high:.0f})"


def _describe_slices(run: Run) -> list[str]:
    explanation = load_explanation(run.path)
    mistakes = explanation.record.mistakes if explanation else None
    if mistakes is None:
        return ["", "No slices of the images were scored (`budwood explain` does that)."]
    weak = [one for one in mistakes.slices if one.p < 0.05 and (one.difference.value or 0.0) < 0]
    if not weak:
        return [
            "",
            f"None of {counted(len(mistakes.slices), 'slice')} of the images was significantly weaker than "
            "the rest (Fisher's exact test, corrected by Holm's method).",
        ]
    return [
        "",
        "Slices of the validation images with a significantly lower accuracy than the rest (Fisher's exact test, "
        "corrected by Holm's method):",
        "",
        *(
            f"- {escape_markdown(one.label)}: {format_score('accuracy', one.metric)}; the rest "
            f"{format_score('accuracy', one.rest)}"
            for one in weak
        ),
    ]


def _describe_confidence(run: Run) -> list[str]:
    known = run.record.confidence or ConfidenceRecord()
    lines = []
    if known.calibration:
        before, after = (format_score("", one) for one in (known.calibration.before, known.calibration.after))
        lines.append(
            f"- Calibrated by temperature scaling, on the validation set: expected calibration error {after}, "
            f"before {before}."
        )
        tested = (known.calibration.test or {}).get("after")
        if tested:
            lines.append(f"- On the test set, calibrated: {format_score('', tested)}.")
    else:
        lines.append("- Not calibrated: the probabilities are those of the network.")
    if known.sets:
        held = "each true label" if run.task.multilabel else "the true class"
        lines.append(
            f"- Prediction sets hold {held} of {100 * known.sets.coverage:.0f} % of images like the "
            f"{known.sets.n:,} that they were made on (split conformal prediction)."
        )
    else:
        lines.append("- No prediction sets.")
    if known.decisions and known.decisions.thresholds:
        thresholds = zip(run.classes, known.decisions.thresholds, strict=True)
        each = ", ".join(f"{escape_markdown(name)} {value:.2f}" for name, value in list(thresholds)[:CLASSES_NAMED])
        lines.append(
            f"- An image has a label from this probability on ({escape_markdown(known.decisions.rule)}): {each}."
        )
    elif known.decisions and known.decisions.costs:
        lines.append("- The answer is the class with the lowest expected cost, not the likeliest.")
    elif run.task.multilabel:
        lines.append("- An image has a label where its probability is over 0.5.")
    return [*lines, *(_describe_novelty(known.novelty) if known.novelty else ['- No answer "none of these".'])]


def _describe_novelty(novelty: NoveltyRecord) -> list[str]:
    lines = [
        f'- "None of these": method {escape_markdown(novelty.method)}; AUROC with classes left out in turn '
        f"{format_score('', novelty.auroc[novelty.method])}."
        if novelty.method in novelty.auroc
        else f'- "None of these": method {escape_markdown(novelty.method)}.'
    ]
    if novelty.strangers:
        one = novelty.strangers
        lines.append(
            f"- On {counted(one.n, 'image')} of {escape_markdown(one.folder)}, which show none of the classes: "
            f"{format_score('', one.refused)} refused."
        )
    return lines


def _describe_versions(run: Run) -> list[str]:
    versions = {"budwood": run.record.budwood, **run.record.environment}
    hardware = run.record.hardware
    return [
        ", ".join(f"{escape_markdown(name)} {escape_markdown(value)}" for name, value in versions.items()) + ".",
        "",
        f"Trained on {escape_markdown(hardware.cpu)}, {hardware.cores} cores, accelerator "
        f"{escape_markdown(hardware.accelerator)}, {escape_markdown(hardware.system)}.",
    ]
