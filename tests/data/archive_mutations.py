"""Small archives of images, damaged in every way that is asked for, and what has to hold of each."""

from __future__ import annotations

import io
import random
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from budwood.data.archive_members import ArchiveFaultError
from budwood.data.archives import iterate_members
from budwood.data.unpacking import Limits, unpack

LIMITS: Final = Limits(2**24, 2**40)
SIZES: Final = (0, 1, 300, 512, 700)  # bytes of a file, among them none and a whole block
LONG: Final = "a name of more than a hundred bytes " * 3


@dataclass(frozen=True)
class Outcome:
    """What came of one damaged archive.

    Attributes:
        what: The damage.
        refused: The reason for which it was refused; empty if it was read.
        missing: Files that the intact archive has, that this one lacks, and that it did not list.
        changed: Files whose content is not that of the intact one.
    """

    what: str
    refused: str
    missing: tuple[str, ...]
    changed: tuple[str, ...]


def make_content(count: int = 12) -> dict[str, bytes]:
    """Name and content of some files in two class folders, one with a long name and one with one beyond ASCII."""
    draw = random.Random(5)
    names = [f"photos/{'ab'[number % 2]}/{number:03}.png" for number in range(count)]
    names += [f"photos/a/{LONG}.png", "photos/b/Äpfel.png"]
    return {name: draw.randbytes(SIZES[number % len(SIZES)]) for number, name in enumerate(names)}


def _make_tar(content: Mapping[str, bytes], mode: str, format: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode, format=format) as archive:  # type: ignore[call-overload]
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def _make_zip(content: Mapping[str, bytes], method: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return out.getvalue()


ARCHIVES: Final[dict[str, Callable[[Mapping[str, bytes]], bytes]]] = {
    "gnu.tar": lambda content: _make_tar(content, "w", tarfile.GNU_FORMAT),
    "pax.tar": lambda content: _make_tar(content, "w", tarfile.PAX_FORMAT),
    "a.tar.gz": lambda content: _make_tar(content, "w:gz", tarfile.PAX_FORMAT),
    "a.tar.bz2": lambda content: _make_tar(content, "w:bz2", tarfile.GNU_FORMAT),
    "a.tar.xz": lambda content: _make_tar(content, "w:xz", tarfile.PAX_FORMAT),
    "stored.zip": lambda content: _make_zip(content, zipfile.ZIP_STORED),
    "deflated.zip": lambda content: _make_zip(content, zipfile.ZIP_DEFLATED),
    "bzip2.zip": lambda content: _make_zip(content, zipfile.ZIP_BZIP2),
    "lzma.zip": lambda content: _make_zip(content, zipfile.ZIP_LZMA),
}


def iterate_flips(whole: bytes, count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Copies of an archive with one bit changed: a random one, half of the times near the beginning or the end."""
    draw = random.Random(seed)
    for number in range(count):
        near = min(len(whole), 2048)
        at = (
            draw.randrange(len(whole)) if number % 2 else draw.choice((draw.randrange(near), -1 - draw.randrange(near)))
        )
        bit = draw.randrange(8)
        data = bytearray(whole)
        data[at] ^= 1 << bit
        yield f"bit {bit} of byte {at % len(whole)} of {len(whole)} changed", bytes(data)


def iterate_cuts(whole: bytes, count: int) -> Iterator[tuple[str, bytes]]:
    """Beginnings of an archive: of lengths that are spread evenly, around multiples of a block, and near the end."""
    lengths = {len(whole) * number // count for number in range(count)}
    lengths |= {
        max(0, length // 512 * 512 + step) for length in list(lengths)[:: max(1, count // 10)] for step in (0, 1)
    }
    lengths |= set(range(max(0, len(whole) - 8), len(whole)))
    for length in sorted(lengths):
        yield f"cut after byte {length} of {len(whole)}", whole[:length]


def judge(what: str, archive: Path, content: Mapping[str, bytes], folder: Path) -> Outcome:
    """Unpack a damaged archive into an empty folder and compare what is there with the intact content."""
    try:
        found = unpack(iterate_members(archive, LIMITS.bytes), folder, LIMITS)
    except ArchiveFaultError as fault:
        return Outcome(what, fault.reason, (), ())
    listed = {name for name, _ in found.skipped}
    missing = sorted(content.keys() - found.files.keys() - listed)
    changed = [name for name in content.keys() & found.files.keys() if (folder / name).read_bytes() != content[name]]
    return Outcome(what, "", tuple(missing), tuple(changed))
