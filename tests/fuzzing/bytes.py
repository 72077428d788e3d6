"""Damages to the bytes of one file, each named so that it can be made again."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

SIZES: Final = (0, 1, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 13_000, 0x7FFFFFFF, 0xFFFFFFFF)  # that a header may be made to say
HEADER: Final = 64  # bytes at the beginning of a file in which most of its header lies


@dataclass(frozen=True)
class Mutant:
    """A damaged file.

    Attributes:
        name: Name of the file, whose ending may be wrong.
        what: The intact file and the damage, in words.
        data: The bytes.
        cut_of: The intact bytes where the end is missing; empty for other damages.
    """

    name: str
    what: str
    data: bytes
    cut_of: bytes = b""


Damage = Callable[[bytes, random.Random], tuple[str, bytes]]


def flip_bits(whole: bytes, draw: random.Random) -> tuple[str, bytes]:
    """Change one to eight bits, half of the times in the header."""
    data = bytearray(whole)
    end = min(len(data), HEADER) if draw.random() < 0.5 else len(data)
    places = [(draw.randrange(end), draw.randrange(8)) for _ in range(draw.choice((1, 1, 2, 8)))]
    for at, bit in places:
        data[at] ^= 1 << bit
    return f"bits changed: {', '.join(f'{at}.{bit}' for at, bit in places)}", bytes(data)


def cut(whole: bytes, draw: random.Random) -> tuple[str, bytes]:
    """Leave out the end, often most of it or only a few bytes."""
    length = draw.choice((draw.randrange(len(whole)), draw.randrange(min(len(whole), HEADER)), len(whole) - 1))
    return f"cut after byte {length}", whole[:length]


def empty(whole: bytes, draw: random.Random) -> tuple[str, bytes]:
    """Leave nothing, or as many zeros."""
    return ("emptied", b"") if draw.random() < 0.5 else ("zeros only", bytes(len(whole)))


def zero_block(whole: bytes, draw: random.Random) -> tuple[str, bytes]:
    """Set a block to zero, as a disk that lost a sector reads it."""
    size = min(len(whole), draw.choice((4, 16, 64, 512)))
    at = draw.randrange(len(whole) - size + 1)
    return f"{size} bytes from byte {at} zeroed", whole[:at] + bytes(size) + whole[at + size :]


def swap_blocks(whole: bytes, draw: random.Random) -> tuple[str, bytes]:
    """Exchange two blocks of one size."""
    size = max(1, min(len(whole) // 2, draw.choice((4, 16, 64, 512))))
    first = draw.randrange(max(1, len(whole) - 2 * size + 1))
    second = draw.randrange(first + size, len(whole) - size + 1) if len(whole) - size > first + size else first + size
    parts = (whole[second : second + size], whole[first + size : second], whole[first : first + size])
    data = whole[:first] + b"".join(parts) + whole[second + size :]
    return f"{size} bytes from byte {first} and byte {second} exchanged", data


def blow_up(whole: bytes, draw: random.Random) -> tuple[str, bytes]:
    """Write a size of its own into one to three fields of the header, where width and height may be."""
    data, told = bytearray(whole), []
    for _ in range(draw.randrange(1, 4)):
        width, order = draw.choice((2, 2, 4, 4, 1)), draw.choice(("little", "big"))
        value = draw.choice(SIZES) % (1 << 8 * width)
        at = draw.randrange(max(1, min(len(data), HEADER) - width))
        data[at : at + width] = value.to_bytes(width, "big" if order == "big" else "little")
        told.append(f"{value} ({width} bytes, {order}) at byte {at}")
    return f"written: {'; '.join(told)}", bytes(data[: len(whole)])


def add_noise(whole: bytes, draw: random.Random) -> tuple[str, bytes]:
    """Replace a block by random bytes, or add some at the end."""
    noise = draw.randbytes(draw.choice((3, 32, 300)))
    at = draw.choice((len(whole), draw.randrange(len(whole))))
    return f"{len(noise)} random bytes from byte {at}", whole[:at] + noise + whole[at + len(noise) :]


DAMAGES: Final[tuple[Damage, ...]] = (
    flip_bits,
    flip_bits,
    cut,
    cut,
    zero_block,
    swap_blocks,
    blow_up,
    blow_up,
    add_noise,
    empty,
)


def mutate(name: str, whole: bytes, others: Sequence[tuple[str, bytes]], draw: random.Random) -> Mutant:
    """Damage a file, join it with another one, or give it the ending of another one.

    Args:
        name: Its name.
        whole: Its bytes, at least one.
        others: Name and bytes of other files.
        draw: Decides what is done.

    Returns:
        The damaged file.
    """
    kind = draw.random()
    other, theirs = draw.choice(others)
    if kind < 0.08:
        return Mutant(name, f"{name}: joined with {other}", whole + theirs)
    if kind < 0.16:
        at = draw.randrange(min(len(whole), len(theirs)))
        return Mutant(name, f"{name}: from byte {at} on {other}", whole[:at] + theirs[at:])
    damage = draw.choice(DAMAGES)
    told, data = damage(whole, draw)
    if kind < 0.26:
        name = f"{name.rpartition('.')[0]}.{other.rpartition('.')[2]}"
    return Mutant(name, f"{name}: {told}", data, whole if damage is cut else b"")
