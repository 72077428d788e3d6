"""Archives are unpacked once, and never outside their folder or without bound."""

from __future__ import annotations

import errno
import gzip
import io
import lzma
import os
import shutil
import tarfile
import time
import zipfile
from collections import namedtuple
from pathlib import Path
from typing import IO

import pytest

import budwood as bw
from budwood.data import unpacking
from budwood.data.archive_members import ArchiveFaultError, raise_archive_faults
from budwood.data.archives import extract, extract_listed, is_archive, iterate_members
from budwood.errors import BudwoodError, DataError, StorageError
from budwood.progress import Silent
from budwood.storage.context import Context
from budwood.storage.folder_manifest import MANIFEST
from conftest import fill


class Said(Silent):
    """Keeps the notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)


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
    folder = extract(archive, Context(tmp_path / "cache", Silent()))
    assert (folder / "x/1.png").read_bytes() == b"one"
    (folder / "mark").write_text("kept")
    assert extract(archive, Context(tmp_path / "cache", Silent())) == folder
    assert (folder / "mark").exists()


def test_a_zip_is_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x/1.png", b"one")
    assert (extract(tmp_path / "a.zip", Context(tmp_path / "cache", Silent())) / "x/1.png").read_bytes() == b"one"


@pytest.mark.parametrize("name", ["../out.png", "/etc/out.png", "x/../../out.png", "..\\out.png", "C:\\out.png"])
def test_a_path_that_leaves_the_folder_is_refused(name: str, tmp_path: Path) -> None:
    archive = _tar(tmp_path / "a.tar", {"x/1.png": b"one", name: b"bad"})
    with pytest.raises(DataError, match="is outside the folder"):
        extract(archive, Context(tmp_path / "cache", Silent()))
    assert not list((tmp_path / "cache").rglob("*.png"))
    assert not (tmp_path / "out.png").exists()


def test_a_zip_path_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("../out.png", b"bad")
    with pytest.raises(DataError, match="is outside the folder"):
        extract(tmp_path / "a.zip", Context(tmp_path / "cache", Silent()))


def test_links_are_not_followed(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        link = tarfile.TarInfo("x/link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        info = tarfile.TarInfo("x/1.png")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"one"))
    folder = extract(tmp_path / "a.tar", Context(tmp_path / "cache", Silent()))
    assert [path.name for path in (folder / "x").iterdir()] == ["1.png"]


def test_a_bomb_is_refused_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("budwood.data.archives.FREE_GROWTH", 1000)
    archive = _tar(tmp_path / "a.tar.xz", {f"x/{number}.png": bytes(200_000) for number in range(3)}, "w:xz")
    with pytest.raises(DataError, match="unpacks to more than"):
        extract(archive, Context(tmp_path / "cache", Silent()))
    assert not list((tmp_path / "cache" / "archives").iterdir())


def test_a_damaged_archive_is_told(tmp_path: Path) -> None:
    fill(tmp_path / "x", 5)
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "x", "x")
    whole = (tmp_path / "a.tar.gz").read_bytes()
    (tmp_path / "a.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cannot be read completely"):
        extract(tmp_path / "a.tar.gz", Context(tmp_path / "cache", Silent()))
    assert not list((tmp_path / "cache" / "archives").iterdir())


def _zip(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def _special(name: str, type: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = type, target
    return info


def _tar_of(path: Path, *members: tarfile.TarInfo | tuple[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return path


def _files(folder: Path) -> dict[str, bytes]:
    found = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != MANIFEST]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def _refusal(archive: Path) -> BudwoodError:
    """The error of an archive, of which nothing is left in the cache."""
    cache = archive.parent / "cache"
    with pytest.raises(DataError, match=f"^{archive}: the archive cannot be ") as caught:
        extract(archive, Context(cache, Silent()))
    assert not list((cache / "archives").iterdir())
    return caught.value


def test_a_damaged_header_is_no_end(tmp_path: Path) -> None:
    archive = _tar(tmp_path / "a.tar", {f"{'xy'[n // 5]}/{n}.png": b"data" for n in range(10)})
    data = bytearray(archive.read_bytes())
    data[5 * 1024 + 3] ^= 1
    archive.write_bytes(data)
    error = _refusal(archive)
    assert error.message.endswith("the archive cannot be read completely (the header at byte 5,120 is damaged).")
    assert error.hint == "Download or pack it again."


@pytest.mark.parametrize("type", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_tar_may_not_end_after_a_header_of_a_name(type: bytes, tmp_path: Path) -> None:
    archive = _tar(tmp_path / "a.tar", {"x/1.png": b"one"})
    header = _special("x", type)
    head = header.tobuf(tarfile.GNU_FORMAT)
    archive.write_bytes(archive.read_bytes()[:1024] + head + bytes(1024))
    if type == tarfile.GNUTYPE_LONGNAME:
        assert "before the file of its last header" in _refusal(archive).message
    else:
        assert _files(extract(archive, Context(tmp_path / "cache", Silent()))) == {"x/1.png": b"one"}


def _pax(record: bytes) -> bytes:
    """A tar whose one file has an extended header."""
    header = _special("x", tarfile.XHDTYPE)
    header.size = len(record)
    member = tarfile.TarInfo("x/1.png")
    return header.tobuf(tarfile.USTAR_FORMAT) + record.ljust(512, b"\0") + member.tobuf() + bytes(1024)


def test_a_damaged_extended_header_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    archive.write_bytes(_pax(b"16 path=x/2.png\n"))
    assert _files(extract(archive, Context(tmp_path / "cache", Silent()))) == {"x/2.png": b""}
    shutil.rmtree(tmp_path / "cache")
    for record in (b"17 path=x/2.png\n", b"15 path=x/2.png\n", b"x6 path=x/2.png\n", b"0 path=\n", b"9 size=x\n"):
        archive.write_bytes(_pax(record))
        assert "(the extended header at byte 512 is damaged)" in _refusal(archive).message
    huge = _special("x", tarfile.XHDTYPE)
    huge.size = 2**21
    archive.write_bytes(huge.tobuf() + bytes(2048))
    assert "(the extended header at byte 512 is damaged)" in _refusal(archive).message


def test_one_of_several_volumes_is_refused(tmp_path: Path) -> None:
    error = _refusal(_tar_of(tmp_path / "a.tar", _special("x/1.png", b"M")))
    assert "cannot be used (it is one of several volumes)" in error.message
    assert error.hint == "Unpack all volumes with tar -M, and give the folder."


def test_the_name_of_a_volume_is_no_member(tmp_path: Path) -> None:
    archive = _tar_of(tmp_path / "a.tar", _special("my volume", b"V"), ("x/1.png", b"one"))
    found = extract_listed(archive, Context(tmp_path / "cache", Silent()))
    assert (_files(found.folder), found.skipped) == ({"x/1.png": b"one"}, ())


def test_a_size_in_base_256_is_read(tmp_path: Path) -> None:
    archive = _tar(tmp_path / "a.tar", {"x/1.png": b"one"})
    data = bytearray(archive.read_bytes())
    data[124:136] = b"\x80" + (3).to_bytes(11, "big")
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    archive.write_bytes(data)
    assert _files(extract(archive, Context(tmp_path / "cache", Silent()))) == {"x/1.png": b"one"}


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "unpacking it takes more memory than there is"),
        (OSError(errno.EIO, "Input/output error"), "the disk says: Input/output error"),
        (OSError("Invalid data stream"), "its data are damaged: Invalid data stream"),
        (lzma.LZMAError("Corrupt input data"), "its data are damaged: Corrupt input data"),
        (EOFError(), "it ends too early: it is cut off"),
    ],
    ids=repr,
)
def test_what_reading_raises_is_told(error: Exception, message: str) -> None:
    with pytest.raises(ArchiveFaultError, match=f"^{message}$"), raise_archive_faults():
        raise error


def test_a_tar_of_endless_zeros_is_refused(tmp_path: Path) -> None:
    archive = _tar(tmp_path / "a.tar.gz", {"x/1.png": b"one"}, "w:gz")
    archive.write_bytes(archive.read_bytes() + gzip.compress(bytes(100_000)))
    with pytest.raises(ArchiveFaultError, match="it unpacks to more than 0 MiB, the limit for an archive of images"):
        list(iterate_members(archive, 50_000))


def test_padding_is_read_over_and_other_bytes_after_the_end_are_not(tmp_path: Path) -> None:
    archive = _tar(tmp_path / "a.tar", {"x/1.png": b"one"})
    whole = archive.read_bytes()
    archive.write_bytes(whole + bytes(100_001))
    assert _files(extract(archive, Context(tmp_path / "cache", Silent()))) == {"x/1.png": b"one"}
    shutil.rmtree(tmp_path / "cache")
    for more in (b"garbage", whole):
        archive.write_bytes(whole + more)
        error = _refusal(archive)
        assert "goes on after the end marker" in error.message
        assert "several archives were joined" in error.message
        assert "--ignore-zeros" in error.hint


def test_a_tar_without_an_end_marker_is_cut_off(tmp_path: Path) -> None:
    archive = _tar(tmp_path / "a.tar", {"x/1.png": b"one"})
    whole = archive.read_bytes()
    for length, message in [
        (1024, "ends at byte 1,024 without an end marker: it is cut off"),
        (1000, "ends at byte 1,000, within 'x/1.png': it is cut off"),
        (1100, "ends at byte 1,100, within a header: it is cut off"),
    ]:
        archive.write_bytes(whole[:length])
        assert message in _refusal(archive).message


def test_links_within_the_archive_are_followed_and_others_listed(tmp_path: Path) -> None:
    (tmp_path / "out.png").write_bytes(b"secret")
    archive = _tar_of(
        tmp_path / "a.tar",
        _special("b/soft.png", tarfile.SYMTYPE, "../a/1.png"),
        _special("train/a", tarfile.SYMTYPE, "../a"),
        ("a/1.png", b"one"),
        _special("b/hard.png", tarfile.LNKTYPE, "a/1.png"),
        _special("b/chain.png", tarfile.SYMTYPE, "../train/a/1.png"),
        _special("b/out.png", tarfile.SYMTYPE, "../../out.png"),
        _special("b/root.png", tarfile.SYMTYPE, str(tmp_path / "out.png")),
        _special("b/circle.png", tarfile.SYMTYPE, "circle.png"),
        _special("b/lost.png", tarfile.LNKTYPE, "a/2.png"),
        _special("up", tarfile.SYMTYPE, "a/.."),
        _special("b/sly.png", tarfile.SYMTYPE, "../up/../out.png"),
        _special("b/dir.png", tarfile.LNKTYPE, "a"),
        _special("train/a/in.png", tarfile.SYMTYPE, "1.png"),
    )
    found = extract_listed(archive, Context(tmp_path / "cache", Silent()))
    assert all((found.folder / f"b/{name}.png").read_bytes() == b"one" for name in ("soft", "hard", "chain"))
    assert (found.folder / "train/a/1.png").read_bytes() == b"one"
    reasons = dict(found.skipped)
    assert reasons.pop("b/lost.png") == "is a link to 'a/2.png', which is not in the archive"
    assert reasons.pop("b/dir.png") == "is a hard link to the folder 'a'"
    assert reasons.pop("train/a/in.png") == "is in 'train/a', which is a link"
    assert sorted(reasons) == ["b/circle.png", "b/out.png", "b/root.png", "b/sly.png"]
    assert all(reason.endswith("outside the archive") for reason in reasons.values())
    inside = os.path.realpath(found.folder)
    assert all(os.path.realpath(path).startswith(inside) for path in found.folder.rglob("*"))
    assert extract_listed(archive, Context(tmp_path / "cache", Silent())) == found


def test_a_link_in_a_zip_is_followed(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x/1.png", b"one")
        for name, target in (("x/2.png", "1.png"), ("x/3.png", "/etc/passwd")):
            info = zipfile.ZipInfo(name)
            info.external_attr = 0o120777 << 16
            archive.writestr(info, target)
    found = extract_listed(tmp_path / "a.zip", Context(tmp_path / "cache", Silent()))
    assert _files(found.folder) == {"x/1.png": b"one", "x/2.png": b"one"}
    assert found.skipped == (("x/3.png", "is a link to '/etc/passwd', outside the archive"),)


def test_what_is_no_file_is_listed_with_the_count_and_the_first(tmp_path: Path) -> None:
    archive = _tar_of(
        tmp_path / "a.tar",
        _special("x/pipe", tarfile.FIFOTYPE),
        _special("x/disk", tarfile.BLKTYPE),
        _special("x/terminal", tarfile.CHRTYPE),
        _special("x/holes.png", tarfile.GNUTYPE_SPARSE),
        _special("x/odd", b"Q"),
        ("x/more.tar.gz", b"packed"),
        (".budwood/x.png", b"ours"),
        ("x/.1.png", b"hidden"),
        ("x/1.png", b"one"),
        ("__MACOSX/x/._1.png", b"clutter"),
        ("x/.DS_Store", b"clutter"),
    )
    said = Said()
    found = extract_listed(archive, Context(tmp_path / "cache", said))
    assert _files(found.folder) == {"x/.1.png": b"hidden", "x/1.png": b"one"}
    assert dict(found.skipped) == {
        "x/pipe": "is a named pipe",
        "x/disk": "is a device",
        "x/terminal": "is a device",
        "x/holes.png": "is a sparse file",
        "x/odd": "is of an unknown type",
        "x/more.tar.gz": "is an archive inside the archive",
        ".budwood/x.png": "has a name that Budwood keeps for itself",
        "x/.1.png": "is hidden, as its name begins with a dot",
    }
    assert said.notes == [
        "Unpacking a.tar",
        "a.tar: 8 members not used: 'x/pipe' is a named pipe; 'x/disk' is a device; "
        "'x/terminal' is a device; and 5 more.",
    ]
    again = Said()
    extract(archive, Context(tmp_path / "cache", again))
    assert again.notes == said.notes[1:], "it is said each time"


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_of_members_with_one_name_the_last_counts_and_the_others_are_listed(kind: str, tmp_path: Path) -> None:
    archive = tmp_path / f"a.{kind}"
    members = [("x/1.png", b"first"), ("./x/1.png", b"second"), ("x//1.png", b"third")]
    if kind == "tar":
        _tar_of(archive, *members)
    else:
        with zipfile.ZipFile(archive, "w") as out:
            for name, data in members:
                out.writestr(name, data)
    found = extract_listed(archive, Context(tmp_path / "cache", Silent()))
    assert _files(found.folder) == {"x/1.png": b"third"}
    reason = "comes more than once; the last one is used"
    assert found.skipped == (("./x/1.png", reason), ("x//1.png", reason))


def test_names_that_differ_in_case_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = _tar(tmp_path / "a.tar", {"x/A.png": b"one", "x/a.png": b"two"})
    assert _files(extract(archive, Context(tmp_path / "one", Silent()))) == {"x/A.png": b"one", "x/a.png": b"two"}
    monkeypatch.setattr(unpacking, "_ignores_case", lambda folder: True)
    found = extract_listed(archive, Context(tmp_path / "two", Silent()))
    assert _files(found.folder) == {"x/A.png": b"one"}
    assert found.skipped == (("x/a.png", "differs only in case from 'x/A.png', and this disk takes them for the same"),)


def test_names_that_are_odd(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as out:
        info = tarfile.TarInfo("x/nul")
        info.pax_headers = {"path": "x/a\0b.png"}
        out.addfile(info)
        for name in ("x/ä.png", f"x/{'n' * 300}.png", "x/bad\udcff.png"):
            info = tarfile.TarInfo(name)
            info.size = 3
            out.addfile(info, io.BytesIO(b"one"))
    found = extract_listed(archive, Context(tmp_path / "cache", Silent()))
    assert (found.folder / "x/ä.png").read_bytes() == b"one"
    assert os.fsencode(found.folder / "x") + b"/bad\xff.png" in {os.fsencode(p) for p in found.folder.rglob("*")}
    assert found.skipped == (
        ("x/a\\0b.png", "has a NUL character in its name"),
        (f"x/{'n' * 300}.png", "has a name that this disk does not take, such as one of over 255 bytes"),
    )
    assert extract_listed(archive, Context(tmp_path / "cache", Silent())) == found


def test_files_where_folders_are(tmp_path: Path) -> None:
    archive = _tar_of(
        tmp_path / "a.tar",
        ("x", b""),
        ("x/1.png", b"one"),
        ("x", b"full"),
        ("y", b"file"),
        ("y/1.png", b"in"),
        ("x", b""),
    )
    found = extract_listed(archive, Context(tmp_path / "cache", Silent()))
    assert _files(found.folder) == {"x/1.png": b"one", "y": b"file"}
    assert found.skipped == (("x", "has the name of a folder"), ("y/1.png", "is in 'y', which is a file"))


def test_zip_names_without_a_mark_are_read_as_utf8_where_they_can_be(tmp_path: Path) -> None:
    archive = _zip(tmp_path / "a.zip", {"Äpfel/1.png": b"one"})
    marked = archive.read_bytes()
    flags = [at for magic, by in ((b"PK\3\4", 6), (b"PK\1\2", 8)) for at in (marked.find(magic) + by + 1,)]
    plain = bytearray(marked)
    for at in flags:
        assert plain[at] == 8
        plain[at] = 0
    archive.write_bytes(plain)  # as macOS writes it
    assert _files(extract(archive, Context(tmp_path / "cache", Silent()))) == {"Äpfel/1.png": b"one"}
    old = bytes(plain).replace("Äp".encode(), "Äx".encode("cp437") + b"_")
    archive.write_bytes(old)  # as DOS wrote it
    assert list(_files(extract(archive, Context(tmp_path / "cache", Silent())))) == ["Äx_fel/1.png"]
    shutil.rmtree(tmp_path / "cache")
    archive.write_bytes(marked.replace("Äp".encode(), b"\xff\xfep"))
    assert "(a name in it is marked as UTF-8 and is not)" in _refusal(archive).message


def test_odd_members_of_a_zip_are_listed_or_refused(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as out:
        out.writestr("x/1.png", b"one")
        for name, kind, data in (
            ("x/pipe", 0o010000, b""),
            ("x/link", 0o120000, b"x" * 5000),
            ("folder", 0o040000, b""),
        ):
            info = zipfile.ZipInfo(name)
            info.external_attr = kind << 16
            out.writestr(info, data)
        dos = zipfile.ZipInfo("y")
        dos.external_attr = 0x10
        out.writestr(dos, b"")
    found = extract_listed(archive, Context(tmp_path / "cache", Silent()))
    assert _files(found.folder) == {"x/1.png": b"one"}
    assert found.skipped == (
        ("x/pipe", "is a device or named pipe"),
        ("x/link", "is a link with a damaged target"),
    )
    shutil.rmtree(tmp_path / "cache")
    whole = bytearray(archive.read_bytes())
    whole[whole.find(b"PK\1\2") + 24] = 9
    archive.write_bytes(whole)
    assert "'x/1.png' has 3 bytes instead of 9" in _refusal(archive).message


def test_a_link_that_the_disk_does_not_take_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: object, **more: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(Path, "symlink_to", refuse)
    archive = _tar_of(
        tmp_path / "a.tar",
        ("x/1.png", b"one"),
        _special("y", tarfile.SYMTYPE, "x"),
        _special("z/1.png", tarfile.LNKTYPE, "x/1.png"),
    )
    found = extract_listed(archive, Context(tmp_path / "cache", Silent()))
    assert _files(found.folder) == {"x/1.png": b"one", "z/1.png": b"one"}
    assert found.skipped == (("y", "is a link that cannot be made on this disk"),)


def _with_method(path: Path, method: int, flags: int = 0) -> Path:
    _zip(path, {"x/1.png": b"one"})
    data = bytearray(path.read_bytes())
    for start, at in ((data.find(b"PK\3\4"), 6), (data.find(b"PK\1\2"), 8)):
        data[start + at] = flags
        data[start + at + 2] = method
    path.write_bytes(data)
    return path


def test_zips_that_cannot_be_decoded_say_why(tmp_path: Path) -> None:
    locked = _refusal(_with_method(tmp_path / "a.zip", 0, flags=1))
    assert "cannot be used ('x/1.png' is encrypted)" in locked.message
    assert locked.hint == "Unpack it with its password, and give the folder."
    for method, name in ((9, "Deflate64"), (99, "AES encryption"), (77, "method 77")):
        error = _refusal(_with_method(tmp_path / "a.zip", method))
        assert f"'x/1.png' is compressed by {name}, which Budwood cannot read" in error.message
        assert error.hint == "Unpack it yourself, and give the folder."


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_every_usual_method_of_a_zip_is_read(method: int, tmp_path: Path) -> None:
    archive = _zip(tmp_path / "a.zip", {"x/1.png": b"one" * 999}, method)
    assert _files(extract(archive, Context(tmp_path / "cache", Silent()))) == {"x/1.png": b"one" * 999}


def test_a_zip64_archive_is_read_and_its_count_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
    archive = _zip(tmp_path / "a.zip", {"x/1.png": b"one", "x/2.png": b"two"})
    data = bytearray(archive.read_bytes())
    assert b"PK\6\6" in data
    assert len(_files(extract(archive, Context(tmp_path / "cache", Silent())))) == 2
    shutil.rmtree(tmp_path / "cache")
    data[data.find(b"PK\6\6") + 32] = 3
    archive.write_bytes(data)
    assert "its directory lists 2 files, and its end says 3" in _refusal(archive).message


def test_a_cut_zip_is_not_taken_for_the_zip_inside(tmp_path: Path) -> None:
    inner = _zip(tmp_path / "inner.zip", {"x/1.png": b"inner"}).read_bytes()
    archive = _zip(tmp_path / "a.zip", {"x/1.png": b"one", "x/inner.zip": inner, "x/2.png": b"two"})
    whole = archive.read_bytes()
    end = whole.find(inner) + len(inner)
    archive.write_bytes(whole[:end])
    assert "lacks the file that it begins with: it is cut off" in _refusal(archive).message
    archive.write_bytes(whole[:-22])
    assert "it goes on after the end of its directory" in _refusal(archive).message
    archive.write_bytes(whole[: len(whole) // 3])
    assert "the directory at its end is missing: it is cut off, or no zip archive" in _refusal(archive).message


def test_a_tar_that_ends_with_a_zip_is_a_tar(tmp_path: Path) -> None:
    inner = _zip(tmp_path / "inner.zip", {"y/1.png": b"inner"}).read_bytes()
    archive = _tar(tmp_path / "a.tar", {"x/1.png": b"one", "x/2.zip": inner})
    assert zipfile.is_zipfile(archive)
    found = extract_listed(archive, Context(tmp_path / "cache", Silent()))
    assert _files(found.folder) == {"x/1.png": b"one"}
    assert found.skipped == (("x/2.zip", "is an archive inside the archive"),)


@pytest.mark.parametrize(
    ("name", "data", "message", "hint"),
    [
        (
            "a.7z",
            b"7z\xbc\xaf\x27\x1c",
            "its format is 7z, which Budwood does not read",
            "Unpack it, and give the folder",
        ),
        ("a.rar", b"Rar!\x1a\7\1", "its format is RAR", "Unpack it"),
        ("a.tar.zst", b"\x28\xb5\x2f\xfd", "its format is Zstandard", "Unpack it"),
        (
            "photo.png.gz",
            gzip.compress(b"picture", mtime=0),
            "a single file compressed by gzip, not an archive",
            "Unpack it",
        ),
        (
            "a.tgz",
            gzip.compress(b"picture" * 99, mtime=0),
            "its beginning is not that of a tar archive",
            "Download or pack",
        ),
        ("a.tar", b"<html>no such page</html>" * 99, "its beginning is not that of a tar archive", "Download or pack"),
        ("a.zip", b"<html>no such page</html>", "no zip archive", "Download or pack"),
        ("a.zip", b"", "the file has 0 bytes", "Download or pack"),
        ("a.tar", bytes(10240), "it has no files in it", "Pack the folder of class folders"),
        ("a.zip", b"PK\5\6" + bytes(18), "it has no files in it", "Pack the folder of class folders"),
    ],
)
def test_other_formats_are_refused_by_name(name: str, data: bytes, message: str, hint: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    assert is_archive(tmp_path / name)
    error = _refusal(tmp_path / name)
    assert message in error.message
    assert error.hint.startswith(hint)


def test_an_archive_of_archives_says_so(tmp_path: Path) -> None:
    archive = _tar(tmp_path / "a.tar", {"train.zip": b"PK", "test.zip": b"PK"})
    message = _refusal(archive).message
    assert "it has no file that can be used: 'train.zip' is an archive inside the archive" in message


def test_an_archive_without_images_is_refused(tmp_path: Path) -> None:
    archive = _tar(tmp_path / "a.tar", {"x/1.txt": b"one", "y/2.txt": b"two"})
    with pytest.raises(DataError, match="fewer than two classes have an image that can be decoded"):
        bw.scan(archive, cache=tmp_path / "cache")


def test_more_than_the_disk_has_is_refused_before_it_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 0, 5))
    with pytest.raises(StorageError, match="more than the 0 MiB that are free on the disk") as caught:
        extract(_tar(tmp_path / "a.tar", {"x/1.png": b"picture"}), Context(tmp_path / "cache", Silent()))
    assert "BUDWOOD_CACHE" in caught.value.hint
    assert not list((tmp_path / "cache" / "archives").iterdir())


def test_a_full_disk_is_told_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, mode: str) -> IO[bytes]:
        raise OSError(errno.ENOSPC, "No space left on device")

    archive = _tar(tmp_path / "a.tar", {"x/1.png": b"one"})
    real = Path.open
    monkeypatch.setattr(
        Path, "open", lambda self, mode="r", *more, **of: (full if mode == "xb" else real)(self, mode, *more, **of)
    )
    with pytest.raises(StorageError, match="no space left on the disk"):
        extract(archive, Context(tmp_path / "cache", Silent()))


def test_the_copy_is_verified_when_it_is_used_again(tmp_path: Path) -> None:
    archive = _tar(tmp_path / "a.tar", {"x/1.png": b"one", "y/2.png": b"two"})
    folder = extract(archive, Context(tmp_path / "cache", Silent()))
    intact = _files(folder)

    def change_text() -> None:
        (folder / "x/1.png").write_bytes(b"eno")
        os.utime(folder / "x/1.png", ns=(1, 1))

    manifest = folder / MANIFEST
    for damage in (
        (folder / "x/1.png").unlink,
        change_text,
        lambda: (folder / "x/1.png").write_bytes(b"longer"),
        lambda: (folder / "x/3.png").write_bytes(b"added"),
        manifest.unlink,
        lambda: manifest.write_bytes(manifest.read_bytes()[:-1]),
        lambda: manifest.write_bytes(manifest.read_bytes().replace(b"x/1", b"x/7")),
        lambda: manifest.write_bytes(b"\xff\n"),
        lambda: shutil.rmtree(folder / "y"),
    ):
        damage()
        said = Said()
        assert extract(archive, Context(tmp_path / "cache", said)) == folder
        assert said.notes == ["Unpacking a.tar"]
        assert _files(folder) == intact
    said = Said()
    extract(archive, Context(tmp_path / "cache", said))
    assert said.notes == [], "nothing was damaged"


def test_an_archive_that_changes_is_noticed(tmp_path: Path) -> None:
    archive = _tar(tmp_path / "a.tar", {"x/1.png": b"one"})
    before = extract(archive, Context(tmp_path / "cache", Silent()))
    _tar(archive, {"x/1.png": b"two"})
    after = extract(archive, Context(tmp_path / "cache", Silent()))
    assert after != before
    assert _files(after) == {"x/1.png": b"two"}

    class Changes(Silent):
        def note(self, sentence: str) -> None:
            os.utime(archive, (time.time(), 1.0))

    _tar(archive, {"x/1.png": b"new"})
    with pytest.raises(DataError, match="was changed while it was read"):
        extract(archive, Context(tmp_path / "cache", Changes()))


def test_members_that_are_not_used_are_a_finding(tmp_path: Path) -> None:
    for place in ("x", "y"):
        fill(tmp_path / "in" / place, 6, hue=place == "x")
    (tmp_path / "in/x/link.png").symlink_to("/etc/passwd")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "in", "in")
    data = bw.scan(tmp_path / "a.tar", cache=tmp_path / "cache")
    assert len(data) == 12
    found = {finding.code: finding for finding in bw.findings(data)}["D008"]
    assert found.severity == "warning"
    assert found.files == ("in/x/link.png",)
    assert found.message == (
        "1 member of the archive is not used ('in/x/link.png' is a link to '/etc/passwd', outside the archive)."
    )


@pytest.mark.parametrize("wrapped", [False, True])
def test_labels_are_read_from_a_table_in_the_archive(wrapped: bool, tmp_path: Path) -> None:
    paths = [*fill(tmp_path / "in/images", 6), *fill(tmp_path / "in/images", 6, first=6, hue=1)]
    rows = [f"images/{path.name},{'cat' if row < 6 else 'dog'}" for row, path in enumerate(paths[:-1])]
    (tmp_path / "in/labels.csv").write_text("\n".join(["path,label", *rows]))
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        for path in (*paths, tmp_path / "in/labels.csv"):
            archive.write(path, path.relative_to(tmp_path if wrapped else tmp_path / "in"))
    said = Said()
    data = bw.scan(tmp_path / "pets.zip", cache=tmp_path / "cache", progress=said)
    assert (data.name, data.classes, len(data)) == ("pets", ("cat", "dog"), 11)
    assert [(one.path, one.detail) for one in data.set_aside] == [("images/011.png", "is not in labels.csv")]
    assert "pets.zip: labels are read from its table labels.csv." in said.notes


def test_a_table_of_a_few_of_the_images_does_not_hide_the_class_folders(tmp_path: Path) -> None:
    for place in ("x", "y"):
        fill(tmp_path / "in" / place, 6, hue=place == "x")
    (tmp_path / "in/doubtful.csv").write_text("path,label\nx/000.png,y\n")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "in", "in")
    data = bw.scan(tmp_path / "a.tar", cache=tmp_path / "cache")
    assert (data.classes, len(data)) == (("x", "y"), 12)
    assert [one.path for one in data.set_aside] == ["doubtful.csv"]


def test_a_table_in_an_archive_names_no_file_outside(tmp_path: Path) -> None:
    path = fill(tmp_path, 1)[0]
    archive = _tar(tmp_path / "a.tar", {"labels.csv": f"path,label\n{path},x\n".encode(), "x/1.png": b""})
    with pytest.raises(DataError, match=r"a\.tar, labels\.csv, row 1: .* is outside the folder"):
        bw.scan(archive, cache=tmp_path / "cache")
