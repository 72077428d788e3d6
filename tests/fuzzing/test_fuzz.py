"""A short selection of `scripts/fuzz`: whatever is damaged is used rightly or told, and ends no job.

To fail means that a promise is broken; the message names the damage, which is made again from its seed.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzzing import archives, images, state
from fuzzing.__main__ import Tally
from fuzzing.bytes import Mutant
from fuzzing.outcomes import Outcome
from fuzzing.pictures import make_pictures

pytestmark = [  # of Pillow, about the damage
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
IMAGES, ARCHIVES, STATE = 80, 18, 16


def _list_broken(outcomes: list[Outcome]) -> list[tuple[str, str]]:
    return [(one.what, one.broken) for one in outcomes if one.broken]


def test_the_intact_images_are_all_used(tmp_path: Path) -> None:
    whole = [Mutant(name, name, data) for name, data in make_pictures().items()]
    outcomes = images.judge_folder(tmp_path, whole, 0)
    assert _list_broken(outcomes) == []
    assert {one.what for one in outcomes if one.result != "used"} == set()


def test_a_damaged_image_is_used_or_told(tmp_path: Path) -> None:
    mutants = list(images.iterate_mutants(IMAGES, 1))
    outcomes = images.judge_folder(tmp_path, mutants, 1)
    assert _list_broken(outcomes) == []
    assert {"used", "broken", "truncated", "not an image", "empty"} <= {one.result for one in outcomes}


def test_a_damaged_archive_loses_nothing_in_silence(tmp_path: Path) -> None:
    kinds = archives.iterate_mutants(ARCHIVES, 2)
    whole = [Mutant(kind, f"{kind}: intact", archives.pack(kind)) for kind in ("pax.tar", "deflated.zip")]
    outcomes = []
    for number, mutant in enumerate([*whole, *kinds]):
        (tmp_path / str(number)).mkdir()
        outcomes.append(archives.judge(tmp_path / str(number), mutant))
    assert _list_broken(outcomes) == []
    assert [one.result for one in outcomes[: len(whole)]] == ["used"] * len(whole)
    assert "refused" in {one.result for one in outcomes}


def test_damaged_runs_and_caches_give_the_same_or_are_named(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    expected = state.make_state(tmp_path / "whole", ["head"])
    outcomes = []
    for number, damage in enumerate(state.iterate_damages(tmp_path / "whole", STATE, 3)):
        (tmp_path / str(number)).mkdir()
        outcomes.append(state.judge(tmp_path / "whole", tmp_path / str(number), damage, expected))
    assert _list_broken(outcomes) == []
    assert {one.result for one in outcomes} == {"same", "refused"}


@pytest.mark.parametrize(
    ("tally", "problem"),
    [
        (Tally("images", 1, peak=2**31 + 2**20), "images: 2,049 MiB, more than 2,048"),
        (Tally("state", 1, status=-11), "state: the process ended with -11 after 1 files"),
        (Tally("images", 1, broken=[Outcome("image", "bit 3 of x.png", "lost", "is lost")]), "bit 3 of x.png: is lost"),
    ],
)
def test_a_broken_promise_is_told(tally: Tally, problem: str) -> None:
    tally.results["used"] = 1
    assert tally.problems == [problem]
    assert Tally("images", 1).problems == ["images: the process ended with 0 after 0 files"]
