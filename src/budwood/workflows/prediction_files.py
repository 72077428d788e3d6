"""Files of predictions that are written as these are made, go on after an interruption, and appear whole at the end.

Beside each file lies what is done of it (`.part`), to which only more is added, and beside the first a note of how far
all are (`.part.json`). The same command goes on from there; with another network, other options or other images it
starts anew.
"""

from __future__ import annotations

import base64
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from filelock import FileLock, Timeout

from budwood.data.image_streams import StreamedImage
from budwood.errors import DataError
from budwood.evaluation.prediction_rows import make_cells, make_document, make_table, name_columns
from budwood.evaluation.prediction_table import ImagePrediction
from budwood.progress import Progress
from budwood.storage.atomic import raise_storage_errors, write_atomically
from budwood.storage.checked_files import read_checked, write_checked
from budwood.storage.strict_json import encode_json
from budwood.text import counted, format_csv, show_unprintable
from budwood.workflows.predict import NamesDigest

PART: Final = ".part"
BLOCK: Final = 4096  # rows that are converted at a time
EVERY: Final = 2.0  # seconds after which it is noted how far the files are
SHOWN: Final = 20  # images that cannot be read, of which the end names so many


@dataclass(frozen=True)
class PredictionFile:
    """A file of predictions.

    Attributes:
        path: Where it appears.
        begin: What its part begins with.
        encode: Makes what is added to the part for some predictions.
        finish: Makes the file, at a path, of the whole part; None: they are the same.
    """

    path: Path
    begin: bytes
    encode: Callable[[Sequence[ImagePrediction]], bytes]
    finish: Callable[[Path, Path], None] | None = None

    @property
    def part(self) -> Path:
        """Return the path of what is done of it."""
        return self.path.with_name(self.path.name + PART)


def list_written(path: Path) -> list[Path]:
    """List what a file of predictions is written as: the file, what is done of it, notes, and the paths of features."""
    beside = (PART, f"{PART}.json", f"{PART}.lock")
    names = [path.name, *(path.name + ending for ending in beside)]
    return [path.with_name(name) for name in [*names, *([name_paths(path).name] if path.suffix == ".npy" else [])]]


def name_paths(path: Path) -> Path:
    """Name the file with the paths of the images whose features are in a `.npy` file."""
    return path.with_name(f"{path.name.removesuffix('.npy')}.paths.jsonl")


def make_csv(path: Path, classes: Sequence[str], top: int, multilabel: bool = False) -> PredictionFile:
    """Make a CSV file for spreadsheets, in which a text that begins like a formula has an apostrophe before it."""

    def encode(answers: Sequence[ImagePrediction]) -> bytes:
        return format_csv([make_cells(answer, len(classes), top, multilabel) for answer in answers]).encode()

    return PredictionFile(path, format_csv([name_columns(classes, top, multilabel)]).encode(), encode)


def make_jsonl(path: Path, classes: Sequence[str]) -> PredictionFile:
    """Make a file of JSON Lines: one document for each image, as `--json` prints them."""
    return PredictionFile(path, b"", lambda answers: _encode_lines([make_document(one, classes) for one in answers]))


def make_parquet(path: Path, classes: Sequence[str], multilabel: bool = False) -> PredictionFile:
    """Make a Parquet file, whose part has JSON Lines, as a Parquet file cannot be added to."""

    def finish(part: Path, draft: Path) -> None:
        tables = (make_table(rows, classes, multilabel) for rows in _read_blocks(part))
        _write_parquet(draft, tables, make_table([], classes, multilabel))

    return PredictionFile(path, b"", make_jsonl(path, classes).encode, finish)


def make_features(path: Path) -> PredictionFile:
    """Make a file of features of the images that can be read: `.npy`, with the paths beside it, or `.parquet`.

    Args:
        path: The file; the paths of `NAME.npy` stand in `NAME.paths.jsonl`, one JSON text a line.

    Raises:
        DataError: It is named neither `.npy` nor `.parquet`.
    """
    finishes = {".npy": _finish_npy, ".parquet": _finish_feature_table}
    if path.suffix not in finishes:
        raise DataError(f"--features: expected a file named .npy or .parquet, found {path.name}.", "Name it so.")

    def encode(answers: Sequence[ImagePrediction]) -> bytes:
        return _encode_lines(
            [
                {"path": one.path, "features": base64.b64encode(one.features.astype("<f4").tobytes()).decode()}
                for one in answers
                if one.features is not None
            ]
        )

    return PredictionFile(path, b"", encode, finishes[path.suffix])


