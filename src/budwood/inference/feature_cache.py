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
from budwood.data.loading import SHARD, VIEWS, Decoder, Pixels, Writer, decoded, kept, viewed
from budwood.inference.engines import BATCH, WHOLE, Engine, Floats, Prefix, engine_of
from budwood.progress import Progress
from budwood.storage.eviction import gib, limit, make_room
from budwood.storage.packing import HEADER, packed, unpacked
from budwood.storage.shards import Store

CHECKED: Final = 16  # real images that an engine must agree on
HELD: Final = 2**30  # bytes of outputs that are held in memory; more lie in a file that is mapped into it


@dataclass(frozen=True)
class View:
    """How images are changed before a prefix sees them: `change` takes uint8 pixels [n, size, size, 3] and the ids of
    their images, and `name` tells the view from all others."""

    name: str
    change: Callable[[Pixels, Sequence[str]], Pixels]


@dataclass(frozen=True)
class Outputs:
    """A prefix's outputs for images in their order: float32 [n, *shape]; how many were computed and reused."""

    values: Floats
    computed: int
    engine: str
    agreement: str

    @property
    def reused(self) -> int:
        """Images whose output an earlier run had computed."""
        return len(self.values) - self.computed


def flipped(letters: str) -> View:
    """Images mirrored left to right (h), upside down (v), both, or as they are."""
    return View(letters, lambda pixels, _: viewed(pixels, letters))


AS_IT_IS: Final = flipped("")


def outputs(
    prefix: Prefix,
    samples: Samples,
    progress: Progress,
    view: View = AS_IT_IS,
    through: Callable[[Floats], Floats] = lambda values: values,
) -> Outputs:
    """The outputs of the prefix for every sample as a view shows it: from the store, else computed and stored.

    What is asked for is what `through` makes of them, as a head's logits; so much is held, and no more.
    """
    stores = _stores(prefix, view)
    n, shape = len(samples), through(np.zeros((0, *prefix.shape), np.float32)).shape[1:]
    values = _room(prefix, (n, *shape))
    missing = []
    for rows in _blocks(range(n), SHARD):
        found = {row: known for row in rows if (known := _known(prefix, stores, samples.ids[row])) is not None}
        if found:
            values[list(found)] = through(np.stack(list(found.values())))
        missing += [row for row in rows if row not in found]
    for store in stores:
        store.use(samples.ids)
    if not missing:
        return Outputs(values, 0, "none: every output was in the store", "checked when the outputs were computed")
    with Decoder(samples, missing, prefix.plan["size"], prefix.recipe.resize, prefix.cache, progress) as decoder:
        engine = engine_of(prefix, lambda: first_images(prefix, samples, missing), len(missing), progress)
        for rows, computed in _computed(prefix, engine, view, decoder, missing, stores, progress):
            values[rows] = through(computed)
    return Outputs(values, len(missing), engine.name, engine.agreement)


def missing_outputs(prefix: Prefix, samples: Samples, view: View = AS_IT_IS) -> list[int]:
    """The rows whose outputs are not in the store yet."""
    stores = _stores(prefix, view)
    return [row for row, id in enumerate(samples.ids) if not any(id in store for store in stores)]


def evaluated(
    prefix: Prefix, samples: Samples, progress: Progress, through: Callable[[Floats], Floats] = lambda values: values
) -> Outputs:
    """The mean outputs over the views of the recipe's test-time augmentation, or what `through` makes of each."""
    views = [flipped(letters) for letters in VIEWS[prefix.recipe.tta]]
    first, *others = (outputs(prefix, samples, progress, view, through) for view in views)
    if not others:
        return first
    return replace(first, values=sum((other.values for other in others), first.values) / np.float32(1 + len(others)))


def output_bytes(prefix: Prefix) -> int:
    """The bytes that one image's output takes in the store: maps in 16 bits a value, vectors in 32."""
    return math.prod(prefix.shape) * (2 if len(prefix.shape) > 1 else 4)


