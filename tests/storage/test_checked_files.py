"""A file that was damaged counts as missing, whatever was damaged in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from budwood.storage.checked_files import (
    digest_bytes,
    read_checked,
    read_checked_bytes,
    read_if_whole,
    write_checked,
    write_checked_bytes,
)

RECORD = {"name": "größer", "n": 3, "share": 0.25, "nothing": None, "many": [1, {"a": True}]}


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_checked(tmp_path / "a.json", RECORD)
    assert read_checked(tmp_path / "a.json") == RECORD
    assert read_checked(tmp_path / "none.json") is None


def test_no_flipped_bit_and_no_cut_changes_a_record(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write_checked(file, RECORD)
    whole = file.read_bytes()
    for bit in range(len(whole) * 8):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        file.write_bytes(damaged)
        assert read_checked(file) in (None, RECORD)
    for length in range(len(whole) - 1):
        file.write_bytes(whole[:length])
        assert read_checked(file) is None
    for odd in (b"[]", b"3", b"null", b"[" * 100_000, b'{"record": 3, "digest": ""}'):
        file.write_bytes(odd)
        assert read_checked(file) is None


def test_a_record_of_another_file_is_none(tmp_path: Path) -> None:
    for name in ("one/a.json", "one/b.json", "two/a.json"):
        write_checked(tmp_path / name, {**RECORD, "of": name})
    whole = (tmp_path / "one/a.json").read_bytes()
    for name in ("one/b.json", "two/a.json"):
        (tmp_path / name).write_bytes(whole)
        assert read_checked(tmp_path / name) is None
    (tmp_path / "moved").mkdir()
    (tmp_path / "one").rename(tmp_path / "moved" / "one")
    assert read_checked(tmp_path / "moved/one/a.json") == {**RECORD, "of": "one/a.json"}


def test_numbers_that_are_none_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_checked(tmp_path / "a.json", {"loss": float("nan")})
    assert not (tmp_path / "a.json").exists()


def test_a_file_is_read_only_whole(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"content")
    assert read_if_whole(tmp_path / "a", digest_bytes(b"content")) == b"content"
    assert read_if_whole(tmp_path / "a", digest_bytes(b"contents")) is None
    assert read_if_whole(tmp_path / "b", digest_bytes(b"content")) is None


def test_no_flipped_bit_and_no_cut_changes_bytes(tmp_path: Path) -> None:
    file = tmp_path / "a"
    for content in (b"", b"content"):
        write_checked_bytes(file, content)
        whole = file.read_bytes()
        assert read_checked_bytes(file) == content
        for bit in range(len(whole) * 8):
            damaged = bytearray(whole)
            damaged[bit // 8] ^= 1 << bit % 8
            file.write_bytes(damaged)
            assert read_checked_bytes(file) is None
        for length in range(len(whole)):
            file.write_bytes(whole[:length])
            assert read_checked_bytes(file) is None
    assert read_checked_bytes(tmp_path / "none") is None
