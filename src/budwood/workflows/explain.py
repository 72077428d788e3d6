"""Explain a run: what it has learned, kept beside it and shown in its report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from budwood.data.file_tree import find_image_files
from budwood.errors import DataError
from budwood.explain.explain_request import USUAL, ExplainRequest
from budwood.explain.explanation import make_explanation
from budwood.reporting.run_page import render_explanation
from budwood.runs.explanation_record import Explanation, load_explanation, save_explanation
from budwood.runs.run import AnyRun, lock_results, open_any_run, reopen_run
from budwood.storage.atomic import raise_storage_errors, write_text
from budwood.storage.context import Context
from budwood.workflows.report import report


def explain_run(
    run: AnyRun,
    context: Context,
    images: Iterable[str | Path] = (),
    *,
    methods: Sequence[str] = (),
    place: str | Sequence[str] = (),
    called: str | None = None,
    parts: Sequence[str] = (),
    channels: Sequence[int] = (),
    beside: Sequence[AnyRun] = (),
    page: Path | None = None,
    seed: int | None = None,
) -> tuple[Explanation, Path]:
    """Explain what a run's network has learned, in the run's report, or for images on a page of their own.

    What is left empty is chosen: for the run all parts but `classes`, `maps` and `units`, for images the part
    `images`. Parts of an earlier explanation of the run that are not asked for now are kept.

    Args:
        run: The run, or its path or name.
        context: The cache folder, and where bars and notes go.
        images: Files and folders to explain; none: the run as a whole.
        methods: Methods of attribution; none: the usual ones.
        place: With the part `images`, the stage that layer-cam and grad-cam use; else the layers that `filters`,
            `maps` and `units` show. Empty: chosen for the network.
        called: The class that is explained; None: the likeliest of each image.
        parts: What is explained: images, stages, filters, maps, units, embedding, mistakes, labels, classes.
        channels: Channels that `maps` and `units` show; none: those that vary most over the images.
        beside: Networks that `maps` and `units` show beside the run's: other runs or their names, `start` for its
            network before training, `imagenet` for it with ImageNet weights.
        page: The page about images; None: `explained.html` in the run folder.
        seed: Seed of what is drawn by chance in the parts `images`, `classes` and `units`; None: 0.

    Returns:
        The explanation, and the file that shows it.

    Raises:
        DataError: A path does not exist, the folders hold no file, or there are too many images for one page.
        RecipeError: There is no such part, method, layer, channel or class, or an option does not apply.
        WeightsError: The weights of a network before training cannot be found.
        RunError: The run's images are not where they were, or it was trained further in the meantime.
        StorageError: The page or the run folder cannot be written.
    """
    run, files = open_any_run(run), _find_files(tuple(images))
    chosen = tuple(parts) or (("images",) if files else USUAL)
    places = (place,) if isinstance(place, str) else tuple(dict.fromkeys(place))
    numbers = tuple(dict.fromkeys(channels))
    request = ExplainRequest(files, chosen, tuple(methods), places, called, numbers, tuple(beside), seed)
    explanation = make_explanation(run, request, context)
    if not files:
        with lock_results(run.path):
            save_explanation(reopen_run(run).path, _merge_explanations(load_explanation(run.path), explanation))
        return explanation, report(run).path / "report.html"
    page = page or run.path / "explained.html"
    with raise_storage_errors(page):
        write_text(page, render_explanation(explanation, run.record.dataset.name, run.record.network.name))
    return explanation, page


def _find_files(named: tuple[str | Path, ...]) -> tuple[Path, ...]:
    """The files to explain; none where none is named."""
    files = tuple(find_image_files(named))
    if named and not files:
        raise DataError(
            f"{', '.join(map(str, named))}: contains no files to explain.",
            "Name images, or leave them out to explain the run as a whole.",
        )
    return files


def _merge_explanations(earlier: Explanation | None, latest: Explanation) -> Explanation:
    """What was found, with the parts of an earlier explanation that were not asked for this time."""
    if earlier is None:
        return latest
    return Explanation(earlier.record.merged(latest.record), {**earlier.pictures, **latest.pictures})
