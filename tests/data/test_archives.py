"""Archives are unpacked once, and never outside their folder or without bound."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from budwood.data.archives import extract, is_archive
from budwood.errors import DataError
from budwood.progress import Silent
from conftest import fill


def _tar(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize(("name", "mode"), [("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tar.xz", "w:xz")])
def test_a_tar_is_unpacked_and_reused(name: str, mode: str, tmp_path: Path) -> None:
    archive = _tar(tmp_path / name, {"x/1.png": b"one", "y/2.png": b"two"}, mode)
    assert is_archive(archive)
    folder = extract(archive, tmp_path / "cache", Silent())
    assert (folder / "x/1.png").read_bytes() == b"one"
    (folder / "mark").write_text("kept")
    assert extract(archive, tmp_path / "cache", Silent()) == folder
    assert (folder / "mark").exists()


def test_a_zip_is_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x/1.png", b"one")
    assert (extract(tmp_path / "a.zip", tmp_path / "cache", Silent()) / "x/1.png").read_bytes() == b"one"


@pytest.mark.parametrize("name", ["../out.png", "/etc/out.png", "x/../../out.png", "..\\out.png", "C:\\out.png"])
def test_a_path_that_leaves_the_folder_is_refused(name: str, tmp_path: Path) -> None:
    archive = _tar(tmp_path / "a.tar", {"x/1.png": b"one", name: b"bad"})
    with pytest.raises(DataError, match="is outside the folder"):
        extract(archive, tmp_path / "cache", Silent())
    assert not list((tmp_path / "cache").rglob("*.png"))
    assert not (tmp_path / "out.png").exists()


def test_a_zip_path_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("../out.png", b"bad")
    with pytest.raises(DataError, match="is outside the folder"):
        extract(tmp_path / "a.zip", tmp_path / "cache", Silent())


def test_links_are_not_followed(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        link = tarfile.TarInfo("x/link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        info = tarfile.TarInfo("x/1.png")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"one"))
    folder = extract(tmp_path / "a.tar", tmp_path / "cache", Silent())
    assert [path.name for path in (folder / "x").iterdir()] == ["1.png"]


def test_a_bomb_is_refused_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("budwood.data.archives.FREE_GROWTH", 1000)
    archive = _tar(tmp_path / "a.tar.xz", {f"x/{number}.png": bytes(200_000) for number in range(3)}, "w:xz")
    with pytest.raises(DataError, match="unpacks to more than"):
        extract(archive, tmp_path / "cache", Silent())
    assert not list((tmp_path / "cache" / "archives").iterdir())


def test_a_damaged_archive_is_told(tmp_path: Path) -> None:
    fill(tmp_path / "x", 5)
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "x", "x")
    whole = (tmp_path / "a.tar.gz").read_bytes()
    (tmp_path / "a.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cannot be read completely"):
        extract(tmp_path / "a.tar.gz", tmp_path / "cache", Silent())
    assert not list((tmp_path / "cache" / "archives").iterdir())
