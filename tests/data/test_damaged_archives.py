"""Whatever is done to an archive, its images are those of the intact one, or it is refused with a reason."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from archive_mutations import ARCHIVES, Outcome, iterate_cuts, iterate_flips, judge, make_content

FLIPS, CUTS = 30, 12  # of each kind of archive


def _outcomes(kind: str, damages: Iterator[tuple[str, bytes]], place: Path) -> Iterator[Outcome]:
    content = make_content()
    for number, (what, data) in enumerate(damages):
        archive, folder = place / kind, place / str(number)
        archive.write_bytes(data)
        folder.mkdir()
        yield judge(what, archive, content, folder)


@pytest.mark.parametrize("kind", ARCHIVES)
def test_an_intact_archive_is_read_whole(kind: str, tmp_path: Path) -> None:
    whole = ARCHIVES[kind](make_content())
    assert list(_outcomes(kind, iter([("intact", whole)]), tmp_path)) == [Outcome("intact", "", (), ())]


@pytest.mark.parametrize("kind", ARCHIVES)
def test_a_changed_bit_loses_nothing_in_silence(kind: str, tmp_path: Path) -> None:
    outcomes = list(_outcomes(kind, iterate_flips(ARCHIVES[kind](make_content()), FLIPS), tmp_path))
    assert len(outcomes) == FLIPS
    if kind.endswith(".tar"):  # which has no checksum of contents and of long names
        assert all(len(one.missing) <= 1 and len(one.changed) <= 1 for one in outcomes)
    else:
        assert not [one for one in outcomes if one.missing or one.changed]
    assert any(one.refused for one in outcomes)


@pytest.mark.parametrize("kind", ARCHIVES)
def test_a_cut_archive_is_refused(kind: str, tmp_path: Path) -> None:
    outcomes = list(_outcomes(kind, iterate_cuts(ARCHIVES[kind](make_content()), CUTS), tmp_path))
    assert len(outcomes) > CUTS
    assert not [one for one in outcomes if one.missing or one.changed]
    if kind.endswith(".tar"):  # the zeros after the last file may be fewer
        assert all(one.refused for one in outcomes[: len(outcomes) // 2])
    else:
        assert all(one.refused for one in outcomes)


def test_no_bit_of_its_mode_makes_a_file_of_a_zip_vanish(tmp_path: Path) -> None:
    """As a folder, which has no content, it would not even be looked at."""
    whole = ARCHIVES["stored.zip"](make_content())
    first = whole.index(b"PK\1\2")  # an empty file
    mode = whole.index(b"PK\1\2", first + 1) + 38

    def flips() -> Iterator[tuple[str, bytes]]:
        for bit in range(32):
            data = bytearray(whole)
            data[mode + bit // 8] ^= 1 << bit % 8
            yield f"bit {bit}", bytes(data)

    outcomes = list(_outcomes("stored.zip", flips(), tmp_path))
    assert [one.what for one in outcomes if one.missing or one.changed] == []
    (folder,) = (one for one in outcomes if one.refused)
    assert folder.refused == "'photos/b/001.png' is marked as a folder, and has 1 byte"
