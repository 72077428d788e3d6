"""Pixels of images, decoded once to uint8 at the size that a network needs, and kept for every run of that size."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.Image import Resampling

from budwood.config.options import Resizing
from budwood.data.blocks import split_blocks
from budwood.data.dataset import Samples
from budwood.data.images import BadImage, read_pixels
from budwood.data.value_range import ValueRange
from budwood.errors import DataError
from budwood.hardware import count_processors
from budwood.progress import Progress
from budwood.storage.atomic import is_full
from budwood.storage.context import Context
from budwood.storage.eviction import evict_for
from budwood.storage.shards import ShardStore

SHARD: Final = 512  # images a file of a store
FEWEST_AHEAD: Final = 32  # images
AHEAD: Final = 128 * 2**20  # bytes of pixels that are decoded before they are needed

TTA_FLIPS: Final = {"none": ("",), "flip": ("", "h"), "flips": ("", "h", "v", "hv")}  # of an image that is evaluated

Pixels = NDArray[np.uint8]


class Decoder:
    """Reader of image pixels in a fixed order, with threads that decode ahead of use.

    Pixels come from the store of decoded pixels where it has them. Decoding starts at once, so that it goes on
    while an inference engine is prepared. Use it as a context manager, which ends the threads.

    Attributes:
        samples: The images.
        keeps: Whether newly decoded pixels are stored; False once there is no room or a write has failed.
    """

    def __init__(self, samples: Samples, rows: Sequence[int], size: int, resizing: Resizing, context: Context) -> None:
        """Open the store, make room in the cache and start to decode.

        Args:
            samples: The images.
            rows: Rows of `samples` in the order in which they will be taken.
            size: Side of the pixels.
            resizing: How an image becomes a square.
            context: The cache folder, and where notes about it go.

        Raises:
            StorageError: When `$BUDWOOD_CACHE_LIMIT` is not an amount.
        """
        self.samples, self._size, self._resizing = samples, size, resizing
        self._store = open_pixel_store(size, resizing, context.cache, samples.value_range)
        self._store.use(samples.ids)
        self._missing = sum(samples.ids[row] not in self._store for row in rows)
        self.keeps = evict_for(self._missing * size**2 * 3, 0, "Decoded pixels", context)
        self._progress = context.progress
        self._new: list[tuple[str, Pixels]] = []
        self._writer = Writer()
        self._upcoming = iter(rows)
        self._ahead: deque[Future[tuple[Pixels, bool]]] = deque()
        self._pool = ThreadPoolExecutor(count_processors())
        self._most_ahead = max(FEWEST_AHEAD, AHEAD // (size**2 * 3))
        self._look_ahead()

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._writer.close()

    def take(self, rows: Sequence[int]) -> Pixels:
        """Return the pixels of the next rows, waiting for them if needed.

        Args:
            rows: The next rows of the order given at the start, at most `FEWEST_AHEAD` of them.

        Returns:
            RGB pixels, uint8 [n, size, size, 3].

        Raises:
            DataError: When a file has been changed or cannot be decoded any more.
        """
        decoded = [self._ahead.popleft().result() for _ in rows]
        self._look_ahead()
        self._new += [(self.samples.ids[row], p) for row, (p, stored) in zip(rows, decoded, strict=True) if not stored]
        return np.stack([p for p, _ in decoded])

    @property
    def pending(self) -> int:
        """Return the bytes of the pixels that are to be stored.

        The pixels counted are those that the store lacked at the start; 0 if none are kept.
        """
        return self._missing * self._size**2 * 3 if self.keeps else 0

    def keep(self) -> None:
        """Store the pixels that were decoded since the last call, in a thread of its own."""
        new, self._new = self._new, []
        if self.keeps and new:
            self._writer.do(lambda: self._keep(new))

    def _keep(self, new: Sequence[tuple[str, Pixels]]) -> None:
        ids, pictures = zip(*new, strict=True)
        self.keeps = store_rows(self._store, ids, np.stack(pictures), self._progress)

    def _look_ahead(self) -> None:
        while len(self._ahead) < self._most_ahead and (row := next(self._upcoming, None)) is not None:
            self._ahead.append(self._pool.submit(self._one, row))

    def _one(self, row: int) -> tuple[Pixels, bool]:
        stored = self._store.row(self.samples.ids[row])
        return (
            (stored, True)
            if stored is not None
            else (decode_sample(self.samples, row, self._size, self._resizing), False)
        )


class Writer:
    """Thread that writes, so that nothing else waits for the disk.

    One write runs at a time, and at most one waits.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._last: Future[None] | None = None

    def do(self, write: Callable[[], None]) -> None:
        """Start a write as soon as the previous one has finished.

        An error of the previous write is raised here.

        Args:
            write: Function that writes.
        """
        if self._last:
            self._last.result()
        self._last = self._pool.submit(write)

    def close(self) -> None:
        """Wait until everything is written, and raise the error of the last write if it had one."""
        self._pool.shutdown()
        if self._last:
            self._last.result()


