"""Damaged archives of images: each is refused by name, or no image and no class of it is lost in silence."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Final

from archive_mutations import ARCHIVES, iterate_cuts, iterate_flips

import budwood as bw
from budwood.data.archives import extract
from budwood.data.dataset import Dataset
from budwood.data.images import compute_content_id
from budwood.errors import BudwoodError
from budwood.storage.context import open_context
from fuzzing.bytes import Mutant, mutate
from fuzzing.outcomes import Outcome
from fuzzing.pictures import iterate_valid, make_pictures

CLASSES: Final = ("fern", "leaf", "sky")
EACH: Final = 5  # images of a class


@cache
def make_content() -> dict[str, bytes]:
    """Name and content of small images of three classes, one of them of every fifth format."""
    names = [f"photos/{label}/{number}.png" for label in CLASSES for number in range(EACH)]
    content = {name: data for name, (_, data) in zip(names, iterate_valid(len(names), 7), strict=True)}
    some = list(make_pictures(7).items())[::5]
    return {**content, **{f"photos/{CLASSES[n % 3]}/{name}": data for n, (name, data) in enumerate(some)}}


@cache
def pack(kind: str) -> bytes:
    """The intact archive of a kind."""
    return ARCHIVES[kind](make_content())


def iterate_mutants(count: int, seed: int) -> Iterator[Mutant]:
    """So many damaged archives, of each kind in turn: bits, cuts, and what may become of any file."""
    kinds = list(ARCHIVES)
    for number in range(count):
        draw = random.Random(f"archive {seed} {number}")
        kind = kinds[number % len(kinds)]
        whole, way = pack(kind), draw.random()
        if way < 0.4:
            told, data = next(iterate_flips(whole, 1, draw.randrange(2**32)))
        elif way < 0.6:
            told, data = draw.choice(list(iterate_cuts(whole, 20)))
        else:
            other = draw.choice(kinds)
            yield mutate(kind, whole, [(other, pack(other))], draw)
            continue
        yield Mutant(kind, f"{kind}: {told}", data)


def judge(folder: Path, mutant: Mutant) -> Outcome:
    """Scan a damaged archive twice, the second time after its unpacked copy was damaged, too.

    Args:
        folder: Empty folder for the archive and the cache.
        mutant: The archive.

    Returns:
        What came of it.
    """
    archive, cache = folder / mutant.name, folder / "cache"
    archive.write_bytes(mutant.data)
    try:
        data = bw.scan(archive, cache=cache)
    except BudwoodError as error:
        named = mutant.name in error.message and error.message.rstrip().endswith(".")
        return Outcome("archive", mutant.what, "refused", "" if named else f"refused without a name: {error.message}")
    broken = _find_lost(data, _has_checksums(mutant)) or _judge_second_use(archive, cache, data)
    return Outcome("archive", mutant.what, "used", broken)


def _has_checksums(mutant: Mutant) -> bool:
    """Whether a content that was changed is always found out: not in a plain tar archive, whatever its name is now."""
    return mutant.data[:2] in (b"PK", b"\x1f\x8b", b"BZ", b"\xfd7")


def _find_lost(data: Dataset, checked: bool) -> str:
    """What an archive had and its scan neither uses nor tells; empty where nothing is lost."""
    content = make_content()
    used = dict(zip(data.table["path"].to_pylist(), data.table["id"].to_pylist(), strict=True))
    told = {PurePosixPath(item.path).name for item in data.set_aside}
    if checked:
        return _compare_files(content, used, told)
    # A bit of a long name may have changed: what counts is that as many images of as many classes are there
    missing = len(content) - len(used) - len(data.set_aside)
    classes = len(CLASSES) - len(data.classes)
    if missing > 0 or (classes > 0 and not told):
        return f"{missing} images and {classes} classes are lost in silence"
    return ""


def _compare_files(content: Mapping[str, bytes], used: Mapping[str, str], told: set[str]) -> str:
    ids = {PurePosixPath(path).parts[-2:]: id for path, id in used.items()}
    for name, whole in content.items():
        path = PurePosixPath(name)
        id = ids.get(path.parts[-2:])
        if id is None and path.name not in told:
            return f"{name} is lost in silence"
        if id is not None and id != compute_content_id(whole):
            return f"{name} is used with another content"
    return ""


def _judge_second_use(archive: Path, cache: Path, data: Dataset) -> str:
    """What another scan gives after the unpacked copy was damaged; empty where it is the same."""
    draw = random.Random(len(data))
    unpacked = extract(archive, open_context(cache))
    files = sorted(path for path in unpacked.rglob("*") if path.is_file())
    draw.choice(_COPY_DAMAGES)(draw.choice(files))
    try:
        again = bw.scan(archive, cache=cache)
    except BudwoodError as error:
        return f"refused at its second use: {error.message}"
    return "" if again.fingerprint == data.fingerprint else "its second use gives other data"


def _append_byte(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"\0")


def _empty_file(file: Path) -> None:
    file.write_bytes(b"")


def _add_file(file: Path) -> None:
    shutil.copy(file, file.with_name("another.png"))


def _remove_folder(file: Path) -> None:
    shutil.rmtree(file.parent)


_COPY_DAMAGES: Final[tuple[Callable[[Path], None], ...]] = (
    Path.unlink,
    _append_byte,
    _empty_file,
    _add_file,
    _remove_folder,
)
