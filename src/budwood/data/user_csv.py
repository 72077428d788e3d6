"""The text of a CSV file that a user wrote, by hand or in a spreadsheet, and how its cells are separated."""

from __future__ import annotations

from pathlib import Path

from budwood.data.file_tree import check_regular
from budwood.errors import DataError


def read_user_csv(file: Path) -> tuple[str, str]:
    """Read a CSV file in UTF-8, with or without a mark of that at its beginning.

    Args:
        file: The file.

    Returns:
        Its text, and what separates its cells: a comma, a semicolon or a tab, whichever its first line has most of.

    Raises:
        DataError: The file cannot be read, is a device, or is not UTF-8.
    """
    check_regular(file)
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror or error}).", "Check the path.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: is not UTF-8 text ({error}).", "Save the table as UTF-8 CSV.") from error
    return text, max(",;\t", key=text.partition("\n")[0].count)
