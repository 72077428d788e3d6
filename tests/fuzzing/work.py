"""The judged work, part after part: what each part of a job judges, and how it is found again."""

from __future__ import annotations

import random
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from fuzzing import archives, images, state
from fuzzing.bytes import Mutant
from fuzzing.outcomes import Outcome

T = TypeVar("T")

WHOLE_JOBS: Final = 5  # folders of images of which one is trained on


def judge_images(count: int, seed: int, kept: Path) -> Iterator[Outcome]:
    """Judge so many damaged images, a folder of them at a time."""
    mutants = list(images.iterate_mutants(count, seed))
    for start in range(0, count, images.FOLDER):
        some = mutants[start : start + images.FOLDER]
        whole_job = start // images.FOLDER % WHOLE_JOBS == 0
        judge = partial(images.judge_folder, mutants=some, seed=seed * 1000 + start, whole_job=whole_job)
        try:
            outcomes = _in_folder(judge)
        except Exception:
            outcomes = [_judge_alone("image", mutant, _judge_one_image) for mutant in some]
        for mutant, outcome in zip(some, outcomes, strict=False):
            _keep(outcome, mutant, kept)
        yield from outcomes


def judge_archives(count: int, seed: int, kept: Path) -> Iterator[Outcome]:
    """Judge so many damaged archives."""
    for mutant in archives.iterate_mutants(count, seed):
        outcome = _judge_alone("archive", mutant, archives.judge)
        _keep(outcome, mutant, kept)
        yield outcome


def judge_state(count: int, seed: int, kept: Path) -> Iterator[Outcome]:
    """Judge so many damages to runs and the cache, of which a broken one is kept whole."""
    with tempfile.TemporaryDirectory(prefix="budwood-fuzz-") as name:
        folder = Path(name)
        (folder / "whole").mkdir()
        expected = state.make_state(folder / "whole")
        for number, damage in enumerate(state.iterate_damages(folder / "whole", count, seed)):
            place = folder / str(number)
            place.mkdir()
            try:
                outcome = state.judge(folder / "whole", place, damage, expected)
            except Exception:
                outcome = Outcome("state", damage.what, "traceback", traceback.format_exc())
            if outcome.broken:
                shutil.copytree(place, kept / f"state-{seed}-{number}", symlinks=True, dirs_exist_ok=True)
            shutil.rmtree(place)
            yield outcome


def _judge_one_image(folder: Path, mutant: Mutant) -> Outcome:
    """What came of one damaged image by itself."""
    return images.judge_folder(folder, [mutant], 0, whole_job=True)[0]


def _judge_alone(kind: str, mutant: Mutant, judge: Callable[[Path, Mutant], Outcome]) -> Outcome:
    """What came of one file, a traceback included."""
    try:
        return _in_folder(lambda folder: judge(folder, mutant))
    except Exception:
        return Outcome(kind, mutant.what, "traceback", traceback.format_exc())


def _in_folder(judge: Callable[[Path], T]) -> T:
    with tempfile.TemporaryDirectory(prefix="budwood-fuzz-") as name:
        return judge(Path(name))


def _keep(outcome: Outcome, mutant: Mutant, kept: Path) -> None:
    """Keep the file of which a promise was broken."""
    if outcome.broken:
        kept.mkdir(parents=True, exist_ok=True)
        digest = f"{random.Random(mutant.what).randrange(16**8):08x}"
        (kept / f"{outcome.kind}-{digest}-{mutant.name}").write_bytes(mutant.data)


JUDGES: Final[dict[str, Callable[[int, int, Path], Iterator[Outcome]]]] = {
    "images": judge_images,
    "archives": judge_archives,
    "state": judge_state,
}
