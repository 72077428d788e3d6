"""Damaged files of runs and of the cache: the results stay what they were, or one error names what is damaged."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import budwood as bw
from budwood.errors import BudwoodError
from fuzzing import bytes as damages
from fuzzing.outcomes import Outcome
from fuzzing.pictures import iterate_valid

CLASSES: Final = ("leaf", "sky")
IMAGES: Final = 24
SHARED: Final = {"model": "cnn", "widths": (4,), "fc": (4,), "size": 16, "seed": 0}
RECIPES: Final[dict[str, dict[str, Any]]] = {
    "head": {**SHARED, "freeze": "trunk"},
    "steps": {**SHARED, "freeze": "upto:conv1", "optimizer": "adam", "epochs": 1, "flip": 0.5, "views": 1},
    "whole": {**SHARED, "optimizer": "adam", "epochs": 1},
}
TESTED: Final = "steps"  # the run that has been tested already
SKIPPED: Final = ("report.html", "lock", "recipe.toml")  # which nothing reads again
Results = dict[str, Any]


@dataclass(frozen=True)
class StateDamage:
    """A damage to one or two files below the folder of runs and the cache.

    Attributes:
        what: The damage, in words.
        files: Paths of the damaged files, relative to the folder.
        apply: Damages them below another folder.
    """

    what: str
    files: tuple[str, ...]
    apply: Callable[[Path], None]


def make_state(folder: Path, names: Sequence[str] = tuple(RECIPES)) -> Results:
    """Train small runs with a cache of their own, and predict with them.

    Args:
        folder: Empty folder for images, runs and cache.
        names: The recipes to train by, keys of `RECIPES`.

    Returns:
        The results of every reader, undamaged.
    """
    for number, (name, content) in enumerate(iterate_valid(IMAGES, 11)):
        file = folder / "photos" / CLASSES[number % 2] / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    _age(folder / "photos")
    data, cache = bw.scan(folder / "photos", cache=folder / "cache"), folder / "cache"
    for name in names:
        run = bw.train(data, bw.Recipe(**RECIPES[name]), out=folder / "runs", id=name, cache=cache)
        bw.predict(run, [folder / "photos"], cache=cache)
        if name == TESTED:
            bw.test(run, cache=cache)
    copy_state(folder, folder / "undamaged")
    return {name: read(folder / "undamaged") for name, read in list_readers(names).items()}


def _age(photos: Path) -> None:
    """Make images older than a scan, which remembers nothing of files that may still change."""
    for file in photos.rglob("*.png"):
        os.utime(file, ns=(10**18, 10**18))
    time.sleep(2.1)  # the time of the last change of a file's properties cannot be set


def copy_state(whole: Path, folder: Path) -> None:
    """Copy the folder of `make_state`, but for the images, which stay where they are."""
    for name in ("runs", "cache"):
        shutil.copytree(whole / name, folder / name)
    (folder / "photos").symlink_to(whole / "photos")


def list_readers(names: Sequence[str]) -> dict[str, Callable[[Path], Any]]:
    """What reads runs or the cache, by name, in the order in which it is done: what changes a run comes last."""
    readers: dict[str, Callable[[Path], Any]] = {f"report {name}": partial(_read_run, name) for name in names}
    if len(names) > 1:
        readers["compare"] = partial(_compare, names)
    for verb, read in (("train", _train), ("predict", _predict), ("test", _test), ("resume", _resume)):
        readers |= {f"{verb} {name}": partial(read, name) for name in names if verb != "resume" or name != "head"}
    return readers


def _concerns(reader: str, damage: StateDamage) -> bool:
    """Whether a reader reads any of the damaged files: of a run only its own readers do."""
    verb, _, name = reader.partition(" ")
    if any(file.startswith("cache/") or "/" not in file.removeprefix("runs/") for file in damage.files):
        return verb not in ("report", "compare")
    return verb == "compare" or (verb != "train" and any(file.startswith(f"runs/{name}/") for file in damage.files))


def iterate_damages(folder: Path, count: int, seed: int) -> Iterator[StateDamage]:
    """So many damages to the files below `runs` and `cache`, of each file in turn."""
    files = sorted(
        path.relative_to(folder).as_posix()
        for top in (*(f"runs/{name}" for name in RECIPES), "cache")
        for path in (folder / top).rglob("*")
        if path.is_file() and path.name not in SKIPPED and path.stat().st_size and not path.name.startswith(".")
    )
    random.Random(seed).shuffle(files)
    for number in range(count):
        draw = random.Random(f"state {seed} {number}")
        yield _choose_damage(folder, files[number % len(files)], files, draw)


def _choose_damage(folder: Path, file: str, files: Sequence[str], draw: random.Random) -> StateDamage:
    way = draw.random()
    if way < 0.1:
        return StateDamage(f"{file}: deleted", (file,), partial(_delete, file))
    alike = [one for one in files if one != file and _find_kind(one) == _find_kind(file) and "run.json" not in one]
    if way < 0.3 and alike:
        other = draw.choice(alike)
        return StateDamage(f"{file} and {other}: exchanged", (file, other), partial(_exchange, file, other))
    change = draw.choice((damages.flip_bits, damages.flip_bits, damages.cut, damages.empty, damages.zero_block))
    told, data = change((folder / file).read_bytes(), draw)
    return StateDamage(f"{file}: {told}", (file,), partial(_write, file, data))


def _find_kind(file: str) -> str:
    """What makes two files take each other's place: their kind of content."""
    name = file.rpartition("/")[2]
    top = "/".join(file.split("/")[:2]) if file.startswith("cache") else "runs"
    return f"{top} {name.partition('.')[2] if file.startswith('cache/') else name}"


