"""Test: what a finished run answers about the images of its sealed test split."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from budwood.data.dataset import Samples
from budwood.errors import DataError, RunError
from budwood.evaluation.predictions import Predictions, make_predictions
from budwood.networks.plan import hash_json
from budwood.networks.weights import digest_file
from budwood.progress import Progress
from budwood.runs.contents import evaluate_predictions
from budwood.runs.ensembles import MEMBERS
from budwood.runs.look_ledger import Look, count_look, lock_ledger
from budwood.runs.predictor import make_predictor
from budwood.runs.run import Run, lock_results, open_any_run, reopen_run, utc_now
from budwood.runs.run_files import DATASET, SEALED_LABELS, WEIGHTS, digest_run_files, name_predictions
from budwood.runs.run_record import TestRecord, save_record
from budwood.storage.atomic import raise_storage_errors, read_parquet
from budwood.storage.context import open_context
from budwood.text import quote_path
from budwood.workflows.confidence import add_test_errors
from budwood.workflows.report import report


def test(run: Run | str | Path, *, cache: Path | None = None, progress: Progress | None = None) -> Run:
    """Open the sealed test split: score the run on it, count the look, and put both into the run and its report.

    The look is counted over all runs of the same folder before any label is read. A run that has been tested and has
    not been trained since shows its score again, and counts no look.

    Args:
        run: The run, or its path or name.
        cache: The cache folder; None: the usual one.
        progress: Where bars and notes go; None: nowhere.

    Returns:
        The run with its test metrics.

    Raises:
        RunError: The data set has no test split, its images were changed, the sealed labels cannot be read, or the
            run was trained further in the meantime.
        StorageError: The run folder or the cache cannot be written.
    """
    run = open_any_run(run)
    samples = _list_test_images(run)
    _refuse_member(run)
    sealed = run.file(SEALED_LABELS)
    if _is_scored(run):
        return report(run)
    logits = make_predictor(run, open_context(cache, progress)).predict_samples(samples)
    with lock_ledger(run.path.parent), lock_results(run.path):
        latest = reopen_run(run)
        if not _is_scored(latest):  # as another process may have done meanwhile
            (looks,) = count_look(run.path.parent, [_identify_look(run, samples)])
            unsealed = replace(samples, labels=_read_sealed_labels(sealed, samples))
            latest = _save_score(run, make_predictions(unsealed, logits), looks)
    return report(latest)


def _refuse_member(run: Run) -> None:
    """Raises `RunError` for the copy of a run in an ensemble, whose looks would be counted apart from all others."""
    whole = run.path.absolute().parents[1]
    if run.path.absolute().parent.name == MEMBERS and (whole / "run.json").is_file():
        raise RunError(
            f"{run.path}: is a member of an ensemble, which alone keeps the labels of the test set.",
            f"`budwood test {quote_path(whole)}` tests the ensemble; or test the run that the member is a copy of.",
        )


def _digest_network(run: Run) -> str:
    """A digest of a run's weights, of all members and their weights in the mean where it is an ensemble."""
    if run.record.ensemble:
        shares = [member.weight for member in run.record.ensemble.members]
        return hash_json([shares, *(digest_file(run.path / name) for name in run.weight_files)])
    return digest_file(run.path / WEIGHTS)


def test_together(
    runs: Sequence[Run], *, cache: Path | None = None, progress: Progress | None = None
) -> dict[str, DataError | RunError]:
    """Open the test splits of several runs of one folder at one look, which is counted before any label is read.

    A run whose look was counted before, as by a process that was killed after it, keeps that one.

    Args:
        runs: The runs, at least one, all in one folder.
        cache: The cache folder; None: the usual one.
        progress: Where bars and notes go; None: nowhere.

    Returns:
        Why runs could not be tested, by their names; the others have been.

    Raises:
        DataError: No run could be tested, and the first for its images.
        RunError: No run could be tested, and the first because its files were changed or it has no test split.
        StorageError: A folder cannot be written.
    """
    looks, problems = dict[str, Look](), dict[str, DataError | RunError]()
    for run in runs:
        try:
            run.file(SEALED_LABELS)
            looks[run.path.name] = _identify_look(run, _list_test_images(run))
        except RunError as error:
            problems[run.path.name] = error
    if looks:
        with lock_ledger(runs[0].path.parent):
            count_look(runs[0].path.parent, list(looks.values()))
    for run in runs:
        if run.path.name in looks:
            try:
                test(run, cache=cache, progress=progress)
            except (DataError, RunError) as error:
                problems[run.path.name] = error
    if len(problems) == len(runs):
        raise next(iter(problems.values()))
    return problems


def _list_test_images(run: Run) -> Samples:
    samples = run.dataset().samples("test")
    if not len(samples):
        raise RunError(f"{run.path}: the data set has no test set.", "Train again on data with a test set.")
    return samples


def _identify_look(run: Run, samples: Samples) -> Look:
    """Which network looks at which images."""
    split = hashlib.sha256("".join(sorted(samples.ids)).encode()).hexdigest()[:24]
    return Look(run.path.name, _digest_network(run), split)


def _is_scored(run: Run) -> bool:
    """Whether a run has been tested with the weights and the images that it has now, which their digests tell.

    Raises `RunError` where one of the files was changed. Of a run of an earlier version, which has no digests, it is
    not known.
    """
    needed = (*run.weight_files, DATASET, SEALED_LABELS, name_predictions("test"))
    if run.record.test is None or not run.record.files.keys() >= set(needed):
        return False
    return all(run.file(name).is_file() for name in needed)


def _save_score(run: Run, predictions: Predictions, looks: int) -> Run:
    """The run with its predictions for the test split, and with what they score."""
    scores = evaluate_predictions(predictions, run.classes, run.recipe)
    before = run.record.test.opened if run.record.test else ()
    opened = TestRecord(looks=looks, opened=(*before, utc_now()), metrics=scores)
    with raise_storage_errors(run.path):
        predictions.save(run.path / name_predictions("test"))
        files = {**run.record.files, **digest_run_files(run.path, [name_predictions("test")])}
        confidence = run.record.confidence
        known = {"confidence": add_test_errors(confidence, predictions)} if confidence else {}
        record = run.record.model_copy(update={"test": opened, "files": files, **known})
        save_record(run.path, record)
    return Run(run.path, record)


def _read_sealed_labels(file: Path, samples: Samples) -> NDArray[np.int32]:
    try:
        table = read_parquet(file)
    except (OSError, pa.ArrowException) as error:
        raise RunError(f"{file}: cannot be read ({error}).", "Restore the file, or train again.") from error
    label_of_id = dict(zip(table["id"].to_pylist(), table["label"].to_pylist(), strict=True))
    missing = [path for id, path in zip(samples.ids, samples.paths, strict=True) if id not in label_of_id]
    if missing:
        raise RunError(f"{file}: has no label for {missing[0]!r}.", "Restore the file, or train again.")
    return np.array([label_of_id[id] for id in samples.ids], np.int32)
