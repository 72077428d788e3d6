"""What `budwood explain` finds out about a run, as a record and the pictures that it names.

run -> chosen images -> parts -> Explanation
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from budwood.data.corrections import is_filled
from budwood.data.dataset import Dataset
from budwood.data.images import BadImage, find_inside, read_known_bytes
from budwood.data.loading import Pixels
from budwood.errors import DataError, RecipeError, RunError, WeightsError, did_you_mean
from budwood.evaluation.label_task import task_of
from budwood.evaluation.predictions import Predictions
from budwood.explain import api
from budwood.explain.confused_pairs import find_confusions
from budwood.explain.embeddings import Neighbours, find_neighbours, make_embedding
from budwood.explain.explain_request import OF_LAYERS, ExplainRequest
from budwood.explain.heatmaps import AT_A_PLACE, Attribution, refuse_unknown_method
from budwood.explain.image_grid import make_png_uri
from budwood.explain.label_errors import find_suspects, save_suspects
from budwood.explain.overlays import draw_legend, draw_overlay
from budwood.explain.scatter import draw_scatter, make_small_pictures, sample_dots
from budwood.explain.subgroups import find_slices
from budwood.hardware import count_processors
from budwood.reporting.thumbnails import encode_jpeg, make_data_uri, make_thumbnail, map_ids
from budwood.runs.explanation_record import (
    PARTS,
    SUSPECTS_SHOWN,
    ClassesPart,
    ConfusedClasses,
    DrawnClass,
    EmbeddingPart,
    ExplainedImage,
    Explanation,
    ExplanationPart,
    ExplanationRecord,
    GainOverChance,
    ImagesPart,
    JudgedLabels,
    MappedStage,
    MethodTrust,
    MistakesPart,
    NearImage,
    SliceScore,
    StagesPart,
    SuspectLabel,
    UnjudgedLabels,
)
from budwood.runs.machine import describe_hardware
from budwood.runs.run import Run, utc_now
from budwood.storage.atomic import raise_storage_errors
from budwood.storage.context import Context
from budwood.text import quote_path

if TYPE_CHECKING:
    from budwood.explain.probe import NetworkProbe
    from budwood.explain.run_views import RunView
    from budwood.explain.side_by_side import OpenedNetwork

SUSPECTS: Final = "label-suspects.csv"
IMAGES: Final = 12  # that are explained where none is named
NEAREST: Final = 4  # training images beside each
MAPPED: Final = 2  # images whose maps are shown where none is named
MAPPED_MOST: Final = 12  # and where some are
CONVOLUTIONS: Final = ("first", "last")  # layers that are shown where none is named
DRAWN: Final = 24  # classes that are drawn, at most
MOST: Final = 200  # images that one page shows
RANDOM: Final = ("images", "classes", "units")  # parts that draw random numbers
PLACED: Final = ("images", "filters", *OF_LAYERS)  # parts that show a layer which can be named


@dataclass
class _Bench:
    """What several parts need, made once and only if one needs it."""

    run: Run
    asked: ExplainRequest
    context: Context

    @cached_property
    def view(self) -> RunView:
        from budwood.explain.run_views import open_view

        return open_view(self.run, self.context.cache)

    @cached_property
    def subject(self) -> NetworkProbe:
        return self.view.leader

    @cached_property
    def files(self) -> tuple[Path, ...]:
        return self.asked.files or choose_files(self.run)

    @cached_property
    def pixels(self) -> Pixels:
        return api.pixels(self.run, self.files, progress=self.context.progress)

    @property
    def seed(self) -> int:
        return self.asked.seed or 0

    @property
    def layer_places(self) -> tuple[str, ...]:
        return () if "images" in self.asked.parts else self.asked.places

    def refuse_places(self) -> None:
        """Raise `RecipeError` for a layer or channel that a part cannot show, before anything is computed."""
        layered = set(self.asked.parts) & set(OF_LAYERS)
        places = self.layer_places or (CONVOLUTIONS if layered else ())
        if not places:
            return
        from budwood.explain.layer_parts import refuse_places
        from budwood.explain.side_by_side import OpenedNetwork

        networks = self.networks if layered else (OpenedNetwork(self.run.path.name, self.subject, self.pixels),)
        refuse_places(networks, self.asked.parts, places, self.asked.channels)

    @property
    def mapped_files(self) -> tuple[Path, ...]:
        return self.asked.files or self.files[:MAPPED]

    @cached_property
    def networks(self) -> tuple[OpenedNetwork, ...]:
        from budwood.explain.side_by_side import open_beside

        return open_beside(self.run, self.asked.beside, self.mapped_files, self.context, self.subject)


Found = tuple[ExplanationPart, dict[str, str]]


def make_explanation(run: Run, asked: ExplainRequest, context: Context) -> Explanation:
    """Make the parts of an explanation that a request asks for.

    Args:
        run: The run.
        asked: What is to be explained, and how.
        context: The cache folder, and where progress is shown.

    Returns:
        A record of the parts, with the seconds that each took, and the pictures that it names.

    Raises:
        RecipeError: When a part, method, place or class does not exist, or is not used by the parts and methods
            asked for.
        DataError: When there are more images than one page can show.
        RunError: When no file is named and the validation images are gone.
    """
    _refuse_request(run, asked)
    bench = _Bench(run, asked, context)
    bench.refuse_places()
    created = utc_now()
    parts: dict[str, ExplanationPart] = {}
    pictures: dict[str, str] = {}
    seconds = {}
    for part in asked.parts:
        started = time.perf_counter()
        parts[part], drawn = _MAKERS[part](bench)
        pictures |= drawn
        seconds[part] = round(time.perf_counter() - started, 2)
    about = {"run": run.path.name, "created": created, "hardware": describe_hardware(count_processors())}
    return Explanation(ExplanationRecord.model_validate({**about, **parts, "seconds": seconds}), pictures)


def _refuse_request(run: Run, asked: ExplainRequest) -> None:
    """Raises what `make_explanation` raises before anything is computed."""
    for part in asked.parts:
        if part not in PARTS:
            raise RecipeError(f"show: there is no part {part!r}.", did_you_mean(part, PARTS))
    for method in asked.methods:
        refuse_unknown_method(method)
    if asked.called is not None and asked.called not in run.classes:
        raise RecipeError(f"class: there is no class {asked.called!r}.", did_you_mean(asked.called, run.classes))
    _refuse_layers_of_several(run, asked)
    _refuse_unused(asked)
    if len(asked.files) > MOST:
        raise DataError(f"{len(asked.files):,} images are too many for one page.", f"Give at most {MOST}.")
    if len(asked.files) > MAPPED_MOST and set(asked.parts) & set(OF_LAYERS):
        raise DataError(
            f"{len(asked.files):,} images are too many for the parts maps and units.", f"Give at most {MAPPED_MOST}."
        )


def _refuse_layers_of_several(run: Run, asked: ExplainRequest) -> None:
    """Raises `RunError` for layers of an ensemble, which has several networks."""
    layered = [part for part in asked.parts if part in OF_LAYERS or (part == "filters" and asked.places)]
    if run.record.ensemble and layered and "images" not in asked.parts:
        raise RunError(
            f"{layered[0]}: {run.path.name} is an ensemble, which has layers in each of its networks.",
            f"Explain a member: `budwood explain {quote_path(run.path / 'members' / '0')} --show {layered[0]}`.",
        )


def _refuse_unused(asked: ExplainRequest) -> None:
    """Raises `RecipeError` for an option that none of the parts asked for would use."""
    of_images = {"method": asked.methods, "class": asked.called}
    of_layers = {"channel": asked.channels, "beside": asked.beside}
    used: tuple[tuple[Mapping[str, object], Sequence[str]], ...] = (
        (of_images, ("images",)),
        (of_layers, OF_LAYERS),
        ({"place": asked.places}, PLACED),
        ({"seed": asked.seed}, RANDOM),
    )
    for names, users in used:
        unused = [
            name for name, value in names.items() if value not in ((), None) and not set(users) & set(asked.parts)
        ]
        if unused:
            *others, last = (f"`{user}`" for user in users)
            parts = f"parts {', '.join(others)} and {last}" if others else f"part {last}"
            raise RecipeError(
                f"{unused[0]}: is only used by the {parts}.",
                f"Add `--show {users[0]}`, or leave it out.",
            )
    if not asked.places or "images" not in asked.parts:
        return
    if set(asked.parts) & set(OF_LAYERS):
        raise RecipeError(
            "place: is the stage of `images`, or the layers of `maps` and `units`, not both.",
            "Ask for `images` in a command of its own.",
        )
    if len(asked.places) > 1:
        raise RecipeError(
            f"place: the part `images` uses one stage, found {len(asked.places)}.",
            "Give one, or ask for `--show maps`, `units` or `filters`, which show several layers.",
        )
    if asked.methods and not set(asked.methods) & set(AT_A_PLACE):
        raise RecipeError(
            f"place: not used by {' and '.join(asked.methods)}, found {asked.places[0]!r}.",
            f"Leave it out, or choose {' or '.join(AT_A_PLACE)}.",
        )


def choose_files(run: Run) -> tuple[Path, ...]:
    """Choose the validation images to explain where none is named.

    Up to half of them are the worst mistakes. The others are correct images that the network is surest of, taken
    from each class in turn.

    Args:
        run: The run.

    Returns:
        Up to 12 files that exist.

    Raises:
        RunError: When none of the chosen images is in the data folder any more.
    """
    predictions = run.predictions("val")
    correct = predictions.correct
    order = np.argsort(-predictions.losses, kind="stable")
    wrong = [row for row in order.tolist() if not correct[row]][: IMAGES // 2]
    surest: list[int] = []
    labels = predictions.labels
    queues = [
        [row for row in order[::-1].tolist() if correct[row] and labels[row] == label] for label in np.unique(labels)
    ]
    while len(surest) < IMAGES - len(wrong) and any(queues):
        surest += [queue.pop(0) for queue in queues if queue]
    rows = [*wrong, *surest[: IMAGES - len(wrong)]]
    root = run.root
    there = [root / predictions.paths[row] for row in rows if _is_known(root, predictions, row)]
    if not there:
        raise RunError(
            f"{run.path}: the validation images are missing from {root}, were changed, or are links out of it.",
            "Restore them, or give images to explain.",
        )
    return tuple(there)


def _is_known(root: Path, predictions: Predictions, row: int) -> bool:
    """Whether an image that was predicted is still there, inside the data folder and with the same content."""
    place = find_inside(root, predictions.paths[row])
    try:
        return place is not None and bool(read_known_bytes(place, predictions.ids[row]))
    except BadImage:
        return False


def _explain_images(bench: _Bench) -> Found:
    """Where the network looks, by each method, whether that can be believed, and the nearest training images."""
    run, asked, shown, context = bench.run, bench.asked, bench.pixels, bench.context
    engine = api.answering(run, shown, cache=context.cache, progress=context.progress)
    chances = run.task.to_probabilities(engine(shown))
    near = find_neighbours(run, bench.files, context, NEAREST)
    maps: dict[str, Attribution] = {}
    methods: dict[str, MethodTrust] = {}
    classes = None if asked.called is None else [asked.called] * len(shown)
    for method in asked.methods or bench.view.choose_methods():
        place = asked.places[0] if asked.places and method in AT_A_PLACE else None
        maps[method] = bench.view.attribute(shown, method, classes, place, engine, context.progress)
        methods[method] = _check_trust(bench, method, maps[method], engine)
    rows = _describe_images(run, bench.files, chances, near, maps)
    pictures = {"legend": make_png_uri(draw_legend())}
    pictures |= {
        f"image-{number}": make_data_uri(encode_jpeg(Image.fromarray(image))) for number, image in enumerate(shown)
    }
    pictures |= {
        f"{method}-{number}": make_data_uri(encode_jpeg(draw_overlay(image, found.maps[number])))
        for method, found in maps.items()
        for number, image in enumerate(shown)
    }
    pictures |= _make_thumbnails(run, {one.path for row in rows for one in row.near})
    return ImagesPart(rows=rows, methods=methods, chosen=not asked.files), pictures


def _describe_images(
    run: Run,
    files: Sequence[Path],
    chances: NDArray[np.float64],
    near: Sequence[Neighbours],
    maps: Mapping[str, Attribution],
) -> tuple[ExplainedImage, ...]:
    """What each image is called, from probabilities float64 [n, classes], and the training images like it."""
    data = run.dataset()
    names, truth = _list_label_names(data), _map_labels(data)
    explained = list(maps.values())[-1].classes
    return tuple(
        ExplainedImage(
            path=_show_path(run, path),
            label=truth.get(one.id),
            called=run.classes[int(chance.argmax())],
            probability=float(chance.max()),
            near=tuple(
                NearImage(path=like, label=names[label], likeness=float(likeness))
                for like, label, likeness in zip(one.paths, one.labels.tolist(), one.similarities, strict=True)
            ),
            maps={method: bool(found.empty[number]) for method, found in maps.items()},
            explained=run.classes[int(explained[number])],
        )
        for number, (path, one, chance) in enumerate(zip(files, near, chances, strict=True))
    )


def _check_trust(bench: _Bench, method: str, found: Attribution, engine: api.Answering) -> MethodTrust:
    """Whether a method's maps depend on what was learned, and whether the network goes by them."""
    from budwood.explain.deletion_insertion import measure_faithfulness

    sane = bench.view.check_sanity(bench.pixels, method, found.place, bench.context.progress, bench.seed)
    faith = measure_faithfulness(
        engine, bench.pixels, found, task=bench.run.task, seed=bench.seed, progress=bench.context.progress
    )
    return MethodTrust(
        place=found.place,
        errors=() if found.errors is None else tuple(float(error) for error in found.errors),
        likeness=sane.likeness[-1],
        unrelated=sane.unrelated,
        depends=sane.depends,
        deletion=faith.deletion.mean,
        insertion=faith.insertion.mean,
        gains={
            name: GainOverChance(value=one.value, low=one.low, high=one.high, n=one.n, p=one.p)
            for name, one in faith.gains.items()
        },
    )


