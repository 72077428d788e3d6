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

from budwood.data.dataset import Samples
from budwood.data.loading import SHARD, TTA_FLIPS, Decoder, Pixels, Writer, decode_sample, flip, store_rows
from budwood.inference.engines import BATCH, WHOLE, Floats, InferenceEngine, Prefix, choose_engine
from budwood.progress import Progress
from budwood.storage.eviction import evict_for, format_gib, limit
from budwood.storage.packing import HEADER, pack, unpack
from budwood.storage.shards import ShardStore

CHECKED: Final = 16  # real images that an engine must agree on
HELD: Final = 2**30  # bytes of outputs that are held in memory; more lie in a file that is mapped into it


@dataclass(frozen=True)
class Transform:
    """How images are changed before a prefix sees them: `change` takes uint8 pixels [n, size, size, 3] and the ids of
    their images, and `name` tells the view from all others."""

    name: str
    change: Callable[[Pixels, Sequence[str]], Pixels]


@dataclass(frozen=True)
class Features:
    """A prefix's outputs for images in their order: float32 [n, *shape]; how many were computed and reused."""

    values: Floats
    computed: int
    engine: str
    agreement: str

    @property
    def reused(self) -> int:
        """Images whose output an earlier run had computed."""
        return len(self.values) - self.computed


def flip_transform(letters: str) -> Transform:
    """Images mirrored left to right (h), upside down (v), both, or as they are."""
    return Transform(letters, lambda pixels, _: flip(pixels, letters))


IDENTITY: Final = flip_transform("")


def compute_features(
    prefix: Prefix,
    samples: Samples,
    progress: Progress,
    view: Transform = IDENTITY,
    through: Callable[[Floats], Floats] = lambda values: values,
) -> Features:
    """The outputs of the prefix for every sample as a view shows it: from the store, else computed and stored.

    What is asked for is what `through` makes of them, as a head's logits; so much is held, and no more.
    """
    stores = _open_stores(prefix, view)
    n, shape = len(samples), through(np.zeros((0, *prefix.shape), np.float32)).shape[1:]
    values = _allocate(prefix, (n, *shape))
    missing = []
    for rows in _split_blocks(range(n), SHARD):
        found = {row: known for row in rows if (known := _read_known(prefix, stores, samples.ids[row])) is not None}
        if found:
            values[list(found)] = through(np.stack(list(found.values())))
        missing += [row for row in rows if row not in found]
    for store in stores:
        store.use(samples.ids)
    if not missing:
        return Features(
            values, 0, "all features were in the cache; nothing was computed", "checked when the features were computed"
        )
    with Decoder(samples, missing, prefix.spec.plan.size, prefix.spec.recipe.resize, prefix.cache, progress) as decoder:
        engine = choose_engine(prefix, lambda: take_first_images(prefix, samples, missing), len(missing), progress)
        for rows, computed in _compute(prefix, engine, view, decoder, missing, stores, progress):
            values[rows] = through(computed)
    return Features(values, len(missing), engine.name, engine.agreement)


def find_missing_features(prefix: Prefix, samples: Samples, view: Transform = IDENTITY) -> list[int]:
    """The rows whose outputs are not in the store yet."""
    stores = _open_stores(prefix, view)
    return [row for row, id in enumerate(samples.ids) if not any(id in store for store in stores)]


def compute_tta_features(
    prefix: Prefix, samples: Samples, progress: Progress, through: Callable[[Floats], Floats] = lambda values: values
) -> Features:
    """The mean outputs over the views of the recipe's test-time augmentation, or what `through` makes of each."""
    views = [flip_transform(letters) for letters in TTA_FLIPS[prefix.spec.recipe.tta]]
    first, *others = (compute_features(prefix, samples, progress, view, through) for view in views)
    if not others:
        return first
    return replace(first, values=sum((other.values for other in others), first.values) / np.float32(1 + len(others)))


def count_feature_bytes(prefix: Prefix) -> int:
    """The bytes that one image's output takes in the store: maps in 16 bits a value, vectors in 32."""
    return math.prod(prefix.shape) * (2 if len(prefix.shape) > 1 else 4)


