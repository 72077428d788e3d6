"""The ledger of looks at test splits, which a folder of runs keeps as `test-looks.csv`: one line a look."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from filelock import FileLock

from budwood.runs.run import utc_now
from budwood.storage.atomic import raise_storage_errors

LEDGER: Final = "test-looks.csv"
LEDGER_LOCK: Final = ".test-looks.lock"


@dataclass(frozen=True)
class Look:
    """A look at a test split.

    Attributes:
        run: The id of the run.
        network: A digest of the run's weights.
        split: A digest of the images of the test split.
    """

    run: str
    network: str
    split: str


@contextmanager
def lock_ledger(runs: Path) -> Iterator[None]:
    """Keep other processes from counting looks while the block runs; they wait.

    Args:
        runs: The folder of runs, which keeps the ledger.

    Raises:
        StorageError: The folder cannot be written.
    """
    lock = FileLock(runs / LEDGER_LOCK)
    with raise_storage_errors(runs):
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def count_look(runs: Path, looks: Sequence[Look]) -> list[int]:
    """Record that runs look at their test splits at once, which is one look at each split, and count the looks so far.

    A run that is in the ledger already, as of a process that was killed after it, keeps its look; the others share a
    new one, which is one line. Hold `lock_ledger` around it.

    Args:
        runs: The folder of runs, which keeps the ledger.
        looks: The run, the network and the split of each.

    Returns:
        The number of the look of each run at its split, from 1, over all runs of the folder.

    Raises:
        StorageError: The ledger cannot be written.
    """
    ledger = runs / LEDGER
    with raise_storage_errors(ledger), ledger.open("a+", encoding="utf-8") as handle:
        handle.seek(0)
        content = handle.read()
        counted = _number_looks(content)
        new = "".join(_format_joint_look([look for look in looks if look not in counted]))
        if new:
            text = ("\n" if content.rpartition("\n")[2] else "") + new  # after a line that was torn
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
            counted = _number_looks(content + text)
    return [counted[look] for look in looks]


def _format_joint_look(looks: Sequence[Look]) -> Iterator[str]:
    """A line for each split, with the runs and the networks that look at it; '/' is in no id."""
    now = utc_now()
    for split in dict.fromkeys(look.split for look in looks):
        joint = dict.fromkeys(look for look in looks if look.split == split)
        yield f"{now},{'/'.join(look.run for look in joint)},{'/'.join(look.network for look in joint)},{split}\n"


def _number_looks(ledger: str) -> dict[Look, int]:
    """The number of each look of a ledger among those at its split; lines of version 0.1 name no network."""
    numbers: dict[Look, int] = {}
    lines: dict[str, int] = {}
    for line in ledger.split("\n"):
        named, _, split = line.partition(",")[2].rpartition(",")
        ids, _, networks = named.rpartition(",")
        lines[split] = lines.get(split, 0) + 1
        for run, network in zip(ids.split("/"), networks.split("/"), strict=False):
            numbers.setdefault(Look(run, network, split), lines[split])
    return numbers