def _explain_stages(bench: _Bench) -> Found:
    """The first of the images on its way through the stages."""
    from budwood.explain.activations import draw_strip, list_mapped_stages, make_strip

    run = bench.run
    if not list_mapped_stages(bench.subject):
        return StagesPart(path="", rows=(), left_out=()), {}
    found = make_strip(bench.subject, bench.view.fit(bench.pixels[:1])[0])
    before = bench.view.prefix
    rows = tuple(MappedStage(name=f"{before}{stage.name}", shape=tuple(stage.shape)) for stage in found.stages)
    pictures = {
        f"stage-{before}{stage.name}": make_png_uri(p) for stage, p in zip(found.stages, draw_strip(found), strict=True)
    }
    pictures["stages-image"] = make_data_uri(encode_jpeg(Image.fromarray(bench.pixels[0])))
    path = _show_path(run, bench.files[0])
    return StagesPart(path=path, rows=rows, left_out=tuple(found.left_out)), pictures


def _explain_filters(bench: _Bench) -> Found:
    """The filters of the layers that were asked for, else of the usual ones."""
    from budwood.explain.layer_parts import explain_filters

    path = _show_path(bench.run, bench.files[0])
    image = bench.view.fit(bench.pixels[:1])[0]
    return explain_filters(bench.subject, image, path, bench.layer_places, bench.view.prefix)


