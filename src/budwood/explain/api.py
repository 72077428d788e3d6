"""What a run has learned, asked for in Python: each function answers with data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from budwood.data.dataset import Samples
from budwood.data.loading import Pixels, decode_sample
from budwood.errors import DataError, RecipeError, did_you_mean
from budwood.explain.confused_pairs import ConfusedPair, find_confusions
from budwood.explain.embeddings import Embedding, Method, Neighbours, find_neighbours, make_embedding, make_file_samples
from budwood.explain.label_errors import Suspects, find_suspects
from budwood.explain.subgroups import Slice, find_slices
from budwood.inference.engines import BATCH, choose_engine
from budwood.networks.plan import spec_of
from budwood.progress import Progress, Silent
from budwood.runs.networks import describe_run_weights, make_trunk, make_whole_network
from budwood.runs.run import Run
from budwood.storage.atomic import cache_folder, raise_storage_errors
from budwood.training.linear_head import compute_head_logits

if TYPE_CHECKING:
    from budwood.explain.activations import Maps, Strip
    from budwood.explain.convolutions import Filters
    from budwood.explain.deletion_insertion import Faithfulness
    from budwood.explain.feature_visualization import Maximisation
    from budwood.explain.heatmaps import Attribution
    from budwood.explain.probe import NetworkProbe
    from budwood.explain.sanity_checks import SanityCheck

Files = Sequence[str | Path]
Answering = Callable[[Pixels], NDArray[np.float32]]


def subject(run: Run, *, cache: Path | None = None) -> NetworkProbe:
    """The run's network as the modules `attribution`, `filters`, `feature_maps` and `maximisation` look at it."""
    from budwood.explain.probe import make_probe

    spec = spec_of(run.recipe, len(run.classes), describe_run_weights(run), cache or cache_folder())
    return make_probe(spec, run.classes)


def pixels(run: Run, images: Files | Samples, *, progress: Progress | None = None) -> Pixels:
    """Images as the run's network sees them before they are normalised: uint8 [n, size, size, 3].

    Raises `DataError` for files that do not exist or cannot be read, and where there is none.
    """
    samples = images if isinstance(images, Samples) else make_file_samples(images, progress or Silent())
    if not len(samples):
        raise DataError("No images were given.", "Give one or more image files.")
    size, resize = run.record.network.size, run.recipe.resize
    return np.stack([decode_sample(samples, row, size, resize) for row in range(len(samples))])


def answering(run: Run, some: Pixels, *, cache: Path | None = None, progress: Progress | None = None) -> Answering:
    """The run's network as predictions have it: from uint8 pixels [n, size, size, 3] to logits float32 [n, classes].

    The engine is checked on `some` real images where it has not been before.
    """
    cache, progress = cache or cache_folder(), progress or Silent()
    alone = run.record.trained == "head"
    with raise_storage_errors(cache):
        part = make_trunk(run, cache, progress) if alone else make_whole_network(run, cache)
        engine = choose_engine(part, lambda: some, len(some), progress)
    head = run.head() if alone else None

    def answer(images: Pixels) -> NDArray[np.float32]:
        blocks = [images[first : first + BATCH] for first in range(0, len(images), BATCH)]
        outputs = np.concatenate([engine.run(block) for block in blocks])
        return compute_head_logits(outputs, *head) if head else outputs

    return answer


