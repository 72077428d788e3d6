"""Ensembles: runs in, one run out that is the mean of their probabilities.

runs -> agreement -> weights -> members -> mean of the validation predictions -> metrics -> run -> report
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from budwood.data.dataset import Dataset, compute_fingerprint, set_columns
from budwood.data.listing import SPLITS
from budwood.errors import RecipeError, RunError, did_you_mean
from budwood.evaluation.ensembles import select_greedily, spread_weights
from budwood.evaluation.predictions import Predictions
from budwood.hardware import count_processors
from budwood.runs.contents import evaluate_predictions
from budwood.runs.ensembles import MEMBERS, describe_ensemble_network
from budwood.runs.machine import describe_hardware, library_versions
from budwood.runs.run import Run, open_run, utc_now
from budwood.runs.run_files import (
    DATASET,
    RUN_FILES,
    SEALED_LABELS,
    WEIGHTS,
    digest_run_files,
    name_predictions,
)
from budwood.runs.run_ids import draft_run, make_run_id, refuse_bad_id
from budwood.runs.run_record import (
    SCHEMA_VERSION,
    DatasetRecord,
    EnsembleMember,
    EnsembleRecord,
    RunRecord,
    SplitCounts,
    Timings,
    save_record,
)
from budwood.storage.atomic import raise_storage_errors
from budwood.workflows.confidence import measure_confidence
from budwood.workflows.ensemble_candidates import Candidates, check_candidates, identify, open_candidates
from budwood.workflows.novelty import adopt_novelty
from budwood.workflows.report import write_reports

Rule = Literal["equal", "validation"]
RULES: Final = ("equal", "validation")
COPIED: Final = tuple(name for name in RUN_FILES if name != SEALED_LABELS)  # the ensemble keeps the seal


@dataclass(frozen=True)
class _Choice:
    """The members of an ensemble with their weights, the largest first, and how often each candidate was picked."""

    members: tuple[Run, ...]
    weights: tuple[float, ...]
    picks: tuple[int, ...] | None


def ensemble(
    runs: Sequence[Run | str | Path] | str | Path,
    weights: Rule = "equal",
    *,
    out: str | Path = "runs",
    id: str | None = None,
) -> Run:
    """Make one run of several: its answer is the weighted mean of their probabilities.

    The new run is complete in itself, as the members are copied into it, and is tested, compared, explained and used
    like any other. Where the runs are the folds of a cross-validation, its validation prediction for an image is the
    mean of the members that were not trained on it, so that its score is the cross-validated one; for new images all
    members answer. An ensemble among the runs is taken for the runs that it was made of.

    Args:
        runs: Two or more runs, their folders or ids, or folders of runs, of which every finished run is taken.
        weights: `equal`, or `validation`: a greedy selection with replacement on the validation set by the loss
            (Caruana et al. 2004), in which a run's weight is its share of the picks; runs that are never picked are
            left out.
        out: The folder of runs in which ids are looked up, and in which the new run is made.
        id: Name of the new run; None: a new name.

    Returns:
        The new run.

    Raises:
        RecipeError: There are no such weights, or they cannot be chosen for folds.
        RunError: There are fewer than two runs, one is named twice or not finished, or one differs in classes, images
            or splits; or there is a run of that id, or it is not a file name.
        StorageError: The folder cannot be written.
    """
    started, out = time.perf_counter(), Path(out)
    if weights not in RULES:
        raise RecipeError(f"weights: there is no rule {weights!r}.", did_you_mean(weights, RULES))
    id = id if id is not None else make_run_id("ensemble")
    refuse_bad_id(id, out)
    given = [runs] if isinstance(runs, str | Path) else list(runs)
    candidates = check_candidates(open_candidates(given, out))
    choice = _choose_members(candidates, weights)
    with raise_storage_errors(out), draft_run(out / id) as draft:
        _write_run(draft, id, candidates, choice, weights, started)
    return open_run(out / id)


def _choose_members(candidates: Candidates, rule: Rule) -> _Choice:
    """The members: the candidates, those of ensembles among them for these, by the rule."""
    picks = None
    shares: Sequence[float] = [1.0] * len(candidates.runs)
    if rule == "validation":
        if candidates.folds:
            raise RecipeError(
                "weights: folds cannot be weighted by validation, as no two of them have the same validation images.",
                "Use `--weights equal`.",
            )
        true = [one.task.true_probabilities(one.truth, one.logits) for one in candidates.validation]
        selection = select_greedily(true)
        shares, picks = selection.weights.tolist(), tuple(selection.picks.tolist())
    parts = [_list_parts(run) for run in candidates.runs]
    run_of_key = {identify(run): run for part in parts for run, _ in part}
    spread = spread_weights([[(identify(run), weight) for run, weight in part] for part in parts], shares)
    ranked = sorted(spread.items(), key=lambda one: -one[1])
    return _Choice(tuple(run_of_key[key] for key, _ in ranked), tuple(weight for _, weight in ranked), picks)


def _list_parts(run: Run) -> list[tuple[Run, float]]:
    """A run's networks with their weights in it: the run itself, or the members of an ensemble."""
    made = run.record.ensemble
    if made is None:
        return [(run, 1.0)]
    return list(zip(run.members(), (member.weight for member in made.members), strict=True))


