"""Which runs can be compared at all: those that were trained and scored on the same images."""

from __future__ import annotations

from collections.abc import Sequence

from budwood.networks.plan import hash_json
from budwood.runs.run import Run


def split_by_data(runs: Sequence[Run], split: str = "val") -> list[list[Run]]:
    """Split runs into groups of the same classes, images and splits.

    Args:
        runs: Finished runs.
        split: The split that they are compared on, `val` or `test`.

    Returns:
        The groups in the order of their first runs; the runs of each in their order.

    Raises:
        RunError: Predictions of a run are missing, damaged or were changed.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(_identify_data(run, split), []).append(run)
    return list(groups.values())


def describe_data(run: Run) -> str:
    """Describe the data of a run in a few words that tell it from other data.

    Args:
        run: The run.

    Returns:
        Its name and the beginning of its fingerprint.
    """
    return f"{run.record.dataset.name} ({run.record.dataset.fingerprint[:8]})"


def _identify_data(run: Run, split: str) -> str:
    """A digest of what runs have in common that can be compared; of a sealed test split by what is known of it."""
    ids = sorted(run.predictions(split).ids) if split == "val" or run.record.test else []
    return hash_json([run.record.dataset.fingerprint, list(run.classes), ids])
