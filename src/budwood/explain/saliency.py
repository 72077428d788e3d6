"""What in an image speaks for a class: Grad-CAM, LayerCAM, integrated gradients and occlusion.

In every method what speaks for a class raises its logit, before any softmax. The network is looked at as `subject` has
it, without hooks: maps are the outputs of its part up to a place, and their gradients those of the part from there on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn
from torch.nn import functional as F

from budwood.data.blocks import split_blocks
from budwood.data.loading import Pixels
from budwood.errors import RecipeError, did_you_mean
from budwood.evaluation.label_task import LabelTask, SingleLabel
from budwood.explain.heatmaps import AT_A_PLACE, Attribution, Maps, fill_mean_colour, refuse_unknown_method, scale_maps
from budwood.explain.probe import (
    FEWEST,
    NetworkProbe,
    default_place,
    eval_mode,
    find_place,
    list_map_sides,
    list_places,
    reshape_to_maps,
    slice_probe,
)
from budwood.inference.engines import BATCH, InferenceFn
from budwood.progress import Progress, choose_progress

FINE: Final = 16  # pixels that a cell is wide at most
STEPS: Final = 24  # points between an image of its mean colour and the image itself
SMOOTHING: Final = 1 / 32  # standard deviation as a share of the side: 7 pixels of 224
STRIDES: Final = 14  # that an occluding square takes across an image; it is two of them wide

Classes = NDArray[np.int64]
Raw = tuple[Maps, NDArray[np.float32] | None]
Cam = Callable[[Tensor, Tensor], Tensor]  # of maps and gradients [n, channels, side, side]


def compute_attribution(
    subject: NetworkProbe,
    pixels: Pixels,
    method: str = "layer-cam",
    classes: Sequence[int | str] | None = None,
    place: str | None = None,
    *,
    run: InferenceFn | None = None,
    task: LabelTask | None = None,
    progress: Progress | None = None,
) -> Attribution:
    """Compute what in each image speaks for a class.

    `grad-cam`: a map's channels weighted by their mean gradient (Selvaraju et al. 2017). `layer-cam`: each cell
    weighted by its own gradient where that is positive, which suits earlier places, whose maps are finer (Jiang et
    al. 2021). `integrated-gradients`: gradients integrated from an image of the mean colour to the image
    (Sundararajan et al. 2017), then smoothed. `occlusion`: how much a logit falls when a square has the mean colour
    (Zeiler and Fergus 2014).

    Args:
        subject: Opened network.
        pixels: Images, uint8 [n, size, size, 3].
        method: One of the four above.
        classes: Number or name of a class for each image; None for the likeliest.
        place: Stage that the first two methods look at; None for `default_place` (Grad-CAM) or `find_finest_place`
            (LayerCAM).
        run: From pixels uint8 to logits float32 [n, classes]; None for PyTorch. An engine is several times as fast
            at occlusion.
        task: Whether images have one label or several, which decides how logits become probabilities; None for one.
        progress: Where progress is shown; None: below the cell of a notebook, else nowhere.

    Returns:
        Maps float32 [n, size, size] of 0 to 1, with the classes and their probabilities.

    Raises:
        RecipeError: When the method, a class or the place does not exist, the place gives no map or the method uses
            none, or there is not one class for each image.
    """
    refuse_unknown_method(method)
    where, run = choose_place(subject, method, place), run or make_eager_inference(subject)
    wanted = None if classes is None else _number_classes(subject, classes, len(pixels))
    logits = run(pixels)
    explained = logits.argmax(axis=1).astype(np.int64) if wanted is None else wanted
    task = task or SingleLabel(logits.shape[1])
    chances = task.to_probabilities(logits)[np.arange(len(pixels)), explained]
    raw, errors = _compute_raw(subject, pixels, explained, method, where, run, progress or choose_progress())
    return Attribution(method, where, explained, chances.astype(np.float32), *scale_maps(raw), errors)


def choose_default_methods(subject: NetworkProbe) -> tuple[str, ...]:
    """Choose the usual methods of attribution for a network.

    LayerCAM is fine; Grad-CAM is coarse and easier to read.

    Args:
        subject: Opened network.

    Returns:
        LayerCAM and Grad-CAM; occlusion alone for a network none of whose stages gives a map.
    """
    return ("layer-cam", "grad-cam") if list_map_sides(subject) else ("occlusion",)


def compute_raw_maps(
    subject: NetworkProbe, pixels: Pixels, classes: Classes, method: str, place: str | None, progress: Progress
) -> Maps:
    """Compute the maps of a method before they are scaled.

    Args:
        subject: Opened network.
        pixels: Images, uint8 [n, size, size, 3].
        classes: The class to explain of each image, int64 [n].
        method: Name of the method, of `METHODS`.
        place: Full name of the place; None for a method that needs none.
        progress: Where progress is shown.

    Returns:
        float32 [n, size, size], at least 0.
    """
    return _compute_raw(subject, pixels, classes, method, place, make_eager_inference(subject), progress)[0]


def choose_place(subject: NetworkProbe, method: str, place: str | None) -> str | None:
    """Choose the place that a method looks at.

    Args:
        subject: Opened network.
        method: Name of the method, of `METHODS`.
        place: Name of a stage or the end of its name; None to choose it.

    Returns:
        The full name of the place; None for a method that needs none.

    Raises:
        RecipeError: When the place does not exist or gives no map, or the method does not use a place.
    """
    if method not in AT_A_PLACE:
        if place is not None:
            raise RecipeError(
                f"place: {method} uses the image itself, not the stage {place!r}.",
                f"Leave out place, or choose {' or '.join(AT_A_PLACE)}.",
            )
        return None
    if place is None:
        return default_place(subject) if method == "grad-cam" else find_finest_place(subject)
    name = find_place(subject, place)
    maps = list_map_sides(subject)
    if name not in maps:
        raise RecipeError(
            f"place: {name!r} of {subject.plan.name} gives no map of {FEWEST} x {FEWEST} cells or more.",
            f"Places with a map: {', '.join(maps)}." if maps else "Choose integrated-gradients or occlusion.",
        )
    return name


def find_finest_place(subject: NetworkProbe) -> str:
    """Find the last place whose cells are at most `FINE` pixels wide, no later than `default_place`.

    Where a network has none, such as a transformer of larger patches, it is `default_place`.

    Args:
        subject: Opened network.

    Returns:
        The full name of the place.

    Raises:
        RecipeError: When no stage gives a map.
    """
    target = default_place(subject)
    sides = {place.name: place.side or 0 for place in list_places(subject)}
    names = list(sides)
    fine = [name for name in names[: names.index(target) + 1] if sides[name] * FINE >= subject.plan.size]
    return fine[-1] if fine else target


def _compute_raw(
    subject: NetworkProbe,
    pixels: Pixels,
    classes: Classes,
    method: str,
    place: str | None,
    run: InferenceFn,
    progress: Progress,
) -> Raw:
    """The maps of a method, and its errors where it has some."""
    if method == "integrated-gradients":
        return _integrate_gradients(subject, pixels, classes, progress)
    if method == "occlusion":
        return _occlude(run, pixels, classes, progress), None
    assert place is not None
    return _compute_cam(subject, pixels, classes, _CAMS[method], place), None


def make_eager_inference(subject: NetworkProbe) -> InferenceFn:
    """Make a function that computes logits by PyTorch itself.

    Args:
        subject: Opened network.

    Returns:
        A function from pixels uint8 [n, size, size, 3] to logits float32 [n, classes].
    """

    def run(pixels: Pixels) -> NDArray[np.float32]:
        with eval_mode(subject) as module, torch.inference_mode():
            answers = [
                module(subject.images(pixels[rows])).float().cpu().numpy() for rows in split_blocks(len(pixels), BATCH)
            ]
        return np.concatenate([np.empty((0, len(subject.classes)), np.float32), *answers])

    return run


def _compute_cam(subject: NetworkProbe, pixels: Pixels, classes: Classes, cam: Cam, place: str) -> Maps:
    """What a method makes of the map at a place and of its gradient, enlarged to the size of the images."""
    size = pixels.shape[1]
    found = np.zeros((len(pixels), size, size), np.float32)
    with eval_mode(subject):
        before, after = slice_probe(subject, None, place), slice_probe(subject, place, None)
        for rows in split_blocks(len(pixels), BATCH):
            with torch.no_grad():
                values = before(subject.images(pixels[rows]))
            values = values.detach().clone().requires_grad_()  # what follows may work in place
            logits = after(values.clone())
            chosen = torch.from_numpy(classes[rows]).to(logits.device)
            (gradient,) = torch.autograd.grad(logits.gather(1, chosen[:, None]).sum(), values)
            maps, slopes = reshape_to_maps(values.detach()), reshape_to_maps(gradient)
            assert maps is not None
            assert slopes is not None
            cells = F.relu(cam(maps, slopes).sum(dim=1, keepdim=True))
            large = F.interpolate(cells.float(), (size, size), mode="bilinear", align_corners=False)
            found[rows] = large[:, 0].cpu().numpy()
    return found


def _weigh_grad_cam(maps: Tensor, slopes: Tensor) -> Tensor:
    return maps * slopes.mean(dim=(2, 3), keepdim=True)


def _weigh_layer_cam(maps: Tensor, slopes: Tensor) -> Tensor:
    return maps * F.relu(slopes)


_CAMS: Final[dict[str, Cam]] = {"grad-cam": _weigh_grad_cam, "layer-cam": _weigh_layer_cam}


def _integrate_gradients(subject: NetworkProbe, pixels: Pixels, classes: Classes, progress: Progress) -> Raw:
    """Integrated gradients, summed over channels and smoothed, and how far their sum is from what it should be."""
    size = pixels.shape[1]
    found = np.zeros((len(pixels), size, size), np.float32)
    errors = np.zeros(len(pixels), np.float32)
    with eval_mode(subject) as module, progress.bar("Integrated gradients", len(pixels)) as step:
        for row, chosen in enumerate(classes.tolist()):
            image, start = subject.images(pixels[[row]]), subject.images(fill_mean_colour(pixels[[row]]))
            parts, errors[row] = integrate_gradients(module, image, start, chosen, STEPS)
            signed = parts[0].sum(dim=0).float().cpu().numpy()
            found[row] = np.maximum(gaussian_filter(signed, size * SMOOTHING), 0)
            step(1)
    return found, errors


def integrate_gradients(
    module: nn.Module, image: Tensor, start: Tensor, chosen: int, steps: int
) -> tuple[Tensor, float]:
    """Integrate the gradient of a logit along the line from one image to another (Sundararajan et al. 2017).

    The integral is computed by Gauss-Legendre quadrature; few points are enough, as the gradient changes smoothly
    between them.

    Args:
        module: From normalised images to logits [n, classes].
        image: The image that is explained, float32 [1, channels, size, size].
        start: Where the line begins, of the same shape.
        chosen: Number of the class.
        steps: Points on the line.

    Returns:
        What each value of the image adds to the logit, of the image's shape; and how far the sum of that is from
        the difference of the logits at the two ends (0 if the integral were exact).
    """
    nodes, weights = (torch.from_numpy(values).to(image) for values in np.polynomial.legendre.leggauss(steps))
    path = (start + (1 + nodes).reshape(-1, 1, 1, 1) / 2 * (image - start)).requires_grad_()
    (gradients,) = torch.autograd.grad(module(path.clone())[:, chosen].sum(), path)  # what follows may work in place
    parts = (image - start) * (weights.reshape(-1, 1, 1, 1) / 2 * gradients).sum(dim=0, keepdim=True)
    with torch.no_grad():
        rise = module(image.clone())[0, chosen] - module(start.clone())[0, chosen]
    return parts, abs(float(parts.sum() - rise))


def _occlude(run: InferenceFn, pixels: Pixels, classes: Classes, progress: Progress) -> Maps:
    """How much the logit falls when a square has the mean colour: the mean over the squares that a pixel lies in."""
    n, size = pixels.shape[:2]
    squares = _list_squares(size)
    pairs = [(row, square) for row in range(n) for square in squares]
    without, whole = fill_mean_colour(pixels), run(pixels)[np.arange(n), classes]
    total, covered = np.zeros((n, size, size), np.float32), np.zeros((size, size), np.float32)
    for square in squares:
        covered[square] += 1
    with progress.bar("Occlusion", len(pairs)) as step:
        for block in split_blocks(len(pairs), BATCH):
            some = pairs[block]
            shown = pixels[[row for row, _ in some]]
            for image, (row, square) in zip(shown, some, strict=True):
                image[square] = without[row][square]
            for (row, square), logits in zip(some, run(shown), strict=True):
                total[row][square] += whole[row] - logits[classes[row]]
            step(len(some))
    return np.asarray(np.maximum(total / covered, 0))


def _list_squares(size: int) -> list[tuple[slice, slice]]:
    """The squares that are occluded, one after the other; those at the end may be cut off by the edge."""
    stride = max(1, round(size / STRIDES))
    starts = range(0, size - stride, stride)
    spans = [slice(start, min(start + 2 * stride, size)) for start in starts]
    return [(down, across) for down in spans for across in spans]


def _number_classes(subject: NetworkProbe, classes: Sequence[int | str], n: int) -> Classes:
    """The classes that are asked for, one an image, as numbers."""
    if len(classes) != n:
        raise RecipeError(f"classes: found {len(classes)} for {n} images.", "Give one class for each image.")
    return np.array([_find_class_number(subject, one) for one in classes], np.int64)


def _find_class_number(subject: NetworkProbe, asked: int | str) -> int:
    """A class's number, by that number or its name."""
    names = subject.classes
    if isinstance(asked, str):
        if asked not in names:
            raise RecipeError(f"classes: there is no class {asked!r}.", did_you_mean(asked, names))
        return names.index(asked)
    if not 0 <= asked < len(names):
        raise RecipeError(
            f"classes: there is no class {asked}: they are numbered 0 to {len(names) - 1}.",
            did_you_mean(str(asked), names),
        )
    return int(asked)
