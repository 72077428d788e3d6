"""What makes a run's confidence worth trusting: measured at the end of training, and again with other settings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from budwood.data.cost_table import read_costs
from budwood.errors import RecipeError
from budwood.evaluation.calibration import FEWEST, expect_calibration_error, measure_calibration_error
from budwood.evaluation.conformal import find_limits
from budwood.evaluation.decisions import DecisionRule
from budwood.evaluation.intervals import Metric
from budwood.evaluation.predictions import Predictions
from budwood.evaluation.scoring import Logits
from budwood.evaluation.thresholds import ThresholdRule, choose_thresholds, parse_rule
from budwood.progress import Progress
from budwood.runs.confidence_record import CalibrationRecord, ConfidenceRecord, DecisionsRecord, SetsRecord
from budwood.runs.run import Run, lock_results, open_any_run, reopen_run
from budwood.runs.run_record import RunRecord, save_record
from budwood.storage.atomic import raise_storage_errors
from budwood.storage.context import open_context
from budwood.text import counted
from budwood.workflows.novelty import keep_novelty, settle_novelty
from budwood.workflows.report import write_reports

COVERAGE: Final = 0.9  # of prediction sets, unless another is asked for
COSTS: Final = "costs"


@dataclass(frozen=True)
class ConfidenceSettings:
    """What is asked of a run's confidence.

    Attributes:
        coverage: The share of images whose true class is to be in their prediction set.
        rule: How the thresholds of labels are chosen; None: one half, which needs no record.
        costs: Of calling class i (row) class j (column), float64 [classes, classes]; None: all mistakes cost the same.
    """

    coverage: float = COVERAGE
    rule: ThresholdRule | None = None
    costs: NDArray[np.float64] | None = None


def measure_confidence(
    predictions: Predictions,
    settings: ConfidenceSettings = ConfidenceSettings(),
) -> ConfidenceRecord:
    """Fit temperature, prediction sets and thresholds on validation predictions.

    Args:
        predictions: Those for the validation set.
        settings: What is asked.

    Returns:
        The record, without what tells images of no class.
    """
    task, truth = predictions.task, predictions.truth
    temperature = task.fit_temperatures(truth, predictions.logits)
    before, after = measure_errors(predictions, temperature)
    calibration = CalibrationRecord(
        temperature=tuple(temperature.tolist()),
        before=before,
        after=after,
        noise={"val": expect_error(predictions, temperature)},
    )
    chances = DecisionRule(task, temperature).to_probabilities(predictions.logits)
    found = find_limits(predictions.targets, chances, settings.coverage)
    sets = SetsRecord(
        coverage=settings.coverage,
        limits=tuple(found.limits.tolist()),
        per_class=tuple(found.per_class.tolist()),
        n=len(predictions.ids),
    )
    decisions = None
    if settings.rule:
        thresholds, failed = choose_thresholds(settings.rule, predictions.targets, chances)
        decisions = DecisionsRecord(
            rule=str(settings.rule), thresholds=tuple(thresholds.tolist()), unreached=tuple(failed)
        )
    if settings.costs is not None:
        decisions = DecisionsRecord(rule=COSTS, costs=tuple(map(tuple, settings.costs.tolist())))
    return ConfidenceRecord(calibration=calibration, sets=sets, decisions=decisions)


def measure_errors(predictions: Predictions, temperature: NDArray[np.float64]) -> tuple[Metric, Metric]:
    """Measure the calibration error of predictions as they are, and with a temperature."""
    judge = predictions.task.judge_confidence
    together = predictions.targets.shape[1] if predictions.task.multilabel else 1
    before = measure_calibration_error(*judge(predictions.truth, predictions.logits), together=together)
    scaled = judge(predictions.truth, _scale(predictions.logits, temperature))
    after = measure_calibration_error(*scaled, together=together)
    return before, after


def expect_error(predictions: Predictions, temperature: NDArray[np.float64]) -> float:
    """Compute the calibration error that predictions with a temperature would have by chance alone."""
    confidence, _ = predictions.task.judge_confidence(predictions.truth, _scale(predictions.logits, temperature))
    return expect_calibration_error(confidence)


def _scale(logits: Logits, temperature: NDArray[np.float64]) -> Logits:
    return np.asarray(logits / temperature, np.float32)


def add_test_errors(confidence: ConfidenceRecord, predictions: Predictions) -> ConfidenceRecord:
    """Add the calibration error on the opened test split to a record of confidence.

    Args:
        confidence: The record.
        predictions: Those for the test split.

    Returns:
        The record with it.
    """
    if confidence.calibration is None:
        return confidence
    temperature = np.array(confidence.calibration.temperature)
    before, after = measure_errors(predictions, temperature)
    noise = {**confidence.calibration.noise, "test": expect_error(predictions, temperature)}
    update = {"test": {"before": before, "after": after}, "noise": noise}
    return confidence.model_copy(update={"calibration": confidence.calibration.model_copy(update=update)})


def calibrate(
    run: Run | str | Path,
    *,
    coverage: float | None = None,
    threshold: str | float | None = None,
    costs: str | Path | None = None,
    refuse: float | None = None,
    unknown: str | Path | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Run:
    """Choose how a finished run answers: how sure it is, its prediction sets, its thresholds or costs.

    Everything is fitted on the validation set. What is not given stays as it was; a run of an earlier version, which
    has none of it, gets it. The weights stay the same.

    Args:
        run: The run, or its path or name.
        coverage: The share of images whose true class is to be in their prediction set, above 0 and below 1.
        threshold: Where images have several labels, from which probability on an image has one: a probability, `f1`
            (the best F1 of each label), `precision=0.9` or `recall=0.9`.
        costs: Where images have one label, a CSV file of what mistakes cost, as `read_costs` takes it; `none` takes
            earlier costs back.
        refuse: The share of images like the known ones that is refused as none of the classes, above 0 and below 1.
        unknown: Images that show none of the classes, on which refusing is measured: a folder, a file or an archive.
        cache: The cache folder; None: the usual one.
        progress: Where notes go; None: below the cell of a notebook, else nowhere.

    Returns:
        The run as it is now.

    Raises:
        DataError: The file of costs has a mistake, there are no unknown images, or what is asked needs images of the
            run that are gone.
        RecipeError: A value is out of range, or has no meaning for such labels.
        RunError: There is no such finished run, or its files were changed.
        StorageError: The run folder cannot be written.
    """
    run, context = open_any_run(run), open_context(cache, progress)
    threshold = None if threshold is None else str(threshold)
    refuse_bad_settings(run, coverage, threshold, costs)
    novelty = settle_novelty(run, refuse, unknown, context)
    with lock_results(run.path), raise_storage_errors(run.path):
        latest = reopen_run(run)
        settings = _change_settings(latest, coverage, threshold, costs)
        confidence = measure_confidence(latest.predictions("val"), settings)
        if latest.record.test:
            confidence = add_test_errors(confidence, latest.predictions("test"))
        changed = Run(run.path, latest.record.model_copy(update={"confidence": confidence}))
        if novelty:
            changed = keep_novelty(changed, novelty)
        for note in describe_shortfalls(changed.record.confidence or confidence, run.classes):
            context.progress.note(note)
        write_reports(changed)
        save_record(run.path, changed.record)
    return changed


def _change_settings(
    run: Run, coverage: float | None, threshold: str | None, costs: str | Path | None
) -> ConfidenceSettings:
    """The settings of a run with those that are given in place of its own."""
    settings = read_settings(run.record)
    if coverage is not None:
        settings = replace(settings, coverage=coverage)
    if threshold is not None:
        settings = replace(settings, rule=parse_rule(threshold))
    if costs is not None:
        table = None if str(costs) == "none" else read_costs(Path(costs), run.classes)
        settings = replace(settings, costs=table)
    return settings


def read_settings(record: RunRecord) -> ConfidenceSettings:
    """Read what was asked of a run's confidence before; of a run that has none, the usual settings."""
    known = record.confidence or ConfidenceRecord()
    sets, decisions = known.sets, known.decisions
    rule = parse_rule(decisions.rule) if decisions and decisions.thresholds else None
    costs = np.array(decisions.costs) if decisions and decisions.costs else None
    return ConfidenceSettings(sets.coverage if sets else COVERAGE, rule, costs)


