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
    """The course of a quantity (`WEIGHT` or `GRADIENT`) in each stage over the epochs; not a number where it was not
    kept, as of a trunk while a head is trained alone."""
    columns = dict.fromkeys(name for row in rows for name in row if name.startswith(quantity))
    return {name.removeprefix(quantity): [row.get(name, math.nan) for row in rows] for name in columns}


def drop_stage_columns(rows: Rows) -> list[dict[str, float]]:
    """The rows without what they say of single stages."""
    return [{name: value for name, value in row.items() if "/" not in name} for row in rows]
