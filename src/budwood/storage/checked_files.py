"""Files of the cache that carry their digest: what a disk or a kill has damaged counts as missing, never as true."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from budwood.storage.atomic import write_bytes, write_text
from budwood.storage.strict_json import decode_json

_DIGITS: Final = 32  # of a digest


def digest_bytes(data: bytes) -> str:
    """Compute the BLAKE2b-128 digest of bytes.

    Args:
        data: Any bytes.

    Returns:
        The digest, 32 hex digits.
    """
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def encode_checked(record: Mapping[str, Any], place: str) -> str:
    """Write a record as JSON beside its digest.

    Args:
        record: Values that JSON can hold; numbers are finite.
        place: Names of the file's folder and of the file, as `name_place` gives them: what is read in another place
            is not what was written there.

    Returns:
        The text, which `decode_checked` reads.

    Raises:
        ValueError: A number is not finite.
    """
    text = json.dumps(record, allow_nan=False, sort_keys=True)
    return f'{{"digest": "{_digest(text, place)}", "record": {text}}}\n'


def name_place(file: Path) -> str:
    """Name the place of a file in the cache: its folder and itself."""
    return f"{file.parent.name}/{file.name}"


def decode_checked(text: str, place: str) -> dict[str, Any] | None:
    """Read a record that `encode_checked` wrote.

    Args:
        text: The text of a file.
        place: The place of the file, as `encode_checked` was given it.

    Returns:
        The record; None where it was changed, is cut short, or was written in another way or for another place.
    """
    try:
        held = decode_json(text)
        record: dict[str, Any] = held["record"]
        whole = json.dumps(record, allow_nan=False, sort_keys=True)
        return record if isinstance(record, dict) and held["digest"] == _digest(whole, place) else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def write_checked(file: Path, record: Mapping[str, Any]) -> None:
    """Write a record atomically, beside its digest.

    Args:
        file: File to make or replace.
        record: Values that JSON can hold.

    Raises:
        OSError: The file cannot be written.
    """
    write_text(file, encode_checked(record, name_place(file)))


def read_checked(file: Path) -> dict[str, Any] | None:
    """Read a record that `write_checked` wrote.

    Args:
        file: The file.

    Returns:
        The record; None where there is no such file, it is damaged, or it is another one.
    """
    try:
        return decode_checked(file.read_text(encoding="utf-8"), name_place(file))
    except (OSError, ValueError):
        return None


def write_checked_bytes(file: Path, data: bytes) -> None:
    """Write bytes atomically, with their digest at the end.

    Args:
        file: File to make or replace.
        data: The content.

    Raises:
        OSError: The file cannot be written.
    """
    write_bytes(file, data + digest_bytes(data).encode())


def read_checked_bytes(file: Path) -> bytes | None:
    """Read bytes that `write_checked_bytes` wrote.

    Args:
        file: The file.

    Returns:
        The content without its digest; None where there is no such file, or it is damaged or was written in another
        way.
    """
    try:
        held = file.read_bytes()
    except OSError:
        return None
    data, digest = held[:-_DIGITS], held[-_DIGITS:]
    return data if digest == digest_bytes(data).encode() else None


def read_if_whole(file: Path, digest: str) -> bytes | None:
    """Read a file whose digest is known.

    Args:
        file: The file.
        digest: Its BLAKE2b-128 digest in hex.

    Returns:
        Its content; None where it cannot be read, or has another digest.
    """
    try:
        data = file.read_bytes()
    except OSError:
        return None
    return data if digest_bytes(data) == digest else None


def _digest(text: str, place: str) -> str:
    return digest_bytes(f"{place}\n{text}".encode())