def _explain_maps(bench: _Bench) -> Found:
    """The feature maps of layers, of each network."""
    from budwood.explain.layer_parts import explain_maps

    paths = [_show_path(bench.run, path) for path in bench.mapped_files]
    return explain_maps(bench.networks, paths, bench.layer_places or CONVOLUTIONS, bench.asked.channels)


def _explain_units(bench: _Bench) -> Found:
    """What channels of layers look for, of each network."""
    from budwood.explain.layer_parts import explain_units

    places = bench.layer_places or CONVOLUTIONS
    return explain_units(bench.networks, places, bench.asked.channels, bench.context.progress, bench.seed)


def _explain_embedding(bench: _Bench) -> Found:
    """The validation images as points of a plane."""
    found = make_embedding(bench.run, bench.context)
    dots = sample_dots(found)
    thumbnails = make_small_pictures(bench.run.root, dots.paths, dots.ids, bench.run.value_range)
    part = EmbeddingPart(method=found.method, explained=found.explained, n=len(found), right=int(found.correct.sum()))
    return part, {"embedding": draw_scatter(found, bench.run.classes, thumbnails)}


def _explain_mistakes(bench: _Bench) -> Found:
    """The most confused pairs with examples, and the accuracy by slice."""
    run = bench.run
    found = find_slices(run, bench.context)
    slices = tuple(SliceScore.model_validate(one, from_attributes=True) for one in found)
    if run.task.multilabel:
        return MistakesPart(slices=slices, pairs=()), {}
    confused = find_confusions(run, bench.context)
    pairs = tuple(ConfusedClasses.model_validate(one, from_attributes=True) for one in confused)
    named = {path for pair in pairs for one in pair.examples for path in (one.path, one.like_path) if path}
    return MistakesPart(slices=slices, pairs=pairs), _make_thumbnails(run, named)


