"""The history of a training, and what its rows say of each stage: columns named by a quantity and the stage."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, overload

import numpy as np
from numpy.typing import NDArray

from budwood.display import Displayed
from budwood.errors import RunError, did_you_mean
from budwood.storage.tabular import Tabular
from budwood.text import counted

if TYPE_CHECKING:
    import pyarrow as pa

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


class History(Displayed, Tabular, Sequence[dict[str, float]]):
    """What training measured, a row an epoch; of a head that was solved, a row for each strength of the penalty.

    It is read like a frame: `len`, iteration and `history[-1]` give rows, `history["val_loss"]` a column, `columns`
    their names, and `to_pandas()` or `to_arrow()` all of it. A cell that was not measured is not in its row.
    """

    def __init__(self, rows: Rows = ()) -> None:
        """Hold the rows.

        Args:
            rows: Values by column, one mapping a row.
        """
        self._rows = tuple(dict(row) for row in rows)

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the names of the columns, in the order in which they first occur."""
        return tuple(dict.fromkeys(name for row in self._rows for name in row))

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> dict[str, float]: ...

    @overload
    def __getitem__(self, index: slice) -> History: ...

    @overload
    def __getitem__(self, index: str) -> NDArray[np.float64]: ...

    def __getitem__(self, index: int | slice | str) -> dict[str, float] | History | NDArray[np.float64]:
        """Return a row by its number, rows by a slice, or a column by its name.

        Args:
            index: The number of a row from 0, a slice, or the name of a column.

        Returns:
            A row as a dict; a history of the rows; or the column, float64 [rows], NaN where it was not measured.

        Raises:
            RunError: There is no such column.
            IndexError: There is no such row.
        """
        if isinstance(index, slice):
            return History(self._rows[index])
        if isinstance(index, int):
            return dict(self._rows[index])
        if index not in self.columns:
            raise RunError(f"history: there is no column {index!r}.", did_you_mean(str(index), self.columns))
        return np.array([row.get(index, math.nan) for row in self._rows])

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Sequence) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        names = [name for name in self.columns if "/" not in name]  # without those of single stages
        return f"History({counted(len(self), 'row')}: {', '.join(names)})"

    def to_arrow(self) -> pa.Table:
        """Convert to an Arrow table.

        Returns:
            A column of float64 for each of `columns`, null where it was not measured.
        """
        import pyarrow as pa

        names = self.columns
        return pa.table({name: pa.array([row.get(name) for row in self._rows], pa.float64()) for name in names})
