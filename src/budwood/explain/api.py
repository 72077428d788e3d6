"""What a run has learned, asked for in Python: each function answers with data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
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
from budwood.networks.plan import spec_of
from budwood.progress import Progress, Silent
from budwood.runs.ensembles import find_member
from budwood.runs.networks import describe_run_weights
from budwood.runs.predictor import make_predictor
from budwood.runs.run import AnyRun, open_any_run
from budwood.storage.atomic import cache_folder
from budwood.storage.context import open_context

if TYPE_CHECKING:
    from budwood.explain.activations import Maps, Strip
    from budwood.explain.convolutions import Filters
    from budwood.explain.deletion_insertion import Faithfulness
    from budwood.explain.feature_visualization import Maximisation
    from budwood.explain.heatmaps import Attribution
    from budwood.explain.probe import NetworkProbe
    from budwood.explain.sanity_checks import SanityCheck
    from budwood.explain.side_by_side import LayerMaps, LayerUnits
    from budwood.networks.layers import Layer

Files = Sequence[str | Path]
Answering = Callable[[Pixels], NDArray[np.float32]]


def subject(run: AnyRun, *, cache: Path | None = None) -> NetworkProbe:
    """Open the run's network for the other functions of `budwood.explain`.

    `attribution`, `filters`, `feature_maps` and `maximised` work on the modules that it holds.

    Args:
        run: The run, or its path or name.
        cache: Cache folder; None for the usual one.

    Returns:
        The network with its weights, in evaluation mode.
    """
    from budwood.explain.probe import make_probe

    run = open_any_run(run)
    run.refuse_ensemble("its layers")
    spec = spec_of(run.recipe, len(run.classes), describe_run_weights(run), cache or cache_folder())
    return make_probe(spec, run.classes)


def pixels(run: AnyRun, images: Files | Samples, *, progress: Progress | None = None) -> Pixels:
    """Read images as the run's network sees them before they are normalised.

    Args:
        run: The run, or its path or name; its recipe says how images are resized.
        images: Image files, or samples of a data set.
        progress: Where progress is shown; None for nowhere.

    Returns:
        uint8 [n, size, size, 3].

    Raises:
        DataError: When there is no image, or a file does not exist, cannot be read or was changed since it was
            scanned.
    """
    run = open_any_run(run)
    scale = run.value_range
    samples = images if isinstance(images, Samples) else make_file_samples(images, progress or Silent(), scale)
    samples = replace(samples, value_range=scale)
    if not len(samples):
        raise DataError("No images were given.", "Give one or more image files.")
    size, resizing = run.record.network.size, run.recipe.resizing
    return np.stack([decode_sample(samples, row, size, resizing) for row in range(len(samples))])


def answering(run: AnyRun, some: Pixels, *, cache: Path | None = None, progress: Progress | None = None) -> Answering:
    """Make a function that computes the run's logits as its predictions do, without test-time augmentation.

    The engine is checked on `some` real images where that has not been done before.

    Args:
        run: The run, or its path or name.
        some: Real images for that check, uint8 [n, size, size, 3].
        cache: Cache folder; None for the usual one.
        progress: Where progress is shown; None for nowhere.

    Returns:
        A function from pixels uint8 [n, size, size, 3] to logits float32 [n, classes].

    Raises:
        StorageError: When the cache cannot be written.
    """
    predictor = make_predictor(open_any_run(run), open_context(cache, progress))
    predictor.load(lambda: some)
    return predictor.compute_logits


def attribution(
    run: AnyRun,
    images: Files,
    method: str = "layer-cam",
    *,
    classes: Sequence[int | str] | None = None,
    place: str | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Attribution:
    """Find what in each image speaks for a class.

    See `budwood.explain.saliency.compute_attribution` for the methods.

    Args:
        run: The run, or its path or name.
        images: Image files.
        method: `grad-cam`, `layer-cam`, `integrated-gradients` or `occlusion`.
        classes: Number or name of a class for each image; None for the likeliest.
        place: Stage whose map is used, for `grad-cam` and `layer-cam`; None to choose it by the network.
        cache: Cache folder; None for the usual one.
        progress: Where progress is shown; None for nowhere.

    Returns:
        Maps float32 [n, size, size] of 0 to 1, with the classes and their probabilities.

    Raises:
        DataError: When there is no image or a file cannot be read.
        RecipeError: When the method, a class or the place does not exist, or the place gives no map.
    """
    from budwood.explain.run_views import open_view

    run = open_any_run(run)
    shown = pixels(run, images, progress=progress)
    engine = answering(run, shown, cache=cache, progress=progress)
    view = open_view(run, cache or cache_folder())
    return view.attribute(shown, method, classes, place, engine, progress or Silent())


def sanity(
    run: AnyRun,
    images: Files,
    method: str = "layer-cam",
    *,
    place: str | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> SanityCheck:
    """Test whether a method's maps depend on the learned weights (weight randomisation test).

    Args:
        run: The run, or its path or name.
        images: Image files.
        method: Method of attribution, as for `attribution`.
        place: Stage whose map is used; None to choose it by the network.
        cache: Cache folder; None for the usual one.
        progress: Where progress is shown; None for nowhere.

    Returns:
        The rank correlations of the maps with those of ever more random weights, and the verdict.

    Raises:
        DataError: When there is no image or a file cannot be read.
        RecipeError: When the method or the place does not exist, or the place gives no map.
    """
    from budwood.explain.sanity_checks import check_sanity

    run, place = find_member(open_any_run(run), place, "place")
    return check_sanity(
        subject(run, cache=cache), pixels(run, images, progress=progress), method, place, progress=progress
    )


def faithfulness(
    run: AnyRun,
    images: Files,
    found: Attribution,
    *,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Faithfulness:
    """Measure by deletion and insertion whether the network relies on what an attribution highlights.

    Args:
        run: The run, or its path or name.
        images: The image files that `found` was computed for, in the same order.
        found: Attribution of these images.
        cache: Cache folder; None for the usual one.
        progress: Where progress is shown; None for nowhere.

    Returns:
        Deletion and insertion curves, those of randomly moved maps, and the gains over them.

    Raises:
        DataError: When there is no image or a file cannot be read.
    """
    from budwood.explain.deletion_insertion import measure_faithfulness

    run = open_any_run(run)
    shown = pixels(run, images, progress=progress)
    engine = answering(run, shown, cache=cache, progress=progress)
    return measure_faithfulness(engine, shown, found, task=run.task, progress=progress)


def filters(run: AnyRun, layer: str | None = None, *, cache: Path | None = None) -> Filters:
    """Read the weights of a convolution, and find its dead and duplicate filters.

    Args:
        run: The run, or its path or name.
        layer: Full name of the convolution; None for the first one.
        cache: Cache folder; None for the usual one.

    Returns:
        The filters, float32 [out, in, height, width], with their norms and the order in which to show them.

    Raises:
        RecipeError: When the network has no convolution, or the layer is none.
    """
    from budwood.explain.convolutions import read_filters

    run, layer = find_member(open_any_run(run), layer, "layer")
    return read_filters(subject(run, cache=cache), layer)


def feature_maps(run: AnyRun, images: Files, name: str, *, cache: Path | None = None) -> Maps:
    """Compute the feature maps of images after any layer.

    Args:
        run: The run, or its path or name.
        images: Image files.
        name: The layer: its name as `layers` lists it, such as `features.denseblock3.denselayer5`; `layer 25` for
            the 25th; `first` or `last` for that convolution; `relu#1` for the first run of a module that is run
            several times, `relu` for the last.
        cache: Cache folder; None for the usual one.

    Returns:
        Maps float32 [n, channels, height, width], with two statistics of each channel.

    Raises:
        DataError: When there is no image or a file cannot be read.
        RecipeError: When the network runs no such layer, or its output is no map.
    """
    from budwood.explain.activations import read_maps

    run, place = find_member(open_any_run(run), name, "name")
    return read_maps(subject(run, cache=cache), pixels(run, images), place or name)


def layers(run: AnyRun, *, cache: Path | None = None) -> tuple[Layer, ...]:
    """List all layers of the run's network in the order in which it runs them for an image.

    Args:
        run: The run, or its path or name.
        cache: Cache folder; None for the usual one.

    Returns:
        The layers, with their names, numbers and the shapes of their outputs.
    """
    from budwood.explain.layer_outputs import list_probe_layers

    return list_probe_layers(subject(run, cache=cache))


def maps_beside(
    run: AnyRun,
    beside: Sequence[AnyRun],
    images: Files,
    place: str,
    *,
    channels: Sequence[int] = (),
    cache: Path | None = None,
    progress: Progress | None = None,
) -> tuple[LayerMaps, ...]:
    """Compute the feature maps of one layer in the run's network and in others, on the same images.

    Args:
        run: The run, or its path or name.
        beside: Other runs or their names, `start` (the network before training) or `imagenet` (with ImageNet weights).
        images: Image files.
        place: The layer, as for `feature_maps`.
        channels: Numbers of the channels, from 0; none for the 12 that vary most in the run's network.
        cache: Cache folder; None for the usual one.
        progress: Where progress is shown; None for nowhere.

    Returns:
        The maps of each network, that of the run first.

    Raises:
        DataError: When there is no image or a file cannot be read.
        RecipeError: When a network has no such layer or channel, or no map there.
        WeightsError: When the weights before training cannot be found.
    """
    from budwood.explain.side_by_side import compare_maps, open_beside

    return compare_maps(open_beside(open_any_run(run), beside, images, open_context(cache, progress)), place, channels)


def maximised_beside(
    run: AnyRun,
    beside: Sequence[AnyRun],
    images: Files,
    place: str,
    *,
    channels: Sequence[int] = (),
    cache: Path | None = None,
    progress: Progress | None = None,
) -> tuple[LayerUnits, ...]:
    """Draw what channels of one layer look for in the run's network and in others.

    Args:
        run: The run, or its path or name.
        beside: Other runs or their names, `start` (the network before training) or `imagenet` (with ImageNet weights).
        images: Image files, by which channels are chosen.
        place: The layer, as for `feature_maps`.
        channels: Numbers of the channels, from 0; none for the 6 that vary most in the run's network.
        cache: Cache folder; None for the usual one.
        progress: Where progress is shown; None for nowhere.

    Returns:
        The pictures of each network, that of the run first.

    Raises:
        DataError: When there is no image or a file cannot be read.
        RecipeError: When a network has no such layer or channel.
        WeightsError: When the weights before training cannot be found.
    """
    from budwood.explain.side_by_side import compare_units, open_beside

    run, context = open_any_run(run), open_context(cache, progress)
    return compare_units(open_beside(run, beside, images, context), place, channels, progress=context.progress)


def seen_through(
    run: AnyRun, image: str | Path, layer: str, numbers: Sequence[int], *, cache: Path | None = None
) -> NDArray[np.float32]:
    """Compute an image's output after chosen filters of a convolution.

    Args:
        run: The run, or its path or name.
        image: Image file.
        layer: Full name of the convolution.
        numbers: Numbers of the filters, from 0.
        cache: Cache folder; None for the usual one.

    Returns:
        float32 [len(numbers), height, width], before any batch norm or activation.

    Raises:
        DataError: When the file cannot be read.
        RecipeError: When the layer is no convolution or has no filter of such a number.
    """
    from budwood.explain.activations import filter_image

    run, name = find_member(open_any_run(run), layer, "layer")
    return filter_image(subject(run, cache=cache), pixels(run, [image])[0], name or layer, numbers)


def strip(run: AnyRun, image: str | Path, *, cache: Path | None = None) -> Strip:
    """Collect an image's most varied maps at each stage along the network.

    Args:
        run: The run, or its path or name.
        image: Image file.
        cache: Cache folder; None for the usual one.

    Returns:
        Up to 8 stages with their maps, and the names of those left out.

    Raises:
        DataError: When the file cannot be read.
        RecipeError: When no stage of the network gives a map.
    """
    from budwood.explain.activations import make_strip

    return make_strip(subject(run, cache=cache), pixels(run, [image])[0])


def maximised(
    run: AnyRun,
    classes: Sequence[str] | None = None,
    *,
    place: str | None = None,
    channels: Sequence[int] = (),
    cache: Path | None = None,
    progress: Progress | None = None,
) -> tuple[Maximisation, ...]:
    """Draw the pictures that classes, or channels of a layer, respond to most strongly.

    Args:
        run: The run, or its path or name.
        classes: Names of classes; None for every class.
        place: Layer whose channels are drawn instead of classes, named as for `feature_maps`; None for classes.
        channels: Numbers of the channels of `place`, from 0; one at least.
        cache: Cache folder; None for the usual one.
        progress: Where progress is shown; None for nowhere.

    Returns:
        One picture for each class or channel, in the order asked for.

    Raises:
        RecipeError: When a class, the layer or a channel does not exist, or classes and channels are mixed.
    """
    from budwood.explain.feature_visualization import VisualizationTarget, maximise

    _refuse_mixed_targets(classes, place, channels)

    run, place = find_member(open_any_run(run), place, "place")
    opened = subject(run, cache=cache)
    if place is not None:
        return maximise(opened, [VisualizationTarget(place, channel) for channel in channels], progress=progress)
    names = run.classes if classes is None else classes
    for name in names:
        if name not in run.classes:
            raise RecipeError(f"classes: there is no class {name!r}.", did_you_mean(name, run.classes))
    return maximise(opened, [VisualizationTarget(None, run.classes.index(name)) for name in names], progress=progress)


def _refuse_mixed_targets(classes: Sequence[str] | None, place: str | None, channels: Sequence[int]) -> None:
    """Raises `RecipeError` where neither classes alone are asked for, nor channels of a layer."""
    if place is None and channels:
        raise RecipeError("channels: expected the layer that they are of beside them.", "Give place.")
    if place is not None and not channels:
        raise RecipeError(f"channels: expected numbers of channels of {place!r}, found none.", "Example: channels=[0].")
    if place is not None and classes is not None:
        raise RecipeError("classes: cannot be drawn beside the channels of a layer.", "Leave out classes, or place.")


def embedding(
    run: AnyRun,
    split: str = "val",
    method: Method = "pca",
    *,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Embedding:
    """Place the images of a split in a plane by the features that the network's head receives.

    Args:
        run: The run, or its path or name.
        split: `train`, `val`, or `test` once it has been opened.
        method: `pca` or `umap`.
        cache: Cache folder; None for the usual one.
        progress: Where progress is shown; None for nowhere.

    Returns:
        Points float64 [n, 2] with ids, paths, labels and predicted classes.

    Raises:
        RunError: When the split or method does not exist, the test split is sealed, or UMAP is not installed.
        DataError: When an image was changed since it was scanned.
    """
    return make_embedding(open_any_run(run), open_context(cache, progress), split, method)


def neighbours(
    run: AnyRun, images: Files, k: int = 5, *, cache: Path | None = None, progress: Progress | None = None
) -> list[Neighbours]:
    """Find the training images that the network finds most similar to each image.

    Args:
        run: The run, or its path or name.
        images: Image files.
        k: Number of neighbours, from 1.
        cache: Cache folder; None for the usual one.
        progress: Where progress is shown; None for nowhere.

    Returns:
        The neighbours of each image, nearest first.

    Raises:
        DataError: When a file is missing or cannot be decoded.
        RunError: When `k` is below 1.
    """
    return find_neighbours(open_any_run(run), images, open_context(cache, progress), k)


def slices(run: AnyRun, *, cache: Path | None = None, progress: Progress | None = None) -> tuple[Slice, ...]:
    """Measure the accuracy on validation images that share a property.

    The properties are brightness, size, shape (aspect) and group.

    Args:
        run: The run, or its path or name.
        cache: Cache folder; None for the usual one.
        progress: Where progress is shown; None for nowhere.

    Returns:
        The slices, each compared with the rest of the images.
    """
    return find_slices(open_any_run(run), open_context(cache, progress))


def confusions(run: AnyRun, *, cache: Path | None = None, progress: Progress | None = None) -> tuple[ConfusedPair, ...]:
    """Find the most confused pairs of classes on validation, with examples.

    Args:
        run: The run, or its path or name.
        cache: Cache folder; None for the usual one.
        progress: Where progress is shown; None for nowhere.

    Returns:
        The pairs, most frequent first.

    Raises:
        RunError: When images have several labels each.
    """
    return find_confusions(open_any_run(run), open_context(cache, progress))


def suspects(
    run: AnyRun, threshold: float | None = None, *, cache: Path | None = None, progress: Progress | None = None
) -> Suspects:
    """Find the training and validation images with suspect labels, by out-of-fold predictions.

    Args:
        run: The run, or its path or name.
        threshold: Highest probability of its label, 0 to 1, at which an image is named; None to choose it.
        cache: Cache folder; None for the usual one.
        progress: Where progress is shown; None for nowhere.

    Returns:
        The suspects, the least probable label first, and how they were found.

    Raises:
        RunError: When images have several labels each, the threshold is out of range, or the weights that the run
            started from are not on this machine.
        DataError: When there are fewer clusters of images than folds.
    """
    return find_suspects(open_any_run(run), open_context(cache, progress), threshold)