def _encode_lines(documents: Sequence[Mapping[str, Any]]) -> bytes:
    return "".join(f"{encode_json(one)}\n" for one in documents).encode("utf-8", "backslashreplace")


def _read_blocks(part: Path) -> Iterator[list[dict[str, Any]]]:
    with part.open(encoding="utf-8") as lines:
        while rows := [json.loads(line) for line in islice(lines, BLOCK)]:
            yield rows


def _write_parquet(draft: Path, tables: Iterator[Any], empty: Any) -> None:
    from pyarrow import parquet

    first = next(tables, empty)
    with parquet.ParquetWriter(draft, first.schema) as writer:
        writer.write_table(first)
        for table in tables:
            writer.write_table(table)


def _decode_features(row: Mapping[str, str]) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.frombuffer(base64.b64decode(row["features"]), "<f4")


def _finish_npy(part: Path, draft: Path) -> None:
    count = sum(len(rows) for rows in _read_blocks(part))
    width = next((len(_decode_features(rows[0])) for rows in _read_blocks(part)), 0)
    paths = name_paths(part.with_name(part.name.removesuffix(PART)))

    def write_paths(file: Path) -> None:
        with file.open("wb") as out:
            for rows in _read_blocks(part):
                out.write("".join(f"{json.dumps(row['path'])}\n" for row in rows).encode())

    write_atomically(paths, write_paths)
    with draft.open("wb") as out:
        header = {"descr": "<f4", "fortran_order": False, "shape": (count, width)}
        np.lib.format.write_array_header_1_0(out, header)
        for rows in _read_blocks(part):
            out.write(np.stack([_decode_features(row) for row in rows]).tobytes())


def _finish_feature_table(part: Path, draft: Path) -> None:
    import pyarrow as pa

    width = next((len(_decode_features(rows[0])) for rows in _read_blocks(part)), 0)
    schema = pa.schema([("path", pa.string()), ("features", pa.list_(pa.float32(), width))])

    def make(rows: Sequence[Mapping[str, str]]) -> pa.Table:
        values = np.concatenate([np.zeros(0, np.float32), *(_decode_features(row) for row in rows)])
        features = pa.FixedSizeListArray.from_arrays(pa.array(values, pa.float32()), width)
        paths = [show_unprintable(row["path"]) for row in rows]
        return pa.Table.from_arrays([pa.array(paths, pa.string()), features], schema=schema)

    _write_parquet(draft, map(make, _read_blocks(part)), schema.empty_table())


@dataclass
class Tally:
    """How many images were read and how many could not be, with the first of these."""

    images: int = 0
    unreadable: int = 0
    bad: list[tuple[str, str]] | None = None

    def add(self, answers: Sequence[ImagePrediction]) -> None:
        """Count some predictions."""
        self.images += len(answers)
        bad = [(one.path, one.problem) for one in answers if one.problem]
        self.unreadable += len(bad)
        self.bad = [*(self.bad or []), *bad][:SHOWN]