class PixelSource:
    """Pixels of images in any order, from the store of decoded pixels.

    Pixels that the store lacks are decoded when they are needed.
    """

    def __init__(self, samples: Samples, size: int, resizing: Resizing, context: Context) -> None:
        """Decode the images that the store lacks, where there is room, and open the store.

        Args:
            samples: The images.
            size: Side of the pixels.
            resizing: How an image becomes a square.
            context: The cache folder, and where notes and steps go.

        Raises:
            DataError: When a file has been changed or cannot be decoded any more.
            StorageError: When `$BUDWOOD_CACHE_LIMIT` is not an amount.
        """
        self._samples, self._size, self._resizing = samples, size, resizing
        _fill(samples, size, resizing, context)
        self._store = open_pixel_store(size, resizing, context.cache, samples.value_range)
        self._store.use(samples.ids)

    def __len__(self) -> int:
        return len(self._samples)

    def take(self, rows: NDArray[np.int64]) -> Pixels:
        """Return the pixels of some rows.

        Args:
            rows: Rows of the samples, in any order, int64 [n].

        Returns:
            RGB pixels, uint8 [n, size, size, 3].

        Raises:
            DataError: When a file has been changed or cannot be decoded any more.
        """
        missing = [row for row in rows.tolist() if self._samples.ids[row] not in self._store]
        if not missing:
            return np.stack([self._one(row) for row in rows.tolist()])
        with ThreadPoolExecutor(count_processors()) as pool:
            return np.stack(list(pool.map(self._one, rows.tolist())))

    def _one(self, row: int) -> Pixels:
        stored = self._store.row(self._samples.ids[row])
        return stored if stored is not None else decode_sample(self._samples, row, self._size, self._resizing)


def flip(pixels: Pixels, view: str) -> Pixels:
    """Mirror pixels for test-time augmentation.

    Args:
        pixels: Pixels, uint8 [n, height, width, 3].
        view: An empty string for no change, `h` for left to right, `v` for upside down, `hv` for both.

    Returns:
        The pixels, contiguous, in the same shape.
    """
    axes = tuple({"h": 2, "v": 1}[letter] for letter in view)
    return np.ascontiguousarray(np.flip(pixels, axes)) if axes else pixels


def resize_pixels(pixels: Pixels, size: int) -> Pixels:
    """Resize the pixels of images that are square already, as for a network of another input.

    Args:
        pixels: uint8 [n, side, side, 3].
        size: The new side.

    Returns:
        uint8 [n, size, size, 3], by bicubic interpolation; the same array where they have that side, or are none.
    """
    if not len(pixels) or pixels.shape[1] == size:
        return pixels
    return np.stack([np.asarray(Image.fromarray(one).resize((size, size), Resampling.BICUBIC)) for one in pixels])


def open_pixel_store(size: int, resizing: Resizing, cache: Path, scale: ValueRange | None = None) -> ShardStore:
    """Open the store of decoded pixels of one size and way of resizing.

    Args:
        size: Side of the pixels.
        resizing: How an image becomes a square.
        cache: The cache folder.
        scale: Values of more than 8 bits that become black and white; None for the range of their type.

    Returns:
        The store, with rows of uint8 [size, size, 3].
    """
    name = f"{size}-{resizing.how}-{resizing.interpolation}" + (f"-{scale.key}" if scale else "")
    return ShardStore(cache / "pixels" / name, (size, size, 3), np.uint8)


def decode_sample(samples: Samples, row: int, size: int, resizing: Resizing) -> Pixels:
    """Decode the pixels of one image.

    Args:
        samples: The images.
        row: Row of `samples`.
        size: Side of the pixels.
        resizing: How an image becomes a square.

    Returns:
        RGB pixels, uint8 [size, size, 3].

    Raises:
        DataError: When the file has been changed since the scan, or cannot be read or decoded.
    """
    path = samples.root / samples.paths[row]
    try:
        return read_pixels(path, samples.ids[row], size, resizing, samples.value_range)
    except BadImage as problem:
        raise DataError(
            f"{path}: {problem.detail}.",
            "Run the command again; where it is about a run, restore the file first, or train on the images as they "
            "are now.",
        ) from problem


def store_rows(store: ShardStore, ids: Sequence[str], values: NDArray[Any], progress: Progress) -> bool:
    """Store rows as a shard and return whether that worked.

    A write that fails costs the cache, not the result: it is reported as a note, and work can go on.

    Args:
        store: The store.
        ids: Content id of each row.
        values: Rows, [n, *shape].
        progress: Receives the note about a failed write.

    Returns:
        True if the shard was stored, False if the disk is full or cannot be written.
    """
    try:
        store.add(ids, values)
    except OSError as error:
        reason = "the disk is full" if is_full(error) else str(error)
        progress.note(f"{store.folder}: the cache cannot be written ({reason}); continuing without it.")
        return False
    return True


def find_missing_pixels(samples: Samples, size: int, resizing: Resizing, cache: Path) -> list[int]:
    """Find the images whose pixels are not in the store yet.

    Args:
        samples: The images.
        size: Side of the pixels.
        resizing: How an image becomes a square.
        cache: The cache folder.

    Returns:
        Their rows in `samples`, in ascending order.
    """
    store = open_pixel_store(size, resizing, cache, samples.value_range)
    return [row for row, id in enumerate(samples.ids) if id not in store]


def _fill(samples: Samples, size: int, resizing: Resizing, context: Context) -> None:
    """Decode into the store what it does not hold yet, where there is room."""
    rows = find_missing_pixels(samples, size, resizing, context.cache)
    if not rows:
        return
    with Decoder(samples, rows, size, resizing, context) as decoder:
        if not decoder.keeps:
            return
        with context.progress.bar("Decoding images", len(rows)) as step:
            for shard in split_blocks(len(rows), SHARD):
                for block in split_blocks(len(rows[shard]), FEWEST_AHEAD):
                    step(len(decoder.take(rows[shard][block])))
                decoder.keep()
                if not decoder.keeps:
                    return
