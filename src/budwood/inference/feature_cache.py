"""The frozen prefix: what is frozen runs once per image, and its outputs are kept for every epoch, run and study.

Outputs lie in the cache, keyed by weights, stages, preprocessing, the view of the image, and its content. When all are
there, no torch is loaded. Maps of stages are kept in 16 bits a value where that is shown to be harmless.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from budwood.data.blocks import split_blocks
from budwood.data.dataset import Samples
from budwood.data.loading import SHARD, TTA_FLIPS, Decoder, Pixels, Writer, decode_sample, flip, store_rows
from budwood.data.value_range import ValueRange
from budwood.errors import WeightsError
from budwood.inference.bundle import GRAPH, Prefix
from budwood.inference.engines import BATCH, Floats, InferenceEngine, choose_engine
from budwood.progress import Progress
from budwood.storage.context import Context
from budwood.storage.eviction import evict_for, format_gib, limit
from budwood.storage.packing import HEADER, pack, unpack
from budwood.storage.shards import ShardStore

CHECKED: Final = 16  # real images that an engine must agree on
HELD: Final = 2**30  # bytes of outputs that are held in memory; more lie in a file that is mapped into it


@dataclass(frozen=True)
class Transform:
    """A change of images before a prefix sees them, such as a flip or an augmentation.

    Attributes:
        name: Distinguishes this view from all others in the cache; empty for unchanged images.
        change: Function of uint8 pixels [n, size, size, 3] and the ids of their images that returns the new pixels.
    """

    name: str
    change: Callable[[Pixels, Sequence[str]], Pixels]


@dataclass(frozen=True)
class Features:
    """Outputs of a prefix for images, in the order of the images.

    Attributes:
        values: Outputs, float32 [n, *shape].
        computed: Number of images whose outputs were computed now; the others came from the cache.
        engine: Name of the engine that computed them.
        agreement: How well the engine agrees with PyTorch, in words.
    """

    values: Floats
    computed: int
    engine: str
    agreement: str

    @property
    def reused(self) -> int:
        """Return the number of images whose outputs came from the cache.

        Returns:
            Number of images that an earlier run had computed.
        """
        return len(self.values) - self.computed


def flip_transform(letters: str) -> Transform:
    """Make the transform that mirrors images.

    Args:
        letters: `h` (left to right), `v` (upside down), `hv` (both), or empty for unchanged images.

    Returns:
        The transform, named by its letters.
    """
    return Transform(letters, lambda pixels, _: flip(pixels, letters))


IDENTITY: Final = flip_transform("")


def compute_features(
    prefix: Prefix,
    samples: Samples,
    progress: Progress,
    transform: Transform = IDENTITY,
    apply: Callable[[Floats], Floats] = lambda values: values,
) -> Features:
    """Compute the outputs of a prefix for every sample; those in the cache are read, new ones are stored.

    Only what `apply` returns is kept in memory. Above 1 GiB it is kept in a temporary file in the cache.

    Args:
        prefix: Part of the network to run.
        samples: Images, in the order of the result.
        progress: Shows a bar over the images that are computed, and notes.
        transform: How images are changed before.
        apply: Function of outputs float32 [n, *shape] that is applied to them, for example a head; it must accept
            n = 0, by which its output shape is found.

    Returns:
        The results of `apply`, float32 [n, ...], by default the outputs themselves.

    Raises:
        DataError: An image file was changed since it was scanned.
        WeightsError: The weights cannot be read or do not fit.
        StorageError: `BUDWOOD_CACHE_LIMIT` is not an amount.
    """
    stores = _open_stores(prefix, transform, samples.value_range)
    n, shape = len(samples), apply(np.zeros((0, *prefix.shape), np.float32)).shape[1:]
    values = _allocate(prefix, (n, *shape))
    missing = []
    for block in split_blocks(n, SHARD):
        shard = range(n)[block]
        found = ((row, _read_cached(prefix, stores, samples.ids[row])) for row in shard)
        cached = {row: outputs for row, outputs in found if outputs is not None}
        if cached:
            values[list(cached)] = apply(np.stack(list(cached.values())))
        missing += [row for row in shard if row not in cached]
    for store in stores:
        store.use(samples.ids)
    if not missing:
        return Features(
            values, 0, "all features were in the cache; nothing was computed", "checked when the features were computed"
        )
    size, resizing, context = prefix.spec.plan.size, prefix.spec.recipe.resizing, Context(prefix.cache, progress)
    with Decoder(samples, missing, size, resizing, context) as decoder:
        engine = choose_engine(prefix, lambda: take_first_images(prefix, samples, missing), len(missing), progress)
        for rows, computed in _compute(prefix, engine, transform, decoder, missing, stores, context):
            values[rows] = apply(computed)
    return Features(values, len(missing), engine.name, engine.agreement)


def find_missing_features(prefix: Prefix, samples: Samples, transform: Transform = IDENTITY) -> list[int]:
    """List the samples whose outputs are not in the cache yet.

    Args:
        prefix: Part of the network.
        samples: Images.
        transform: How images are changed before.

    Returns:
        Rows of the samples, in ascending order.
    """
    stores = _open_stores(prefix, transform, samples.value_range)
    return [row for row, id in enumerate(samples.ids) if not any(id in store for store in stores)]


def keep_features(prefix: Prefix, samples: Samples, values: Floats, progress: Progress) -> None:
    """Keep outputs in the cache that were computed otherwise, as part of wider ones.

    Args:
        prefix: Part of the network whose outputs they are: vectors.
        samples: Images, in the order of the outputs.
        values: The outputs, float32 [n, features].
        progress: Where the note goes where the cache is full or cannot be written.

    Raises:
        StorageError: `BUDWOOD_CACHE_LIMIT` is not an amount.
    """
    store = _open_stores(prefix, IDENTITY, samples.value_range)[0]
    missing = [row for row, id in enumerate(samples.ids) if id not in store]
    size = len(missing) * count_feature_bytes(prefix)
    if not evict_for(size, 0, f"Features of {prefix.stop or 'the network'}", Context(prefix.cache, progress)):
        return
    for block in split_blocks(len(missing), SHARD):
        rows = missing[block]
        if not store_rows(store, [samples.ids[row] for row in rows], values[rows], progress):
            return


def compute_tta_features(
    prefix: Prefix, samples: Samples, progress: Progress, apply: Callable[[Floats], Floats] = lambda values: values
) -> Features:
    """Compute the mean outputs over the views of the recipe's test-time augmentation.

    Args:
        prefix: Part of the network to run.
        samples: Images, in the order of the result.
        progress: Shows bars and notes.
        apply: Function that is applied to the outputs of each view before the mean, as in `compute_features`.

    Returns:
        The means, float32 [n, ...]; numbers of images and engine are those of the first view.

    Raises:
        DataError: An image file was changed since it was scanned.
        WeightsError: The weights cannot be read or do not fit.
        StorageError: `BUDWOOD_CACHE_LIMIT` is not an amount.
    """
    views = [flip_transform(letters) for letters in TTA_FLIPS[prefix.spec.recipe.tta]]
    first, *others = (compute_features(prefix, samples, progress, view, apply) for view in views)
    if not others:
        return first
    return replace(first, values=sum((other.values for other in others), first.values) / np.float32(1 + len(others)))


def count_feature_bytes(prefix: Prefix) -> int:
    """Count the bytes that one image's output takes in the cache.

    Args:
        prefix: Part of the network.

    Returns:
        Bytes, at 16 bits a value for maps and 32 for vectors.
    """
    return math.prod(prefix.shape) * (2 if len(prefix.shape) > 1 else 4)


def why_not_cached(prefix: Prefix, images: int) -> str:
    """Explain why the outputs for some images are better computed when needed than cached.

    A map that is larger than its pixels takes longer to read than they do; a vector saves the whole trunk.

    Args:
        prefix: Part of the network.
        images: Number of images.

    Returns:
        The reason: size of a map, limit of the cache or space on the disk. Empty where caching is better.

    Raises:
        StorageError: `BUDWOOD_CACHE_LIMIT` is not an amount.
    """
    each, pixels, size = count_feature_bytes(prefix), prefix.spec.plan.size**2 * 3, math.prod(prefix.shape) * 4
    if each > pixels and len(prefix.shape) > 1:
        return f"the features of an image take {each / 1024:,.0f} KiB, its pixels only {pixels / 1024:,.0f} KiB"
    if each * images > limit():
        return f"they take {format_gib(each * images)}, and the cache limit is {format_gib(limit())}"
    if size * images > HELD and size * images > (free := shutil.disk_usage(_cache_place(prefix)).free) // 2:
        return f"they take {format_gib(size * images)}, and only {format_gib(free)} of the disk is free"
    return ""


def _open_stores(prefix: Prefix, transform: Transform, scale: ValueRange | None) -> tuple[ShardStore, ...]:
    """Where outputs may lie: in full precision, and for maps in 16 bits a value."""
    graph = [] if prefix.graph == GRAPH else [Path(prefix.graph).stem]
    view, values = [transform.name] if transform.name else [], [scale.key] if scale else []
    name = "-".join([prefix.key, prefix.spec.recipe.resize, *view, *graph, *values])
    folder = prefix.cache / "outputs"
    full = ShardStore(folder / name, prefix.shape, np.float32)
    if len(prefix.shape) < 2:
        return (full,)
    return full, ShardStore(folder / f"{name}-packed", (HEADER + math.prod(prefix.shape),), np.int16)


def _read_cached(prefix: Prefix, stores: Sequence[ShardStore], id: str) -> Floats | None:
    """The output for an image, from whichever store has it."""
    rows = [row for store in stores if (row := store.row(id)) is not None]
    if not rows:
        return None
    values = rows[0] if rows[0].dtype == np.float32 else unpack(rows[0][None], prefix.shape)[0]
    return values if np.isfinite(values).all() else None


def _compute(
    prefix: Prefix,
    engine: InferenceEngine,
    transform: Transform,
    decoder: Decoder,
    missing: Sequence[int],
    stores: Sequence[ShardStore],
    context: Context,
) -> Iterator[tuple[list[int], Floats]]:
    """The outputs that are missing, a shard at a time; each shard is kept, and so survives an interruption."""
    size = len(missing) * math.prod(prefix.shape) * (2 if engine.packs else 4)
    keep = evict_for(size, decoder.pending, f"Features of {prefix.stop or 'the network'}", context)
    label = "Network" if prefix.stop is None else "Frozen layers"
    writer = Writer()

    def write(store: ShardStore, ids: Sequence[str], rows: NDArray[Any]) -> None:
        nonlocal keep
        keep = keep and store_rows(store, ids, rows, context.progress)

    with closing(writer), context.progress.bar(f"{label} of {prefix.spec.plan.name}", len(missing)) as step:
        for block in split_blocks(len(missing), SHARD):
            shard = list(missing[block])
            ids = [decoder.samples.ids[row] for row in shard]
            values = np.empty((len(shard), *prefix.shape), np.float32)
            for part in split_blocks(len(shard), BATCH):
                pixels = decoder.take(shard[part])
                values[part] = engine.run(transform.change(pixels, ids[part]))
                step(len(pixels))
            _refuse_not_finite(prefix, decoder.samples, shard, values)
            decoder.keep()
            rows: NDArray[Any] = values
            store = stores[0]
            if engine.packs:
                rows, store = pack(values), stores[-1]
                values = unpack(rows, prefix.shape)  # the run that computes them sees what all later ones will read
            writer.do(partial(write, store, ids, rows))
            yield shard, values


def _refuse_not_finite(prefix: Prefix, samples: Samples, rows: Sequence[int], values: Floats) -> None:
    """Raises `WeightsError` where an output is NaN or infinite: nothing that follows would mean anything."""
    finite = np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    if not finite.all():
        first = samples.paths[rows[int(np.argmin(finite))]]
        raise WeightsError(
            f"{prefix.spec.plan.name}: the output of {prefix.stop or 'the network'} is not finite (NaN or infinite) "
            f"for {np.count_nonzero(~finite):,} of {len(values):,} images, the first {first!r}.",
            "Use other weights: these have values too large to compute with.",
        )


def take_first_images(prefix: Prefix, samples: Samples, rows: Sequence[int] = range(CHECKED)) -> Pixels:
    """Decode the first images, on which an engine is checked.

    Args:
        prefix: Part of the network; it gives size and resizing.
        samples: Images.
        rows: Rows of the samples to take from; at most the first 16 are used.

    Returns:
        Pixels, uint8 [n, size, size, 3].

    Raises:
        DataError: An image file was changed since it was scanned.
    """
    rows = [row for row in rows[:CHECKED] if row < len(samples)]
    size, resizing = prefix.spec.plan.size, prefix.spec.recipe.resizing
    return np.stack([decode_sample(samples, row, size, resizing) for row in rows])


def _allocate(prefix: Prefix, shape: tuple[int, ...]) -> Floats:
    """Room for values: in memory, or where they are many in a file that has no name and goes with the process."""
    size = math.prod(shape) * 4
    if size <= HELD:
        return np.empty(shape, np.float32)
    with tempfile.TemporaryFile(dir=_cache_place(prefix)) as scratch:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(scratch.fileno(), 0, size)  # a full disk is told here, not when a page is written
        return np.memmap(scratch, np.float32, "r+", shape=shape)


def _cache_place(prefix: Prefix) -> str:
    prefix.cache.mkdir(parents=True, exist_ok=True)
    return str(prefix.cache)