class PartialFiles:
    """The files of one command while they are written; used as a context manager, they are complete where it ends.

    Attributes:
        tally: The images of all that is done, before an interruption, too.
    """

    def __init__(self, files: Sequence[PredictionFile], key: str) -> None:
        """Open nothing yet.

        Args:
            files: The files, at least one.
            key: Digest of all that decides what is written, but for the images.
        """
        self._files, self._key = files, key
        first = files[0].path
        self._note = first.with_name(f"{first.name}{PART}.json")
        self._lock = first.with_name(f"{first.name}{PART}.lock")
        self._names = NamesDigest()
        self._handles: list[IO[bytes]] = []
        self._stack = ExitStack()
        self._noted = time.monotonic()
        self.tally = Tally()

    def __enter__(self) -> PartialFiles:
        with raise_storage_errors(self._note), ExitStack() as stack:
            for file in self._files:
                file.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(FileLock(self._lock, timeout=0))
            except Timeout as error:
                raise DataError(
                    f"{self._files[0].path}: is being written by another process.", "Wait until it has finished."
                ) from error
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Make the files of their parts; where the block has failed, the parts stay."""
        with self._stack, raise_storage_errors(self._files[0].path):
            if self.tally.images and kind is not None:
                self._save()
            for handle in self._handles:
                handle.close()
            if kind is None:
                self._finish()
            elif not self.tally.images:
                for file in self._files[: len(self._handles)]:
                    file.part.unlink(missing_ok=True)
        self._lock.unlink(missing_ok=True)

    def begin(
        self, open_images: Callable[[], Iterator[StreamedImage]], can_repeat: bool, anew: bool, progress: Progress
    ) -> Iterator[StreamedImage]:
        """Open the parts, and return the images that are still to be predicted.

        Args:
            open_images: Begins the stream of all images.
            can_repeat: Whether it can be begun a second time.
            anew: Whether to start anew in any case.
            progress: Is told from where it goes on.

        Returns:
            The images after those that are done.

        Raises:
            DataError: They are others than before the interruption, and the stream cannot be begun again.
            StorageError: A part cannot be written.
        """
        with raise_storage_errors(self._note):
            note = None if anew else read_checked(self._note)
            images = open_images()
            if note and note["key"] == self._key and self._fits(note):
                for image in islice(images, note["images"]):
                    self._names.add(image.name)
                if str(self._names) == note["names"]:
                    self._go_on(note)
                    progress.note(f"{counted(note['images'], 'image')} were done before an interruption; going on.")
                    return images
                if not can_repeat:
                    raise DataError(
                        f"{self._files[0].part}: is of other images than those of this list.",
                        "Give the same list again, or remove the file to start anew.",
                    )
                self._names, images = NamesDigest(), open_images()
            self._start()
        return images

    def add(self, answers: Sequence[ImagePrediction]) -> None:
        """Write predictions to all parts.

        Raises:
            StorageError: A part cannot be written.
        """
        for file, handle in zip(self._files, self._handles, strict=True):
            with raise_storage_errors(file.part):
                handle.write(file.encode(answers))
        for answer in answers:
            self._names.add(answer.path)
        self.tally.add(answers)
        if time.monotonic() - self._noted > EVERY:
            with raise_storage_errors(self._note):
                self._save()

    def _fits(self, note: Mapping[str, Any]) -> bool:
        """Whether the parts are at least as long as they were when they were noted."""
        return len(note["sizes"]) == len(self._files) and all(
            file.part.is_file() and file.part.stat().st_size >= size
            for file, size in zip(self._files, note["sizes"], strict=True)
        )

    def _go_on(self, note: Mapping[str, Any]) -> None:
        for file, size in zip(self._files, note["sizes"], strict=True):
            handle = file.part.open("r+b")
            handle.truncate(size)
            handle.seek(size)
            self._handles.append(handle)
        self.tally = Tally(note["images"], note["unreadable"], [(path, problem) for path, problem in note["bad"]])

    def _start(self) -> None:
        self._note.unlink(missing_ok=True)
        for file in self._files:
            handle = file.part.open("wb")
            handle.write(file.begin)
            self._handles.append(handle)

    def _save(self) -> None:
        for handle in self._handles:
            handle.flush()
        self._noted = time.monotonic()
        write_checked(
            self._note,
            {
                "key": self._key,
                "images": self.tally.images,
                "names": str(self._names),
                "unreadable": self.tally.unreadable,
                "bad": self.tally.bad or [],
                "sizes": [handle.tell() for handle in self._handles],
            },
        )

    def _finish(self) -> None:
        for file in self._files:
            if file.finish is None:
                write_atomically(file.path, lambda draft, file=file: shutil.move(file.part, draft))  # type: ignore[misc]
            else:
                write_atomically(file.path, lambda draft, file=file: file.finish(file.part, draft))  # type: ignore[misc]
                file.part.unlink()
        self._note.unlink(missing_ok=True)
