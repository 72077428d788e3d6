"""None of these: what tells images that show none of a run's classes, chosen and measured on its own images.

features of training and validation images -> method -> what it keeps -> threshold -> strangers of the user's
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from budwood.data.archives import extract, is_archive
from budwood.data.dataset import SEALED, Samples
from budwood.data.duplicates import find_near_pairs
from budwood.data.file_tree import find_image_files
from budwood.data.images import ImageMetadata
from budwood.data.metadata import read_cached_metadata
from budwood.errors import BudwoodError, DataError, RecipeError, RunError
from budwood.evaluation.intervals import Metric, proportion_interval
from budwood.evaluation.novelty import NEIGHBOUR, Floats, NoveltyScorer
from budwood.evaluation.novelty_choice import HEAD_STEPS, METHODS, MOST_DRAWN, MOST_HEADS, choose_method
from budwood.evaluation.novelty_fitting import REFUSED, choose_neighbour, find_threshold, fit_arrays, limit_bank
from budwood.evaluation.roc import auroc_interval, pass_rate
from budwood.inference.feature_cache import compute_tta_features
from budwood.runs.confidence_record import (
    NOVELTY_FILE,
    STRANGER_SCORES,
    VALIDATION_SCORES,
    ConfidenceRecord,
    NoveltyRecord,
    StrangersRecord,
)
from budwood.runs.networks import make_trunk
from budwood.runs.novelty_bank import (
    MOST_VALIDATED,
    align_scores,
    find_feature_run,
    load_run_images,
    save_novelty,
)
from budwood.runs.predictor import make_predictor
from budwood.runs.run import Run
from budwood.runs.run_files import digest_run_files
from budwood.storage.atomic import raise_storage_errors
from budwood.storage.context import Context
from budwood.text import counted, listed, quote_path, show_unprintable

FEW: Final = 2_000  # images of either split at the end of a training whose trunk has to see them once more
COPIES_SHOWN: Final = 3
OVERHEAD: Final = 0.3  # seconds of reading and writing
SPEED: Final = 2e10  # multiplications and additions a second that a core does at least


@dataclass(frozen=True)
class MeasuredNovelty:
    """What a run keeps of its images to tell strangers.

    Attributes:
        record: The record of it.
        arrays: The content of the run's file: what the scorer needs, and the scores that the report shows.
    """

    record: NoveltyRecord
    arrays: dict[str, NDArray[np.float32]]

    @property
    def known(self) -> Floats:
        """Return the scores of the validation images that were scored, float64."""
        scores = self.arrays[VALIDATION_SCORES].astype(np.float64)
        return np.asarray(scores[~np.isnan(scores)])

    @property
    def scorer(self) -> NoveltyScorer:
        """Return the score with its threshold."""
        return NoveltyScorer(self.record.method, self.arrays, self.record.threshold, self.record.neighbour)


def measure_novelty(
    run: Run, context: Context, share: float = REFUSED, most_new: int | None = None
) -> MeasuredNovelty | None:
    """Choose how a run tells images that show none of its classes, and find the score from which on they are refused.

    Of an ensemble it is the member with the most weight whose features tell; its logits are those of mean
    probabilities, which have no energy.

    Args:
        run: A finished run; its weights and predictions may be in its folder before its record is.
        context: The cache folder, and where bars and notes go.
        share: Share of known images that is refused, 0 to 1.
        most_new: Number of images of either split that the trunk may see once more where it has to; None: up to 10,000.

    Returns:
        What was measured, and nothing is written; None where the trunk has to see images and may see none.

    Raises:
        DataError: An image file is gone or was changed, and its features are not in the cache.
        WeightsError: The weights cannot be read.
        StorageError: The cache cannot be written.
    """
    images = load_run_images(find_feature_run(run), context, most_new)
    if images is None:
        return None
    methods = METHODS if run.record.ensemble is None else tuple(name for name in METHODS if name != "energy")
    choice = choose_method(images.training, images.validation, methods)
    arrays = fit_arrays(choice.method, images.training)
    present = int(images.training.targets.any(axis=0).sum())
    k = choose_neighbour(len(images.training), present) if choice.method == "knn" else NEIGHBOUR
    scores = NoveltyScorer(choice.method, arrays, np.inf, k).score(images.validation.features, images.logits)
    kept = align_scores(run, images.ids, scores)
    record = NoveltyRecord(
        method=choice.method,
        threshold=_find_threshold(kept[~np.isnan(kept)].astype(np.float64), share),
        share=share,
        auroc=choice.auroc,
        neighbour=k,
        n=len(scores),
    )
    return MeasuredNovelty(record, {**arrays, VALIDATION_SCORES: kept})


def add_novelty(run: Run, context: Context, share: float, most_new: int | None = None) -> Run:
    """Measure at the end of a training how the run tells strangers, and write it into the folder.

    Where the trunk has to see images once more, it sees fewer, and none under a time limit. A run that cannot tell
    strangers is complete without: `budwood calibrate` measures it later.

    Args:
        run: The run with its record; its weights and predictions are in its folder.
        context: The cache folder, and where bars and notes go.
        share: Share of known images that is refused, 0 to 1.
        most_new: Number of images of either split that the trunk may see once more; None: some thousand, and none
            under a time limit.

    Returns:
        The run with what was measured in its record, which is not written yet.

    Raises:
        OSError: The run folder cannot be written.
    """
    later = f"`budwood calibrate {quote_path(run.path)}` does it."
    try:
        usual = FEW if run.recipe.time is None else 0
        measured = measure_novelty(run, context, share, usual if most_new is None else min(most_new, FEW))
    except BudwoodError as error:  # the run is worth more than this
        note = f"What tells images of none of the classes could not be measured: {error.message} Then {later}"
        context.progress.note(note)
        return run
    if measured is None:
        note = f"What tells images of none of the classes was not measured, because of the time limit; {later}"
        context.progress.note(note)
        return run
    return keep_novelty(run, measured)


def read_share(run: Run) -> float:
    """Return the share of known images that a run was asked to refuse; of one that was not, the usual one."""
    known = run.record.confidence and run.record.confidence.novelty
    return known.share if known else REFUSED


def keep_novelty(run: Run, measured: MeasuredNovelty) -> Run:
    """Write what tells strangers into a run's folder, and into its record, which is not written.

    Args:
        run: The run.
        measured: What was measured.

    Returns:
        The run with the changed record.

    Raises:
        OSError: The file cannot be written.
    """
    save_novelty(run.path, measured.arrays)
    files = {**run.record.files, **digest_run_files(run.path, [NOVELTY_FILE])}
    confidence = (run.record.confidence or ConfidenceRecord()).model_copy(update={"novelty": measured.record})
    return Run(run.path, run.record.model_copy(update={"confidence": confidence, "files": files}))


def settle_novelty(
    run: Run, share: float | None, folder: str | Path | None, context: Context
) -> MeasuredNovelty | None:
    """Bring what a finished run knows of strangers to what is asked; what it knows already needs no image.

    Args:
        run: The run.
        share: Share of known images that is to be refused, above 0 and below 1; None: as before.
        folder: Images that show none of the classes; None: none are tried.
        context: The cache folder, and where bars and notes go.

    Returns:
        What was measured; None where the run has nothing, nothing was asked, and its images are gone.

    Raises:
        DataError: What was asked needs images of the run that are gone or were changed; or of the strangers, as in
            `compare_strangers`.
        RecipeError: The share is out of range.
    """
    if share is not None and not (isinstance(share, (int, float)) and 0 < share < 1):
        found = f"{share:g}" if isinstance(share, (int, float)) else repr(share)
        raise RecipeError(
            f"refuse: expected a share above 0 and below 1; found {found}.", "Write 0.05 for 5 % of the known images."
        )
    if folder is not None and not isinstance(folder, (str, Path)):
        raise RecipeError(f"unknown: expected the path of a folder, found {type(folder).__name__}.", "Name one folder.")
    try:
        measured = read_novelty(run)
    except RunError as error:  # a damaged file is made anew
        context.progress.note(f"What tells images of none of the classes is measured anew: {error.message}")
        measured = None
    if measured is None:
        try:
            measured = measure_novelty(run, context, read_share(run) if share is None else share)
        except DataError as error:
            if share is not None or folder is not None:
                raise
            context.progress.note(f'"None of these" cannot be measured without the images of the run: {error.message}')
            return None
    elif share is not None:
        measured = _change_share(measured, share)
    if measured is None or folder is None:
        return measured
    return compare_strangers(run, measured, folder, context)


def read_novelty(run: Run) -> MeasuredNovelty | None:
    """Read what a run knows of strangers; None where it knows nothing."""
    scorer, confidence = run.novelty_scorer(), run.record.confidence
    if scorer is None or confidence is None or confidence.novelty is None:
        return None
    return MeasuredNovelty(confidence.novelty, {**scorer.arrays, **run.novelty_scores()})


def _change_share(measured: MeasuredNovelty, share: float) -> MeasuredNovelty:
    """The same at another share of known images refused; what was found of strangers is counted anew."""
    threshold = _find_threshold(measured.known, share)
    update: dict[str, Any] = {"share": share, "threshold": threshold}
    strangers = measured.record.strangers
    if strangers:
        refused = _count_refused(measured.arrays[STRANGER_SCORES], threshold)
        update["strangers"] = strangers.model_copy(update={"refused": refused})
    return replace(measured, record=measured.record.model_copy(update=update))


def _find_threshold(scores: Floats, share: float) -> float:
    """The threshold for scores as they are kept, in 32 bits, a hair above so that rounding refuses none of them."""
    return float(np.nextafter(np.float32(find_threshold(scores, share)), np.float32(np.inf)))


def _count_refused(scores: NDArray[Any], threshold: float) -> Metric:
    return proportion_interval(int(np.count_nonzero(scores > threshold)), len(scores))


def adopt_novelty(run: Run) -> Run:
    """Take over what the member with the most weight knows of strangers, for an ensemble that has just been made.

    The energy cannot be taken over, as the logits of mean probabilities have none; `budwood calibrate` then chooses
    among the other scores.

    Args:
        run: The ensemble with its members.

    Returns:
        The run with the changed record, which is not written.

    Raises:
        OSError: The file cannot be written.
    """
    leader = find_feature_run(run)
    measured = read_novelty(leader)
    if measured is None or measured.record.method == "energy":
        return run
    validation = measured.arrays[VALIDATION_SCORES].astype(np.float64)
    scores = align_scores(run, leader.predictions("val").ids, validation)
    kept = {name: array for name, array in measured.arrays.items() if name != STRANGER_SCORES}
    record = measured.record.model_copy(update={"strangers": None})
    return keep_novelty(run, MeasuredNovelty(record, {**kept, VALIDATION_SCORES: scores}))


def estimate_seconds(features: int, training: int, validation: int, classes: int) -> float:
    """Estimate the seconds that choice and threshold take where all features are in the cache.

    Args:
        features: Their number for an image.
        training: Number of training images.
        validation: Number of validation images.
        classes: Number of classes.

    Returns:
        Seconds on one core, rather too many.
    """
    bank, heads = min(training, limit_bank(features)), min(8 * classes, 2 * MOST_HEADS)
    covariance = 2 * features**2 * (features + 3 * MOST_DRAWN)
    fitted = 4 * HEAD_STEPS * MOST_DRAWN * features * heads
    return OVERHEAD + (covariance + fitted + 2 * bank * min(validation, MOST_VALIDATED) * features) / SPEED


def compare_strangers(run: Run, measured: MeasuredNovelty, folder: str | Path, context: Context) -> MeasuredNovelty:
    """Measure how well a run refuses images of the user's that show none of its classes.

    Copies and near copies of its own training and validation images are no strangers: they are named and left out.

    Args:
        run: The run.
        measured: How it tells strangers.
        folder: A folder, an image file or an archive.
        context: The cache folder, and where bars and notes go.

    Returns:
        The same with the strangers' figures and scores; nothing is written.

    Raises:
        DataError: There is no such file, or it has no usable image that the run does not know.
        StorageError: The cache cannot be written.
    """
    strangers = _read_strangers(run, folder, context)
    features = _compute_features(find_feature_run(run), strangers, context)
    logits = np.zeros((len(strangers), len(run.classes)), np.float32)
    if measured.record.method == "energy":
        logits = make_predictor(run, context).predict_samples(strangers)
    scores = measured.scorer.score(features, logits)
    record = StrangersRecord(
        folder=str(folder),
        n=len(scores),
        auroc=auroc_interval(measured.known, scores),
        fpr95=pass_rate(measured.known, scores),
        refused=_count_refused(scores, measured.record.threshold),
    )
    return MeasuredNovelty(
        measured.record.model_copy(update={"strangers": record}),
        {**measured.arrays, STRANGER_SCORES: scores.astype(np.float32)},
    )


def _compute_features(run: Run, samples: Samples, context: Context) -> NDArray[np.float32]:
    with raise_storage_errors(context.cache):
        return np.asarray(compute_tta_features(make_trunk(run, context), samples, context.progress).values)


def _read_strangers(run: Run, folder: str | Path, context: Context) -> Samples:
    """The images of a folder, each content once, without those that the run knows."""
    paths = list(find_image_files([_open_source(Path(folder), context)]))
    facts = read_cached_metadata(Path(), [str(path) for path in paths], context)
    facts_of_path = {str(path): fact for path, fact in zip(paths, facts, strict=True)}
    found: dict[str, tuple[str, ImageMetadata]] = {}
    for path, fact in facts_of_path.items():
        if isinstance(fact, ImageMetadata):
            found.setdefault(fact.id, (path, fact))
    bad = [path for path, fact in facts_of_path.items() if not isinstance(fact, ImageMetadata)]
    if bad:
        verb = "does" if len(bad) == 1 else "do"
        context.progress.note(f"--unknown: {_name_files(bad)} cannot be read as an image and {verb} not count.")
    known = _find_known(run, [fact for _, fact in found.values()], context)
    if known:
        names = _name_files([found[id][0] for id in sorted(known)])
        what = "is a copy or near copy" if len(known) == 1 else "are copies or near copies"
        context.progress.note(f"--unknown: {names} {what} of the run's own images, and left out.")
    rest = {id: path for id, (path, _) in found.items() if id not in known}
    if not rest:
        raise DataError(
            f"{folder}: has no image that this run does not know already.",
            "--unknown needs images that show none of the classes: a folder, a file or an archive of them.",
        )
    labels = np.full(len(rest), SEALED, np.int32)
    return Samples(Path(), tuple(rest), tuple(rest.values()), labels, value_range=run.value_range)


def _open_source(path: Path, context: Context) -> Path:
    return extract(path, context) if path.is_file() and is_archive(path) else path


def _name_files(paths: Sequence[str]) -> str:
    """How many files, and the first of them."""
    shown = listed([show_unprintable(path) for path in paths], COPIES_SHOWN)
    return f"{counted(len(paths), 'file')} ({shown})"


def _find_known(run: Run, strangers: Sequence[ImageMetadata], context: Context) -> set[str]:
    """The ids of the strangers that are copies or near copies of training or validation images."""
    data = run.dataset()
    own = data.samples("train").join(data.samples("val"))
    exact = {fact.id for fact in strangers} & set(own.ids)
    known = [fact for fact in read_cached_metadata(run.root, own.paths, context) if isinstance(fact, ImageMetadata)]
    facts = [*known, *(fact for fact in strangers if fact.id not in exact)]
    pairs = find_near_pairs([fact.thumb for fact in facts], context.progress)
    across = pairs[(pairs[:, 0] < len(known)) & (pairs[:, 1] >= len(known))]
    return exact | {facts[row].id for row in across[:, 1].tolist()}
