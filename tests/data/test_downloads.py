"""Why a data set could not be downloaded: the network, the disk and damaged files are told apart."""

from __future__ import annotations

import errno
import http.client
import socket
import ssl
import tarfile
import urllib.error
from pathlib import Path

import pytest

from budwood.data import downloads
from budwood.data.downloads import Source, fetch
from budwood.errors import BudwoodError, DataError, StorageError
from budwood.progress import Progress, Silent
from budwood.storage.context import Context


def _fail(monkeypatch: pytest.MonkeyPatch, place: Path, error: Exception) -> BudwoodError:
    def raise_error(raw: Path, draft: Path, progress: Progress) -> None:
        raise error

    monkeypatch.setitem(downloads.SOURCES, "cifar10", Source(10, raise_error))
    with pytest.raises(BudwoodError) as caught:
        fetch("cifar10", Context(place, Silent()))
    assert not (place / "sources" / "cifar10").exists()
    return caught.value


@pytest.mark.parametrize(
    "error",
    [
        ssl.SSLError(1, "[SSL: CERTIFICATE_VERIFY_FAILED]"),
        urllib.error.URLError("no route"),
        socket.gaierror(-2, "Name or service not known"),
        http.client.IncompleteRead(b"half"),
        ConnectionResetError(errno.ECONNRESET, "reset"),
        TimeoutError("timed out"),
    ],
    ids=repr,
)
def test_an_error_of_the_network_is_one(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = _fail(monkeypatch, tmp_path, error)
    assert isinstance(told, DataError)
    assert told.message == f"cifar10: cannot be downloaded ({error})."
    assert told.hint.startswith("Connect to the internet, or give a folder that contains it: ")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS])
def test_an_error_of_the_disk_is_one(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = _fail(monkeypatch, tmp_path, OSError(number, "the disk says no"))
    assert isinstance(told, StorageError)
    full = number in (errno.ENOSPC, errno.EDQUOT)
    assert ("no space left on the disk" if full else "cannot be written (the disk says no)") in told.message
    assert "BUDWOOD_CACHE" in told.hint


@pytest.mark.parametrize(
    "error", [RuntimeError("File not found or corrupted."), tarfile.ReadError("bad"), EOFError("early")], ids=repr
)
def test_damaged_downloads_are_told(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = _fail(monkeypatch, tmp_path, error)
    assert told.message == f"cifar10: what was downloaded is damaged or incomplete ({error})."
    assert told.hint.startswith("Run the command again, or give a folder")
