"""Names for people: what is hidden is spelt out, what belongs together stays together."""

from __future__ import annotations

import pytest

from budwood.cli.output import show_explanation
from budwood.text import count_columns, format_seconds, shorten, show_unprintable

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"  # one picture of three, joined


@pytest.mark.parametrize(
    ("name", "seen"),
    [("a\nb", r"a\nb"), ("\x07", r"\x07"), ("\u202eabc", r"\u202eabc"), (FAMILY, FAMILY), ("\udcff", r"\udcff")],
)
def test_only_what_cannot_be_seen_is_spelt_out(name: str, seen: str) -> None:
    assert show_unprintable(name) == seen


def test_a_terminal_shows_joined_emoji_whole(capsys: pytest.CaptureFixture[str]) -> None:
    row = {"path": f"{FAMILY}/1\n.jpg", "called": FAMILY, "label": "b\x07", "probability": 0.5}
    show_explanation({"images": {"rows": [row], "methods": {}}})
    assert capsys.readouterr().out == f"{FAMILY}/1\\n.jpg: {FAMILY} 50.0% (it is b\\x07)\n"


def test_names_are_cut_by_the_columns_that_they_take() -> None:
    assert count_columns("ab") == 2
    assert count_columns("日本") == 4
    assert shorten("日本語", 5) == "日本…"
    assert shorten("abc", 3) == "abc"


@pytest.mark.parametrize(
    ("seconds", "words"), [(1.26, "1.3 s"), (59.6, "60 s"), (100, "2 min"), (5999, "100 min"), (7200, "2.0 h")]
)
def test_durations_have_the_unit_that_suits_them(seconds: float, words: str) -> None:
    assert format_seconds(seconds) == words