def why_not_cached(prefix: Prefix, images: int) -> str:
    """Why the outputs for so many images are better computed as they are needed; empty where they are better kept.

    A map that is larger than its pixels takes longer to read than they do; a vector saves the whole trunk.
    """
    each, pixels, size = count_feature_bytes(prefix), prefix.spec.plan.size**2 * 3, math.prod(prefix.shape) * 4
    if each > pixels and len(prefix.shape) > 1:
        return f"the features of an image take {each / 1024:,.0f} KiB, its pixels only {pixels / 1024:,.0f} KiB"
    if each * images > limit():
        return f"they take {format_gib(each * images)}, and the cache limit is {format_gib(limit())}"
    if size * images > HELD and size * images > (free := shutil.disk_usage(_cache_place(prefix)).free) // 2:
        return f"they take {format_gib(size * images)}, and only {format_gib(free)} of the disk is free"
    return ""


def _open_stores(prefix: Prefix, view: Transform) -> tuple[ShardStore, ...]:
    """Where outputs may lie: in full precision, and for maps in 16 bits a value."""
    graph = [] if prefix.graph == WHOLE else [Path(prefix.graph).stem]
    name = "-".join([prefix.key, prefix.spec.recipe.resize, *([view.name] if view.name else []), *graph])
    folder = prefix.cache / "outputs"
    full = ShardStore(folder / name, prefix.shape, np.float32)
    if len(prefix.shape) < 2:
        return (full,)
    return full, ShardStore(folder / f"{name}-packed", (HEADER + math.prod(prefix.shape),), np.int16)


def _read_known(prefix: Prefix, stores: Sequence[ShardStore], id: str) -> Floats | None:
    """The output for an image, from whichever store has it."""
    found = [row for store in stores if (row := store.row(id)) is not None]
    if not found:
        return None
    return found[0] if found[0].dtype == np.float32 else unpack(found[0][None], prefix.shape)[0]


def _compute(
    prefix: Prefix,
    engine: InferenceEngine,
    view: Transform,
    decoder: Decoder,
    missing: Sequence[int],
    stores: Sequence[ShardStore],
    progress: Progress,
) -> Iterator[tuple[list[int], Floats]]:
    """The outputs that are missing, a shard at a time; each shard is kept, and so survives an interruption."""
    size = len(missing) * math.prod(prefix.shape) * (2 if engine.packs else 4)
    keep = evict_for(prefix.cache, size, decoder.pending, f"Features of {prefix.stop or 'the network'}", progress)
    label = "Network" if prefix.stop is None else "Frozen layers"
    writer = Writer()

    def write(store: ShardStore, ids: Sequence[str], rows: NDArray[Any]) -> None:
        nonlocal keep
        keep = keep and store_rows(store, ids, rows, progress)

    with closing(writer), progress.bar(f"{label} of {prefix.spec.plan.name}", len(missing)) as step:
        for shard in _split_blocks(missing, SHARD):
            ids = [decoder.samples.ids[row] for row in shard]
            values = np.empty((len(shard), *prefix.shape), np.float32)
            for part in _split_blocks(range(len(shard)), BATCH):
                pixels = decoder.take([shard[place] for place in part])
                values[part] = engine.run(view.change(pixels, [ids[place] for place in part]))
                step(len(part))
            decoder.keep()
            rows: NDArray[Any] = values
            store = stores[0]
            if engine.packs and np.isfinite(values).all():
                rows, store = pack(values), stores[-1]
                values = unpack(rows, prefix.shape)  # the run that computes them sees what all later ones will read
            writer.do(partial(write, store, ids, rows))
            yield shard, values


def _split_blocks(rows: Sequence[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(rows), size):
        yield list(rows[start : start + size])


def take_first_images(prefix: Prefix, samples: Samples, rows: Sequence[int] = range(CHECKED)) -> Pixels:
    """The first images, of those in some rows, on which an engine is checked."""
    rows = [row for row in rows[:CHECKED] if row < len(samples)]
    size, resize = prefix.spec.plan.size, prefix.spec.recipe.resize
    return np.stack([decode_sample(samples, row, size, resize) for row in rows])


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
