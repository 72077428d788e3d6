"""Transforms of the user's own, each called as it asks to be: on a batch, or image by image, as tensors, arrays or PIL.

Which call it is follows from what it is and what its arguments are called, as `config/own_calls.py` tells them apart:

    (images, generator)   float32 [n, 3, height, width] from 0 to 255, and a `torch.Generator`
    (images) or (batch)   uint8 [n, 3, height, width]
    (*, image)            uint8 array [height, width, 3], as for Albumentations; it may give a dict with `image`
    a module of PyTorch   uint8 [3, height, width], as torchvision's v2
    anything else         an image of PIL, in RGB

Each of the last four has all random numbers of Python, NumPy and PyTorch seeded, an image (or batch) at a time.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from budwood.config.augmentations import OwnAugmentation
from budwood.config.own_calls import takes_batch, takes_generator, takes_keyword
from budwood.config.registry import import_entry, make_entry
from budwood.errors import RecipeError
from budwood.training.own_calls import telling_failures

Change = Callable[..., Any]
SEEDS: Final = 2**32  # numbers that NumPy takes as a seed
OF_BATCHES: Final = "Return a batch of the shape of the one that it is given, with finite values from 0 to 255."
OF_IMAGES: Final = (
    "Return an image of the size of the one that it is given, in whole values from 0 to 255; leave out what resizes, "
    "scales to 1 or normalises: Budwood does that."
)


def apply_own(own: OwnAugmentation, pictures: Tensor, seeds: NDArray[np.int64]) -> Tensor:
    """Apply a transform of the user's own to a batch.

    Args:
        own: Its name and options.
        pictures: float32 [n, 3, height, width] from 0 to 255, on any device.
        seeds: A seed for each picture, int64 [n]; for a whole batch that of the first counts.

    Returns:
        The changed pictures, of the same shape, type and device.

    Raises:
        RecipeError: It cannot be imported, fails, or returns something other than images of the kind and size that it
            was given.
    """
    change = make_entry(own.name, "transform", **own.keywords)
    keywords = {} if isinstance(import_entry(own.name, "transform"), type) else own.keywords  # it was made with them
    if takes_generator(change, keywords):
        return _change_floats(change, own.name, keywords, pictures, int(seeds[0]))
    whole = pictures.round().clamp(0, 255).to(torch.uint8).cpu()
    if takes_batch(change):
        return _change_whole(change, own.name, keywords, whole, int(seeds[0])).to(pictures)
    pairs = zip(whole, seeds.tolist(), strict=True)
    return torch.stack([_change_one(change, own.name, keywords, each, seed) for each, seed in pairs]).to(pictures)


def _change_floats(change: Change, name: str, keywords: Mapping[str, Any], pictures: Tensor, seed: int) -> Tensor:
    """A batch, changed by a function of it and a generator."""
    with telling_failures(name, "transform"):
        changed = change(pictures, torch.Generator().manual_seed(seed), **keywords)
    if problem := _find_problem(changed, pictures):
        expected = f"a tensor of the shape {list(pictures.shape)}, float32"
        raise RecipeError(f"transform: {name} gave {problem}, expected {expected}.", OF_BATCHES)
    return cast("Tensor", changed).to(pictures).clamp(0, 255)


def _change_whole(change: Change, name: str, keywords: Mapping[str, Any], whole: Tensor, seed: int) -> Tensor:
    """A batch uint8 [n, 3, height, width], changed by a function of it alone."""
    with telling_failures(name, "transform"), _seed_everything(change, seed):
        changed = change(whole.clone(), **keywords)
    problem = _find_problem(changed, whole)
    if not problem and changed.dtype != torch.uint8:
        problem = f"values of type {str(changed.dtype).removeprefix('torch.')}"
    if problem:
        expected = f"a tensor of the shape {list(whole.shape)}, uint8"
        raise RecipeError(f"transform: {name} gave {problem}, expected {expected}.", OF_IMAGES)
    return cast("Tensor", changed)


def _change_one(change: Change, name: str, keywords: Mapping[str, Any], picture: Tensor, seed: int) -> Tensor:
    """One picture uint8 [3, height, width], changed by what takes a tensor, an array or an image of PIL."""
    pixels = picture.permute(1, 2, 0).contiguous().numpy()
    with telling_failures(name, "transform"), _seed_everything(change, seed):
        if takes_keyword(change):
            changed = change(image=pixels.copy(), **keywords)
        elif isinstance(change, torch.nn.Module):
            changed = change(picture.clone(), **keywords)
        else:
            changed = change(Image.fromarray(pixels), **keywords)
    changed = changed.get("image") if isinstance(changed, Mapping) else changed
    array = _read_pixels(changed)
    if not isinstance(array, np.ndarray) or array.dtype != np.uint8 or array.shape != pixels.shape:
        found = _describe_found(changed)
        expected = f"an image of {pixels.shape[1]} x {pixels.shape[0]} pixels in colour, uint8"
        raise RecipeError(f"transform: {name} gave {found}, expected {expected}.", OF_IMAGES)
    return torch.from_numpy(np.array(array)).permute(2, 0, 1)  # a copy: that of PIL cannot be written


def _read_pixels(changed: object) -> object:
    """The pixels [height, width, 3] of an image of PIL, a tensor [3, height, width] or an array; else what it is."""
    if isinstance(changed, Image.Image):
        return np.asarray(changed.convert("RGB"))
    if isinstance(changed, Tensor) and changed.ndim == 3:
        return changed.detach().cpu().permute(1, 2, 0).numpy()
    return changed


def _describe_found(changed: object) -> str:
    """What a transform gave, in words."""
    if isinstance(changed, Image.Image):
        return f"an image of {changed.width} x {changed.height} pixels"
    if isinstance(changed, Tensor | np.ndarray):
        kind = str(changed.dtype).removeprefix("torch.")
        return f"{'a tensor' if isinstance(changed, Tensor) else 'an array'} of the shape {list(changed.shape)}, {kind}"
    return f"a {type(changed).__name__}"


def _find_problem(changed: object, pictures: Tensor) -> str:
    """What is wrong with the batch that a transform returned; empty where nothing is."""
    if not isinstance(changed, Tensor):
        return type(changed).__name__
    if changed.shape != pictures.shape:
        return f"the shape {list(changed.shape)}"
    if not changed.is_floating_point() and changed.dtype != torch.uint8:
        return f"values of type {str(changed.dtype).removeprefix('torch.')}"
    wrong = int((~changed.isfinite()).sum())
    return f"{wrong} values that are not finite" if wrong else ""


@contextmanager
def _seed_everything(change: Change, seed: int) -> Iterator[None]:
    """Seed the random numbers of Python, NumPy and PyTorch for a block, and those that a transform keeps of its own.

    Afterwards the first three go on where they were.
    """
    kept, kept_numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % SEEDS)
        if callable(own := getattr(change, "set_random_seed", None)):  # as Albumentations has it
            own(seed % SEEDS)
        try:
            yield
        finally:
            random.setstate(kept)
            np.random.set_state(kept_numpy)
