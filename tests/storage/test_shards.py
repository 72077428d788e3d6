"""A store never gives a wrong value: not after a kill, a full disk, a flipped bit or two writers."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from budwood.storage.atomic import _machine_name, draft_folder, make_storage_error, sweep_drafts, write_text
from budwood.storage.shards import ShardStore

IDS = [f"{number:032x}" for number in range(6)]
VALUES = np.random.default_rng(0).normal(0, 1, (6, 4)).astype(np.float32)


def _store(folder: Path) -> ShardStore:
    return ShardStore(folder, (4,), np.float32)


def test_what_is_added_is_read_back_also_by_another_process(tmp_path: Path) -> None:
    mine, theirs = _store(tmp_path), _store(tmp_path)
    mine.add(IDS[:4], VALUES[:4])
    theirs.add(IDS[4:], VALUES[4:])
    mine.refresh()
    for store in (mine, _store(tmp_path)):
        rows = [store.row(id) for id in IDS]
        assert all(row is not None and np.array_equal(row, value) for row, value in zip(rows, VALUES, strict=True))
    assert mine.row("f" * 32) is None
    assert IDS[0] in mine
    assert "f" * 32 not in mine


def test_a_writer_killed_before_the_commit_leaves_nothing(tmp_path: Path) -> None:
    _store(tmp_path).add(IDS, VALUES)
    next(tmp_path.glob("*.ids.npy")).unlink()
    assert _store(tmp_path).row(IDS[0]) is None


@pytest.mark.parametrize("place", [0, 200, -1])
def test_a_flipped_bit_is_never_served(place: int, tmp_path: Path) -> None:
    _store(tmp_path).add(IDS, VALUES)
    file = next(path for path in tmp_path.glob("*.npy") if not path.name.endswith(".ids.npy"))
    data = bytearray(file.read_bytes())
    data[place] ^= 16
    file.write_bytes(bytes(data))
    store = _store(tmp_path)
    for id, value in zip(IDS, VALUES, strict=True):
        row = store.row(id)
        assert row is None or np.array_equal(row, value)
    assert any(store.row(id) is None for id in IDS)


def test_a_cut_file_is_never_served(tmp_path: Path) -> None:
    _store(tmp_path).add(IDS, VALUES)
    for file in tmp_path.glob("*.npy"):
        data = file.read_bytes()
        file.write_bytes(data[: len(data) // 2])
        assert _store(tmp_path).row(IDS[0]) is None
        file.write_bytes(data)


def test_no_bit_of_a_header_stops_work_or_gives_a_wrong_row(tmp_path: Path) -> None:
    _store(tmp_path).add(IDS, VALUES)
    for file in tmp_path.glob("*.npy"):
        whole = file.read_bytes()
        for place in range(0, 8 * 128, 7):
            data = bytearray(whole)
            data[place // 8] ^= 1 << place % 8
            file.write_bytes(data)
            row = _store(tmp_path).row(IDS[0])
            assert row is None or np.array_equal(row, VALUES[0])
        file.write_bytes(whole)


def test_a_full_disk_leaves_the_old_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = _store(tmp_path)
    store.add(IDS[:3], VALUES[:3])

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space left"):
            store.add(IDS[3:], VALUES[3:])
    again = _store(tmp_path)
    assert again.row(IDS[0]) is not None
    assert again.row(IDS[4]) is None
    assert not list(tmp_path.glob(".*"))


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def interrupted() -> None:
        with draft_folder(tmp_path / "run") as draft:
            write_text(draft / "a.txt", "half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []
    with draft_folder(tmp_path / "run") as draft:
        write_text(draft / "a.txt", "whole")
    assert (tmp_path / "run" / "a.txt").read_text() == "whole"


def test_drafts_of_dead_processes_are_swept_and_of_living_ones_kept(tmp_path: Path) -> None:
    dead, alive = (
        tmp_path / f".run.{_machine_name()}-999999999.part",
        tmp_path / f".run.{_machine_name()}-{os.getpid()}.part",
    )
    dead.mkdir()
    alive.mkdir()
    sweep_drafts(tmp_path)
    assert not dead.exists()
    assert alive.exists()


def test_drafts_of_either_form_of_name_are_swept_whatever_their_age(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.node", lambda: "box")
    mine = f"box-{os.getpid()}"
    dead = (".run.box-999999999.part", ".run.1.box-999999999-r0123abcd.part")
    kept = (
        f".run.{mine}.part",
        f".run.{mine}-r0123abcd.part",
        ".run.box-7-999999999.part",
        ".run.box-x-999999999.part",
    )
    for name in (*dead, *kept):
        (tmp_path / name).mkdir()
        for when in (1.0, 4e9):  # long ago, and after today, as when the clock was set back
            os.utime(tmp_path / name, (when, when))
    sweep_drafts(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(kept)


def test_a_write_sweeps_what_a_killed_process_left_of_a_file(tmp_path: Path) -> None:
    mine, here = f"{_machine_name()}-{os.getpid()}-r0123abcd", f"{_machine_name()}-999999999-r0123abcd"
    kept = {f".x.{mine}.part", f".x.{here}-n7.part", ".x.elsewhere-999999999-r0123abcd.part", ".mine.part"}
    for name in (f".x.csv.{here}.part", *kept):
        (tmp_path / name).write_text("half")
    write_text(tmp_path / "x.csv", "whole")
    assert {path.name for path in tmp_path.iterdir()} == {*kept, "x.csv"}


def test_a_killed_process_left_no_draft_after_the_next_write(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from budwood.storage.atomic import write_atomically\n"
        "write_atomically(Path(sys.argv[1]), lambda draft: (draft.write_text('half'), os.kill(os.getpid(), 9)))"
    )
    assert subprocess.run([sys.executable, "-c", script, tmp_path / "x.csv"], check=False).returncode == -9
    assert len(list(tmp_path.iterdir())) == 1
    write_text(tmp_path / "y.csv", "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["y.csv"]


@pytest.mark.parametrize("name", ["x" * 255, "ü" * 127])
def test_a_name_may_be_as_long_as_the_disk_takes(tmp_path: Path, name: str) -> None:
    write_text(tmp_path / name, "whole")
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("count", [3, 65])
def test_the_files_of_a_draft_are_on_the_disk_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    flushed: list[int] = []
    fsync = os.fsync

    def note(handle: int) -> None:
        assert not (tmp_path / "folder").exists()
        flushed.append(os.fstat(handle).st_ino)
        fsync(handle)

    monkeypatch.setattr("os.fsync", note)
    monkeypatch.setattr("os.sync", lambda: flushed.extend(range(count)))
    with draft_folder(tmp_path / "folder") as draft:
        for number in range(count):
            (draft / "in" / str(number)).mkdir(parents=True)
            (draft / "in" / str(number) / "a.png").write_text("content")
        (draft / "link").symlink_to("in")
    inodes = {file.stat().st_ino for file in (tmp_path / "folder").rglob("a.png")}
    assert len(flushed) == count
    assert set(flushed) == (inodes if count == 3 else set(range(count)))


def test_two_threads_of_one_process_have_drafts_of_their_own(tmp_path: Path) -> None:
    with draft_folder(tmp_path / "bundle") as one, draft_folder(tmp_path / "bundle") as other:
        assert one != other
        write_text(one / "whole.txt", "one")
        write_text(other / "whole.txt", "other")
    assert (tmp_path / "bundle" / "whole.txt").read_text() == "other", "it was done first"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_storage_errors_say_what_to_do(tmp_path: Path) -> None:
    full = make_storage_error(OSError(errno.ENOSPC, "No space left on device"), tmp_path)
    assert "no space left on the disk" in full.message
    denied = make_storage_error(OSError(errno.EACCES, "Permission denied"), tmp_path)
    assert "cannot be written (Permission denied)" in denied.message
    assert "BUDWOOD_CACHE" in denied.hint


def test_of_two_that_make_one_folder_the_first_wins_and_nobody_fails(tmp_path: Path) -> None:
    with draft_folder(tmp_path / "bundle") as mine:
        write_text(mine / "whole.txt", "mine")
        (tmp_path / "bundle").mkdir()
        write_text(tmp_path / "bundle" / "whole.txt", "theirs")
    assert (tmp_path / "bundle" / "whole.txt").read_text() == "theirs"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_draft_of_another_machine_is_left_alone(tmp_path: Path) -> None:
    theirs = tmp_path / ".run.elsewhere-999999999.part"
    theirs.mkdir()
    sweep_drafts(tmp_path)
    assert theirs.is_dir()