def _explain_label_errors(bench: _Bench) -> Found:
    """The images whose labels are suspected; the table to correct them by is written into the run's folder."""
    run = bench.run
    if run.task.multilabel:
        return UnjudgedLabels(reason="the images have several labels each"), {}
    try:
        found = find_suspects(run, bench.context)
    except (DataError, WeightsError) as error:  # as where there are fewer images than folds, or no trunk to judge by
        return UnjudgedLabels(reason=error.message.rstrip(".")), {}
    file = _choose_table_path(run.path / SUSPECTS)
    with raise_storage_errors(run.path):
        save_suspects(file, found)
    shown = found.rows[:SUSPECTS_SHOWN]
    part = JudgedLabels(
        reason="",
        file=str(file),
        rows=tuple(SuspectLabel.model_validate(one, from_attributes=True) for one in found.rows),
        threshold=found.threshold,
        suggested_threshold=found.suggested_threshold,
        why=found.why,
        expected=found.expected,
        n=found.n,
        not_judged=found.not_judged,
        folds=found.folds,
        accuracy=found.accuracy,
        trunk=found.trunk,
    )
    return part, _make_thumbnails(run, {one.path for one in shown})


def _choose_table_path(path: Path) -> Path:
    """That path, or the next one with a number, at which no table lies that somebody may have filled in."""
    number, free = 1, path
    while free.exists() and is_filled(free):
        number += 1
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return free