def attribution(
    run: Run,
    images: Files,
    method: str = "layer-cam",
    *,
    classes: Sequence[int | str] | None = None,
    place: str | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Attribution:
    """What in each image speaks for a class (by default the likeliest): `grad-cam`, `layer-cam`,
    `integrated-gradients` or `occlusion`, as `attribution.attributed` has them."""
    from budwood.explain.saliency import compute_attribution

    shown = pixels(run, images, progress=progress)
    engine = answering(run, shown, cache=cache, progress=progress)
    opened = subject(run, cache=cache)
    return compute_attribution(opened, shown, method, classes, place, run=engine, task=run.task, progress=progress)


def sanity(
    run: Run,
    images: Files,
    method: str = "layer-cam",
    *,
    place: str | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> SanityCheck:
    """Whether a method's maps depend on what the network has learned: the weight randomisation test."""
    from budwood.explain.sanity_checks import check_sanity

    return check_sanity(
        subject(run, cache=cache), pixels(run, images, progress=progress), method, place, progress=progress
    )


def faithfulness(
    run: Run,
    images: Files,
    found: Attribution,
    *,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Faithfulness:
    """Whether the network goes by what an attribution of these images points at: deletion and insertion scores."""
    from budwood.explain.deletion_insertion import measure_faithfulness

    shown = pixels(run, images, progress=progress)
    engine = answering(run, shown, cache=cache, progress=progress)
    return measure_faithfulness(engine, shown, found, task=run.task, progress=progress)


def filters(run: Run, layer: str | None = None, *, cache: Path | None = None) -> Filters:
    """The weights of a convolution (None: the first) to be looked at, with those that are dead or doubled."""
    from budwood.explain.convolutions import read_filters

    return read_filters(subject(run, cache=cache), layer)


def feature_maps(run: Run, images: Files, name: str, *, cache: Path | None = None) -> Maps:
    """What a stage, or a layer by its full name, makes of images."""
    from budwood.explain.activations import read_maps

    return read_maps(subject(run, cache=cache), pixels(run, images), name)


def seen_through(
    run: Run, image: str | Path, layer: str, numbers: Sequence[int], *, cache: Path | None = None
) -> NDArray[np.float32]:
    """An image after chosen filters of a convolution: float32 [len(numbers), height, width]."""
    from budwood.explain.activations import filter_image

    return filter_image(subject(run, cache=cache), pixels(run, [image])[0], layer, numbers)


def strip(run: Run, image: str | Path, *, cache: Path | None = None) -> Strip:
    """An image on its way through the network: of each stage the maps that vary most."""
    from budwood.explain.activations import make_strip

    return make_strip(subject(run, cache=cache), pixels(run, [image])[0])


def maximised(
    run: Run,
    classes: Sequence[str] | None = None,
    *,
    place: str | None = None,
    channels: Sequence[int] = (),
    cache: Path | None = None,
    progress: Progress | None = None,
) -> tuple[Maximisation, ...]:
    """Pictures that a class answers most to (None: every class), or with `place` the channels of a stage.

    Raises `RecipeError` for a class, a stage or a channel that does not exist.
    """
    from budwood.explain.feature_visualization import VisualizationTarget, maximise

    opened = subject(run, cache=cache)
    if place is not None:
        from budwood.explain.probe import find_place

        where = find_place(opened, place)
        return maximise(opened, [VisualizationTarget(where, channel) for channel in channels], progress=progress)
    names = run.classes if classes is None else classes
    for name in names:
        if name not in run.classes:
            raise RecipeError(f"classes: there is no class {name!r}.", did_you_mean(name, run.classes))
    return maximise(opened, [VisualizationTarget(None, run.classes.index(name)) for name in names], progress=progress)


def embedding(
    run: Run,
    split: str = "val",
    method: Method = "pca",
    *,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Embedding:
    """The images of a split as points of a plane, by the features that the network's head is given."""
    return make_embedding(run, split, method, cache=cache, progress=progress)


def neighbours(
    run: Run, images: Files, k: int = 5, *, cache: Path | None = None, progress: Progress | None = None
) -> list[Neighbours]:
    """The training images that the network finds most like each image."""
    return find_neighbours(run, images, k, cache=cache, progress=progress)


def slices(run: Run, *, cache: Path | None = None, progress: Progress | None = None) -> tuple[Slice, ...]:
    """The accuracy on validation images that share a property: brightness, size, shape, group."""
    return find_slices(run, cache=cache, progress=progress)


def confusions(run: Run, *, cache: Path | None = None, progress: Progress | None = None) -> tuple[ConfusedPair, ...]:
    """The most confused pairs of classes on validation, with examples."""
    return find_confusions(run, cache=cache, progress=progress)


def suspects(
    run: Run, threshold: float | None = None, *, cache: Path | None = None, progress: Progress | None = None
) -> Suspects:
    """The training and validation images whose labels are suspected, by out-of-fold predictions."""
    return find_suspects(run, threshold, cache=cache, progress=progress)
