"""Arrays by image content on disk: memory-mapped, shared by processes, never wrong.

A store is a folder of shards. A shard is two files: `<name>.npy`, the values, and `<name>.ids.npy`, the content id and
CRC-32 of each row, which is written last and so commits the shard. A writer that is killed leaves values without ids,
which nobody reads. A row whose checksum fails is treated as absent, and so computed again.
"""

from __future__ import annotations

import io
import math
import os
import uuid
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from budwood.storage.atomic import write_atomically

_ROW: Final = np.dtype([("id", "S32"), ("crc", "<u4")])


class ShardStore:
    """Store of arrays of one shape and type on disk, keyed by content id.

    Attributes:
        folder: Folder of the shards.
    """

    def __init__(self, folder: Path, shape: tuple[int, ...], dtype: type[np.generic]) -> None:
        """Open the store and read the index of its shards.

        Args:
            folder: Folder of the shards; it is made by the first write.
            shape: Shape of one row.
            dtype: NumPy type of the values.
        """
        self.folder = folder
        self._shape = shape
        self._dtype = np.dtype(dtype)
        self._values: list[NDArray[Any]] = []
        self._markers: list[Path] = []
        self._index: dict[str, tuple[int, int, int]] = {}
        self._known: set[str] = set()
        self.refresh()

    def refresh(self) -> None:
        """Read the index of shards that this or another process has added since the last time."""
        for marker in sorted(self.folder.glob("*.ids.npy")):
            if marker.name not in self._known and not marker.name.startswith("."):
                self._known.add(marker.name)
                self._learn(marker)

    def __contains__(self, id: object) -> bool:
        return id in self._index

    def row(self, id: str) -> NDArray[Any] | None:
        """Return the array stored for a content id.

        Args:
            id: Content id of the image.

        Returns:
            A view of the memory-mapped file, [*shape], or None if the row is absent or its checksum is wrong.
        """
        place = self._index.get(id)
        if place is None:
            return None
        shard, row, crc = place
        value: NDArray[Any] = self._values[shard][row]
        if zlib.crc32(value.data) != crc:
            del self._index[id]
            return None
        return value

    def use(self, ids: Iterable[str]) -> None:
        """Mark the shards that hold some content ids as used now, so that they are evicted last.

        Args:
            ids: Content ids; those that the store does not hold are ignored.
        """
        for shard in {self._index[id][0] for id in ids if id in self._index}:
            with suppress(OSError):  # removed, or of another user
                os.utime(self._markers[shard])

    def add(self, ids: Sequence[str], values: NDArray[Any]) -> None:
        """Write rows as one new shard.

        Args:
            ids: Content ids, one for each row.
            values: Arrays, [n, *shape], converted to the store's type.

        Raises:
            OSError: When the shard cannot be written, for example because the disk is full.
        """
        values = np.ascontiguousarray(values, self._dtype)
        name = uuid.uuid4().hex
        rows = np.array([(id.encode(), zlib.crc32(value.data)) for id, value in zip(ids, values, strict=True)], _ROW)
        content, marker = self.folder / f"{name}.npy", self.folder / f"{name}.ids.npy"
        write_atomically(content, lambda draft: _save_array(draft, values))
        write_atomically(marker, lambda draft: _save_array(draft, rows))
        self._known.add(marker.name)
        self._learn(marker)

    def _learn(self, marker: Path) -> None:
        rows = _map_array(marker, _ROW, ())
        values = _map_array(marker.with_name(marker.name.replace(".ids.npy", ".npy")), self._dtype, self._shape)
        if rows is None or values is None or len(rows) != len(values):
            return
        shard = len(self._values)
        self._values.append(values)
        self._markers.append(marker)
        for row, (id, crc) in enumerate(rows.tolist()):
            self._index[id.decode("ascii", "replace")] = (shard, row, crc)


def _save_array(path: Path, values: NDArray[Any]) -> None:
    with path.open("wb") as handle:  # np.save would hide why a write failed
        handle.write(_make_header(values.dtype, values.shape))
        handle.write(values.data)


def _make_header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """The header by which NumPy reads an array in C order."""
    header = io.BytesIO()
    about = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, about)
    return header.getvalue()


def _map_array(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any] | None:
    """Map the rows that `_save_array` wrote; None where there is no such file, or it was changed or cut.

    NumPy would read the header as it reads Python, and a damaged one raises errors of every kind.
    """
    try:
        with path.open("rb") as handle:
            beginning = handle.read(len(_make_header(dtype, (1, *shape))))
            each = dtype.itemsize * math.prod(shape)
            count = (path.stat().st_size - len(beginning)) // each
            if count < 1 or beginning != _make_header(dtype, (count, *shape)):
                return None
            return np.memmap(handle, dtype, "r", len(beginning), (count, *shape))
    except (OSError, ValueError):  # a file that is shorter than it was
        return None