def _delete(file: str, folder: Path) -> None:
    (folder / file).unlink()


def _write(file: str, data: bytes, folder: Path) -> None:
    (folder / file).write_bytes(data)


def _exchange(file: str, other: str, folder: Path) -> None:
    first, second = (folder / file).read_bytes(), (folder / other).read_bytes()
    (folder / file).write_bytes(second)
    (folder / other).write_bytes(first)


def judge(whole: Path, folder: Path, damage: StateDamage, expected: Results) -> Outcome:
    """Read damaged runs and work with a damaged cache in every way.

    Args:
        whole: The folder of `make_state`; its images are read where they are.
        folder: Where a copy of it is made and damaged; it does not exist.
        damage: The damage.
        expected: What each reader gives undamaged.

    Returns:
        What came of it.
    """
    copy_state(whole, folder)
    damage.apply(folder)
    refused = False
    names = [name.partition(" ")[2] for name in expected if name.startswith("report")]
    for name, read in list_readers(names).items():
        if not _concerns(name, damage):
            continue
        try:
            found = read(folder)
        except BudwoodError as error:
            refused = True
            if not any(
                Path(file).name in error.message or f"{Path(file).parent}/" in error.message for file in damage.files
            ):
                return Outcome("state", damage.what, "unnamed", f"{name} raises without the file: {error.message}")
            continue
        if found != expected[name]:
            return Outcome("state", damage.what, "other", f"{name} gives something else in silence")
    return Outcome("state", damage.what, "refused" if refused else "same")


def _is_named(file: str, message: str) -> bool:
    """Whether a message names a file, or one of its folder that does not fit it."""
    path = Path(file)
    return path.name in message or f"{path.parent}/" in message


def _read_run(id: str, folder: Path) -> Any:
    """The figures of a run as its report shows them, with its predictions and history."""
    run = bw.report(bw.open_run(folder / "runs" / id))
    predictions = run.predictions("val")
    text = (run.path / "report.html").read_text(encoding="utf-8").replace(str(folder), "")
    return [run.record.table(), predictions.logits.tolist(), predictions.ids, run.history, text]


def _predict(id: str, folder: Path) -> Any:
    run = bw.open_run(folder / "runs" / id)
    found = bw.predict(run, [folder / "photos" / CLASSES[0]], cache=folder / "cache")
    return [(Path(one.path).name, one.top[0][0], _round(one.top[0][1]), one.problem) for one in found]


def _test(id: str, folder: Path) -> Any:
    """The score on the test split."""
    run = bw.open_run(folder / "runs" / id)
    tested = bw.test(run, cache=folder / "cache")
    return _list_figures(tested.metrics["test"])


def _resume(id: str, folder: Path) -> Any:
    """What two more epochs give."""
    run = bw.resume(folder / "runs" / id, epochs=3, cache=folder / "cache")
    return _list_figures(run.metrics["val"])


def _compare(ids: Sequence[str], folder: Path) -> Any:
    return bw.compare([folder / "runs" / id for id in ids]).csv().replace(str(folder), "")


def _train(id: str, folder: Path) -> Any:
    """What a second training with the cache gives."""
    data = bw.scan(folder / "photos", cache=folder / "cache")
    run = bw.train(data, bw.Recipe(**RECIPES[id]), out=folder / "again", cache=folder / "cache", id=id)
    shutil.rmtree(folder / "again")
    return [data.fingerprint, _list_figures(run.metrics["val"])]


def _list_figures(metrics: Any) -> Any:
    return {name: _round(metrics[name]["value"]) for name in ("accuracy", "macro_f1", "log_loss")}


def _round(value: float) -> float:
    """A figure without the last digits, in which engines differ."""
    return round(value, 4)
