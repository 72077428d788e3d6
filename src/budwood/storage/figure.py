"""Figures: HTML that a notebook shows and that can be kept as a file."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path

from budwood.errors import StorageError
from budwood.storage.atomic import raise_storage_errors, write_text
from budwood.text import show_unprintable

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>:root {{ color-scheme: light dark }} body {{ margin: 24px auto; max-width: 1080px; \
padding: 0 16px; background: Canvas; color: CanvasText }}</style></head>
<body>{html}</body></html>
"""


@dataclass(frozen=True, repr=False)
class Figure:
    """Something drawn: a notebook shows it, `save` writes it.

    Attributes:
        title: What it shows, in words.
        html: A self-contained part of a page, for light and dark.
    """

    title: str
    html: str

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return f"Figure({show_unprintable(self.title)}; a notebook shows it, .save('figure.html') writes it)"

    def save(self, path: str | Path) -> Path:
        """Write the figure as an HTML file that needs no other file.

        Args:
            path: The file, whose name ends in `.html`.

        Returns:
            Its path.

        Raises:
            StorageError: The name ends otherwise, or the file cannot be written.
        """
        file = Path(path)
        if file.suffix.lower() not in (".html", ".htm"):
            raise StorageError(
                f"{file}: expected a name that ends in .html, found {file.suffix or 'no ending'!r}.",
                f"Write .save({str(file.with_suffix('.html'))!r}); a browser prints it as PDF.",
            )
        with raise_storage_errors(file):
            write_text(file, _PAGE.format(title=escape(show_unprintable(self.title)), html=self.html))
        return file
