"""The report of a run and of a data set, from their records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from budwood.comparison.ensemble_members import compare_members
from budwood.config.recipe import Recipe
from budwood.config.resolved_recipe import resolve
from budwood.data import checks
from budwood.data.dataset import Dataset
from budwood.evaluation.decisions import HALF, DecisionRule
from budwood.evaluation.label_mistakes import count_label_mistakes, list_mistaken_together
from budwood.evaluation.metrics import evaluate
from budwood.evaluation.predictions import Predictions
from budwood.reporting.card_summary import CardSummary, summarize_card
from budwood.reporting.confidence_section import show_confidence
from budwood.reporting.model_card import CARD_FILE, render_model_card
from budwood.reporting.novelty_section import ShownNovelty, find_strangest, show_novelty
from budwood.reporting.run_page import (
    PAIRS_SHOWN,
    DataCheck,
    Evidence,
    LabelEvidence,
    Pictures,
    render_findings,
    render_run,
)
from budwood.reporting.thumbnails import (
    SHEET_SIZE,
    choose_shown,
    collect_pictures,
    make_augmentation_sheet,
    make_data_uri,
    make_finding_thumbnails,
    map_ids,
)
from budwood.runs.contents import describe_dataset
from budwood.runs.explanation_record import load_explanation
from budwood.runs.run import Run, lock_results, open_any_run, open_run
from budwood.runs.run_files import SHEET_FILE
from budwood.storage.atomic import raise_storage_errors, write_text
from budwood.text import quote_path


def report(run: Run | str | Path) -> Run:
    """Write a run's `report.html` and `model_card.md` again.

    Args:
        run: The run, or its path or name.

    Returns:
        The run as it is now.

    Raises:
        RunError: There is no such finished run.
        StorageError: The run folder cannot be written.
    """
    run = open_any_run(run)
    with lock_results(run.path), raise_storage_errors(run.path):
        latest = open_run(run.path)
        write_reports(latest)
    return latest


def write_reports(run: Run) -> None:
    """Write the report of a run and its model card into its folder.

    Args:
        run: The finished run.

    Raises:
        OSError: The folder cannot be written.
    """
    summary = summarize_card(run)
    write_text(run.path / "report.html", render_report(run, summary))
    write_text(run.path / CARD_FILE, render_model_card(run, summary=summary))


def report_findings(
    data: Dataset, findings: Sequence[checks.Finding], path: Path, augmentation: Recipe | None = None
) -> None:
    """Write the findings about a data set, with pictures, as one HTML file.

    Args:
        data: The data set.
        findings: The findings.
        path: The file.
        augmentation: A recipe whose augmentation of training images is shown, too; None: none is.

    Raises:
        StorageError: The file cannot be written.
    """
    place = quote_path(str(Path(data.source).absolute()) if Path(data.source).exists() else data.source)
    check = DataCheck(data.source, len(data), describe_dataset(data), findings, place)
    with raise_storage_errors(path):
        thumbnails = make_finding_thumbnails(data.root, findings, map_ids(data), data.value_range)
        sheet = None
        if augmentation:
            resolved = resolve(augmentation, bool(data.label_sets), augmentation.size or SHEET_SIZE)
            sheet = make_augmentation_sheet(resolved, data.samples("train").in_content_order())
        pictures = Pictures(thumbnails, augmented=make_data_uri(sheet) if sheet else None)
        write_text(path, render_findings(check, pictures))


def render_report(run: Run, summary: CardSummary | None = None) -> str:
    """Render the report of a run from its record, predictions and explanation.

    Args:
        run: The finished run.
        summary: What `summarize_card` says of the run, where that is known already.

    Returns:
        One HTML page that needs no other file.
    """
    predictions, rule, summary = run.predictions("val"), run.decision_rule, summary or summarize_card(run)
    sheet = run.file(SHEET_FILE)
    augmented = make_data_uri(sheet.read_bytes()) if sheet.is_file() else None
    evidence = Evidence(
        history=run.history,
        pictures=replace(collect_pictures(run.record, run.root, run.dataset(), predictions, rule), augmented=augmented),
        confusion=predictions.task.count_confusion(predictions.truth, predictions.logits),
        reliability=predictions.task.bin_reliability(predictions.truth, predictions.logits),
        confidence=show_confidence(run.record, predictions, run.predictions("test") if run.record.test else None),
        results=summary.results,
        explanation=load_explanation(run.path),
        members=compare_members(run),
        novelty=_show_novelty(run, predictions, rule),
        labels=_collect_labels(run, predictions, rule) if run.task.multilabel else None,
        card=summary,
        folder=_find_lasting_folder(run),
    )
    return render_run(run.record, evidence)


def _find_lasting_folder(run: Run) -> Path:
    """Where the run will be: an ensemble is written in a hidden draft of its folder."""
    return run.path.with_name(run.record.id) if run.path.name.startswith(".") else run.path


def _show_novelty(run: Run, predictions: Predictions, rule: DecisionRule) -> ShownNovelty | None:
    scores = run.novelty_scores()
    shown = choose_shown(run.root, predictions, find_strangest(scores), run.classes, rule, run.value_range)
    return show_novelty(run.record, scores, shown)


def _collect_labels(run: Run, predictions: Predictions, rule: DecisionRule) -> LabelEvidence:
    """What the report shows of each label, as the run's thresholds decide it."""
    targets, shifted = predictions.targets, rule.shift_logits(predictions.logits)
    called = predictions.task.decide(shifted)
    known = run.record.confidence.decisions if run.record.confidence else None
    thresholds = [HALF] * len(run.classes) if rule.thresholds is None else rule.thresholds.tolist()
    names = ("mean_average_precision",)
    data = run.dataset()
    splits = {split: data.samples(split) for split in ("train", "val")}
    return LabelEvidence(
        evaluate(predictions.task, targets, shifted, run.classes, names).per_class,
        count_label_mistakes(targets, called, run.classes, thresholds),
        list_mistaken_together(targets, called, run.classes, PAIRS_SHOWN),
        {split: len(samples) for split, samples in splits.items()},
        {
            split: sum(not samples.label_sets[number] for number in samples.labels.tolist())
            for split, samples in splits.items()
        },
        known.rule if known and known.thresholds else "",
    )
