"""Images inside a Parquet table, as Hugging Face's library writes them, to files in the cache."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from budwood.storage.context import Context
from budwood.storage.folder_manifest import write_manifest
from budwood.storage.unpacked import ensure_unpacked

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH: Final = 64  # images that are in memory as Python's bytes at a time


def holds_bytes(column: pa.ChunkedArray) -> bool:
    """Tell whether a column holds images: a struct of bytes and path, or bytes alone.

    Args:
        column: The column.

    Returns:
        True if any row has bytes.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0:
        column = pc.struct_field(column, "bytes")
    is_binary = pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)
    return bool(is_binary and column.null_count < len(column))


def extract_images(file: Path, column: pa.ChunkedArray, context: Context) -> tuple[Path, list[str]]:
    """Write the images of a column to a folder in the cache, once.

    Args:
        file: The table.
        column: Its column of images, for which `holds_bytes` is true.
        context: The cache folder, under `archives` of which the result lies, and where a note goes.

    Returns:
        The folder, and the name of each row's file in it; a row without an image has a name without a file.

    Raises:
        StorageError: When the images cannot be written.
    """
    facts = file.stat()
    key = f"parquet|{file.resolve()}|{facts.st_size}|{facts.st_mtime_ns}|{facts.st_ctime_ns}"
    name = "".join(char if char.isascii() and char.isalnum() else "-" for char in file.stem[:40])
    folder = context.cache / "archives" / f"{name}-{hashlib.blake2b(key.encode(), digest_size=12).hexdigest()}"
    rows = list(_list_names(column))

    def fill(draft: Path) -> tuple[tuple[str, str], ...]:
        images = zip(rows, _iterate_bytes(column), strict=True)
        write_manifest(draft, [name for name, data in images if _write(draft / name, data)], {}, ())
        return ()

    ensure_unpacked(folder, f"the images of {file.name}", context, fill)
    return folder, rows


def _list_names(column: pa.ChunkedArray) -> Iterator[str]:
    import pyarrow as pa
    import pyarrow.compute as pc

    has_path = pa.types.is_struct(column.type) and column.type.get_field_index("path") >= 0
    paths = pc.struct_field(column, "path").to_pylist() if has_path else [None] * len(column)
    for row, path in enumerate(paths):
        yield f"{row:07}{PurePosixPath(str(path or '').replace(chr(92), '/')).suffix[:8]}"


def _iterate_bytes(column: pa.ChunkedArray) -> Iterator[bytes | None]:
    for start in range(0, len(column), _BATCH):
        for value in column.slice(start, _BATCH).to_pylist():
            yield value["bytes"] if isinstance(value, dict) else value


def _write(file: Path, data: bytes | None) -> bool:
    if data is None:
        return False
    file.write_bytes(data)
    return True