def why_not_kept(prefix: Prefix, images: int) -> str:
    """Why the outputs for so many images are better computed as they are needed; empty where they are better kept.

    A map that is larger than its pixels takes longer to read than they do; a vector saves the whole trunk.
    """
    each, pixels, size = output_bytes(prefix), prefix.plan["size"] ** 2 * 3, math.prod(prefix.shape) * 4
    if each > pixels and len(prefix.shape) > 1:
        return f"one takes {each / 1024:,.0f} KiB, and the pixels that it is made of take {pixels / 1024:,.0f}"
    if each * images > limit():
        return f"they take {gib(each * images)}, and the cache may hold {gib(limit())}"
    if size * images > HELD and size * images > (free := shutil.disk_usage(_existing(prefix)).free) // 2:
        return f"they take {gib(size * images)}, and the disk has {gib(free)}"
    return ""


def _stores(prefix: Prefix, view: View) -> tuple[Store, ...]:
    """Where outputs may lie: in full precision, and for maps in 16 bits a value."""
    graph = [] if prefix.graph == WHOLE else [Path(prefix.graph).stem]
    name = "-".join([prefix.key, prefix.recipe.resize, *([view.name] if view.name else []), *graph])
    folder = prefix.cache / "outputs"
    full = Store(folder / name, prefix.shape, np.float32)
    if len(prefix.shape) < 2:
        return (full,)
    return full, Store(folder / f"{name}-packed", (HEADER + math.prod(prefix.shape),), np.int16)


def _known(prefix: Prefix, stores: Sequence[Store], id: str) -> Floats | None:
    """The output for an image, from whichever store has it."""
    found = [row for store in stores if (row := store.row(id)) is not None]
    if not found:
        return None
    return found[0] if found[0].dtype == np.float32 else unpacked(found[0][None], prefix.shape)[0]


def _computed(
    prefix: Prefix,
    engine: Engine,
    view: View,
    decoder: Decoder,
    missing: Sequence[int],
    stores: Sequence[Store],
    progress: Progress,
) -> Iterator[tuple[list[int], Floats]]:
    """The outputs that are missing, a shard at a time; each shard is kept, and so survives an interruption."""
    size = len(missing) * math.prod(prefix.shape) * (2 if engine.packs else 4)
    keep = make_room(prefix.cache, size, decoder.pending, f"Outputs of {prefix.stop or 'the network'}", progress)
    label = "Network" if prefix.stop is None else "Frozen prefix"
    writer = Writer()

    def write(store: Store, ids: Sequence[str], rows: NDArray[Any]) -> None:
        nonlocal keep
        keep = keep and kept(store, ids, rows, progress)

    with closing(writer), progress.bar(f"{label} of {prefix.plan['name']}", len(missing)) as step:
        for shard in _blocks(missing, SHARD):
            ids = [decoder.samples.ids[row] for row in shard]
            values = np.empty((len(shard), *prefix.shape), np.float32)
            for part in _blocks(range(len(shard)), BATCH):
                pixels = decoder.take([shard[place] for place in part])
                values[part] = engine.run(view.change(pixels, [ids[place] for place in part]))
                step(len(part))
            decoder.keep()
            rows: NDArray[Any] = values
            store = stores[0]
            if engine.packs and np.isfinite(values).all():
                rows, store = packed(values), stores[-1]
                values = unpacked(rows, prefix.shape)  # the run that computes them sees what all later ones will read
            writer.do(partial(write, store, ids, rows))
            yield shard, values


def _blocks(rows: Sequence[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(rows), size):
        yield list(rows[start : start + size])


def first_images(prefix: Prefix, samples: Samples, rows: Sequence[int] = range(CHECKED)) -> Pixels:
    """The first images, of those in some rows, on which an engine is checked."""
    rows = [row for row in rows[:CHECKED] if row < len(samples)]
    size, resize = prefix.plan["size"], prefix.recipe.resize
    return np.stack([decoded(samples, row, size, resize) for row in rows])


def _room(prefix: Prefix, shape: tuple[int, ...]) -> Floats:
    """Room for values: in memory, or where they are many in a file that has no name and goes with the process."""
    size = math.prod(shape) * 4
    if size <= HELD:
        return np.empty(shape, np.float32)
    with tempfile.TemporaryFile(dir=_existing(prefix)) as scratch:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(scratch.fileno(), 0, size)  # a full disk is told here, not when a page is written
        return np.memmap(scratch, np.float32, "r+", shape=shape)


def _existing(prefix: Prefix) -> str:
    prefix.cache.mkdir(parents=True, exist_ok=True)
    return str(prefix.cache)
