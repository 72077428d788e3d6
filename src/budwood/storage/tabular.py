"""Records that are also tables: as Arrow, and as a frame of pandas where that is installed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from importlib.util import find_spec
from typing import TYPE_CHECKING

from budwood.errors import StorageError

if TYPE_CHECKING:
    import pandas
    import pyarrow


class Tabular(ABC):
    """A record that is also a table."""

    @abstractmethod
    def to_arrow(self) -> pyarrow.Table:
        """Convert to an Arrow table, which other libraries take as it is: `polars.from_arrow(record.to_arrow())`.

        Returns:
            The table.
        """

    def to_pandas(self) -> pandas.DataFrame:
        """Convert to a frame of pandas, which is imported here and nowhere else.

        Returns:
            The frame, with the columns of `to_arrow`.

        Raises:
            StorageError: pandas is not installed.
        """
        refuse_without_pandas()
        return self.to_arrow().to_pandas()


def refuse_without_pandas() -> None:
    """Raise `StorageError` where pandas is not installed."""
    if find_spec("pandas") is None:
        raise StorageError("to_pandas: pandas is not installed.", "Install it with `pip install pandas`.")