def refuse_bad_settings(run: Run, coverage: float | None, threshold: str | None, costs: str | Path | None) -> None:
    """Raise `RecipeError` for a setting that is out of range or has no meaning for the run's labels."""
    if coverage is not None and not (isinstance(coverage, (int, float)) and 0 < coverage < 1):
        found = f"{coverage:g}" if isinstance(coverage, (int, float)) else repr(coverage)
        raise RecipeError(
            f"coverage: expected a share above 0 and below 1; found {found}.", "Write 0.9 for 90 % of the images."
        )
    if threshold is not None:
        parse_rule(threshold)
        if not run.task.multilabel:
            raise RecipeError(
                "threshold: is for images with several labels (multi-label); the images of this run have one label "
                "each, and the likeliest class is the answer.",
                "Use costs for mistakes that are not equally bad.",
            )
    if costs is not None and not isinstance(costs, (str, Path)):
        raise RecipeError(f"costs: expected the path of a CSV file, found {type(costs).__name__}.", "Write a table.")
    if costs is not None and run.task.multilabel:
        raise RecipeError(
            "costs: are for images with one label each; the images of this run have several (multi-label).",
            "Use threshold, such as recall=0.9, for labels that must not be missed.",
        )


def describe_shortfalls(confidence: ConfidenceRecord, classes: tuple[str, ...]) -> list[str]:
    """Describe in sentences what the validation images were too few for.

    Args:
        confidence: The record of a run.
        classes: Its classes.

    Returns:
        One sentence for each shortfall.
    """
    told = []
    sets, decisions, novelty = confidence.sets, confidence.decisions, confidence.novelty
    if sets and sets.n < FEWEST:
        told.append(
            f"No temperature is fitted: that takes {FEWEST} validation images, and the run has {sets.n:,}. Confidence "
            "is as the network gives it."
        )
    if sets and any(limit == 0 for limit in sets.limits):
        told.append(
            f"Prediction sets hold every class: a coverage of {100 * sets.coverage:g} % needs more than "
            f"{counted(sets.n, 'validation image')}."
        )
    if novelty and (novelty.n + 1) * novelty.share < 1:
        told.append(
            f"To refuse {100 * novelty.share:g} % of known images as none of these needs more than "
            f"{counted(novelty.n, 'validation image')}: the threshold is the score of the strangest of them, and more "
            "may be refused."
        )
    if decisions and decisions.unreached:
        names = ", ".join(classes[k] for k in decisions.unreached)
        told.append(f"Threshold {decisions.rule} cannot be reached on the validation set for: {names}.")
    return told
