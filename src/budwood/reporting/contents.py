"""The table of contents of a page, made of its sections, with links that need no script."""

from __future__ import annotations

import re
from typing import Final

from markupsafe import Markup

CONTENTS: Final = "<!-- contents -->"  # where a template wants them
_SECTION: Final = re.compile(r"<section([^>]*)>(\s*)<h2>(.*?)</h2>", re.DOTALL)
_TAG: Final = re.compile(r"<[^>]*>")


def add_contents(page: str) -> str:
    """Give every section of a page an anchor, and the page a list of links to them.

    Args:
        page: The page. A section begins with its `h2`; the list stands where `CONTENTS` does, if it does.

    Returns:
        The page with both.
    """
    titles: dict[str, str] = {}

    def anchor(match: re.Match[str]) -> str:
        given, space, title = match.groups()
        place = make_anchor(title)
        while place in titles:
            place += "-more"
        titles[place] = _TAG.sub("", title)
        return f'<section id="{place}"{given}>{space}<h2>{title}</h2>'

    page = _SECTION.sub(anchor, page)
    links = "".join(f'<li><a href="#{place}">{title}</a></li>' for place, title in titles.items())
    listed = (
        f'<nav class="contents" id="contents" aria-label="Contents"><ol>{links}</ol></nav>'
        '<a class="up" href="#contents">Contents</a>'
    )
    return page.replace(CONTENTS, listed if titles else "", 1)


def make_anchor(title: str) -> str:
    """Make the anchor of a section.

    Args:
        title: Its title, as HTML.

    Returns:
        The words of the title in small letters, joined by hyphens.
    """
    plain = str(Markup(title).striptags()).lower()
    return "-".join(re.findall(r"[a-z0-9]+", plain)) or "section"
