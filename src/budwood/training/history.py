"""What a row of a run's history says of each stage: columns named by a quantity and the stage."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

WEIGHT: Final = "weight/"
GRADIENT: Final = "gradient/"

Rows = Sequence[Mapping[str, float]]
EpochCallback = Callable[[Rows], None]  # gets all rows so far, one an epoch; what it raises ends the training


def split_by_stage(rows: Rows, quantity: str) -> dict[str, list[float]]:
    """Split the columns of one quantity in a history by stage.

    Args:
        rows: The history, one row an epoch.
        quantity: `WEIGHT` or `GRADIENT`.

    Returns:
        For each stage the quantity's value in every epoch; not a number where it was not kept, as of a trunk while
        a head is trained alone.
    """
    columns = dict.fromkeys(name for row in rows for name in row if name.startswith(quantity))
    return {name.removeprefix(quantity): [row.get(name, math.nan) for row in rows] for name in columns}


def drop_stage_columns(rows: Rows) -> list[dict[str, float]]:
    """Return the rows of a history without the columns of single stages.

    Args:
        rows: The history, one row an epoch.

    Returns:
        The rows with the columns of the whole network only.
    """
    return [{name: value for name, value in row.items() if "/" not in name} for row in rows]