def _explain_classes(bench: _Bench) -> Found:
    """What each class looks for; of many classes the first ones."""
    bench.run.refuse_ensemble("pictures of its classes")
    from budwood.explain.feature_visualization import VisualizationTarget, maximise

    targets = [VisualizationTarget(None, number) for number in range(min(len(bench.run.classes), DRAWN))]
    found = maximise(bench.subject, targets, seed=bench.seed, progress=bench.context.progress)
    rows = tuple(
        DrawnClass(
            name=bench.run.classes[one.target.channel],
            before=one.before,
            after=one.after,
            noise=one.noise,
            flat=one.flat,
        )
        for one in found
    )
    pictures = {f"class-{n}": make_data_uri(encode_jpeg(Image.fromarray(one.pixels))) for n, one in enumerate(found)}
    return ClassesPart(rows=rows, left_out=len(bench.run.classes) - len(rows)), pictures


_MAKERS: Final[Mapping[str, Callable[[_Bench], Found]]] = {
    "images": _explain_images,
    "stages": _explain_stages,
    "filters": _explain_filters,
    "maps": _explain_maps,
    "units": _explain_units,
    "embedding": _explain_embedding,
    "mistakes": _explain_mistakes,
    "labels": _explain_label_errors,
    "classes": _explain_classes,
}


def _list_label_names(data: Dataset) -> list[str]:
    """What each label number means: a class, or several where images have several labels each."""
    task = task_of(data.label_sets, len(data.classes))
    return [task.name_label(number, data.classes) for number in range(len(data.label_sets or data.classes))]


def _map_labels(data: Dataset) -> dict[str, str]:
    """The class of each training and validation image by its id; none where images have several."""
    if task_of(data.label_sets, len(data.classes)).multilabel:
        return {}
    known = [(samples.ids, samples.labels.tolist()) for samples in (data.samples("train"), data.samples("val"))]
    return {id: data.classes[label] for ids, labels in known for id, label in zip(ids, labels, strict=True)}


def _show_path(run: Run, path: Path) -> str:
    """A path as it is shown: one of the run's own images as its data set has it."""
    root = run.root
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def _make_thumbnails(run: Run, paths: Collection[str]) -> dict[str, str]:
    """Small pictures of a run's images, by `file-` and their path; those that are gone or were changed have none."""
    root, id_of_path, scale = run.root, map_ids(run.dataset()), run.value_range
    made = {path: make_thumbnail(root, path, id_of_path.get(path), scale) for path in sorted(paths)}
    return {f"file-{path}": uri for path, uri in made.items() if uri}
