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


def encode_checked(record: Mapping[str, Any]) -> str:
    """Write a record as JSON beside its digest.

    Args:
        record: Values that JSON can hold; numbers are finite.

    Returns:
        The text, which `decode_checked` reads.

    Raises:
        ValueError: A number is not finite.
    """
    text = json.dumps(record, allow_nan=False, sort_keys=True)
    return f'{{"digest": "{digest_bytes(text.encode())}", "record": {text}}}\n'


def decode_checked(text: str) -> dict[str, Any] | None:
    """Read a record that `encode_checked` wrote.

    Args:
        text: The text of a file.

    Returns:
        The record; None where it was changed, is cut short or was written in another way.
    """
    try:
        held = decode_json(text)
        record: dict[str, Any] = held["record"]
        whole = json.dumps(record, allow_nan=False, sort_keys=True)
        return record if isinstance(record, dict) and held["digest"] == digest_bytes(whole.encode()) else None
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
    write_text(file, encode_checked(record))


def read_checked(file: Path) -> dict[str, Any] | None:
    """Read a record that `write_checked` wrote.

    Args:
        file: The file.

    Returns:
        The record; None where there is no such file, or it is damaged.
    """
    try:
        return decode_checked(file.read_text(encoding="utf-8"))
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