def _write_run(draft: Path, id: str, candidates: Candidates, choice: _Choice, rule: Rule, started: float) -> None:
    """Write the whole run into the draft of its folder."""
    first, leader = candidates.runs[0], choice.members[0]
    predictions = _predict_validation(candidates, choice)
    data = _join_folds(first.dataset(), predictions) if candidates.folds else first.dataset()
    _copy_checked(first, SEALED_LABELS, draft)
    for number, member in enumerate(choice.members):
        _copy_member(member, draft / MEMBERS / str(number))
    replace(data, root=first.root.absolute()).save(draft / DATASET)
    predictions.save(draft / name_predictions("val"))
    (draft / "recipe.toml").write_text(leader.recipe.toml(), encoding="utf-8")
    made = _describe(candidates, choice, rule)
    versions = library_versions()
    record = RunRecord(
        schema_version=SCHEMA_VERSION,
        budwood=versions["budwood"],
        id=id,
        state="done",
        created=utc_now(),
        source=first.record.source,
        root=str(first.root.absolute()),
        recipe=leader.recipe,
        dataset=_describe_data(first.record.dataset, data) if candidates.folds else first.record.dataset,
        findings=first.record.findings,
        network=describe_ensemble_network(choice.members, choice.weights),
        environment=versions,
        hardware=describe_hardware(count_processors()),
        metrics={"val": evaluate_predictions(predictions, data.classes, leader.recipe)},
        test=None,
        timings=Timings(total=round(time.perf_counter() - started, 3)),
        files=digest_run_files(draft, (*RUN_FILES, *(f"{one.folder}/{WEIGHTS}" for one in made.members))),
        ensemble=made,
        confidence=measure_confidence(predictions),
    )
    if first.record.reading:  # nothing is not written
        record = record.model_copy(update={"reading": first.record.reading})
    record = adopt_novelty(Run(draft, record)).record
    write_reports(Run(draft, record))
    save_record(draft, record)


def _predict_validation(candidates: Candidates, choice: _Choice) -> Predictions:
    """The mean predictions for the validation images, of folds each by the runs that were not trained on it."""
    if candidates.folds:
        return _predict_held_out(candidates)
    first = candidates.validation[0]
    known = {run.path: one for run, one in zip(candidates.runs, candidates.validation, strict=True)}
    logits = [(known.get(run.path) or run.predictions("val")).in_order(first.ids).logits for run in choice.members]
    return replace(first, logits=first.task.average_logits(logits, np.array(choice.weights)))


def _predict_held_out(candidates: Candidates) -> Predictions:
    groups: dict[frozenset[str], list[Predictions]] = {}
    for one in candidates.validation:
        groups.setdefault(frozenset(one.ids), []).append(one)
    means = [_average(group) for group in groups.values()]
    return Predictions(
        tuple(id for one in means for id in one.ids),
        tuple(path for one in means for path in one.paths),
        np.concatenate([one.labels for one in means]),
        np.concatenate([one.logits for one in means]),
        means[0].label_sets,
    )


def _average(group: Sequence[Predictions]) -> Predictions:
    """The mean of predictions for the same images, in the order of the first."""
    first = group[0]
    logits = [one.in_order(first.ids).logits for one in group]
    return replace(first, logits=first.task.average_logits(logits, np.ones(len(group))))


def _join_folds(data: Dataset, predictions: Predictions) -> Dataset:
    """The data of one fold as those of all: every image outside the test split validates."""
    row_of_path = {path: row for row, path in enumerate(data.table["path"].to_pylist())}
    split, used = data.column("split").copy(), data.column("used").copy()
    known = split != SPLITS.index("test")
    split[known], used[known] = SPLITS.index("val"), False
    used[[row_of_path[path] for path in predictions.paths]] = True
    table = set_columns(data.table, {"split": split, "used": used})
    fingerprint = compute_fingerprint(data.classes, data.label_sets, table)
    folds = data.split_source.rpartition(" ")[2]
    return replace(data, table=table, split_source=f"{folds} folds", fingerprint=fingerprint)


def _describe_data(first: DatasetRecord, data: Dataset) -> DatasetRecord:
    update: dict[str, Any] = {
        "fingerprint": data.fingerprint,
        "split": data.split_source,
        "counts": SplitCounts(**data.counts()),
    }
    return first.model_copy(update=update)


def _describe(candidates: Candidates, choice: _Choice, rule: Rule) -> EnsembleRecord:
    members = tuple(
        EnsembleMember(run=run.record.id, folder=f"{MEMBERS}/{number}", weight=weight)
        for number, (run, weight) in enumerate(zip(choice.members, choice.weights, strict=True))
    )
    return EnsembleRecord(
        members=members,
        rule=rule,
        folds=candidates.folds,
        candidates=tuple(run.record.id for run in candidates.runs),
        picks=choice.picks,
    )


def _copy_member(run: Run, folder: Path) -> None:
    """Copy a run into an ensemble, with all that it needs to predict, but without the labels of the test split."""
    folder.mkdir(parents=True)
    for name in COPIED:
        _copy_checked(run, name, folder)
    (folder / "recipe.toml").write_text(run.recipe.toml(), encoding="utf-8")
    digests = {**digest_run_files(folder, COPIED)}
    save_record(folder, run.record.model_copy(update={"files": digests, "root": str(run.root.absolute())}))


def _copy_checked(run: Run, name: str, folder: Path) -> None:
    """Copy a file that a run has, once it was checked."""
    file = run.file(name)
    if file.is_file():
        shutil.copyfile(file, folder / name)
    elif name in (WEIGHTS, DATASET, SEALED_LABELS, name_predictions("val")):
        raise RunError(f"{file}: is missing.", "Restore the file from a copy, or train again.")
