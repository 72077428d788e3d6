"""Names for people: what is hidden is spelt out, what belongs together stays together."""

from __future__ import annotations

import csv
import subprocess
from pathlib import Path

import pytest

from budwood.cli.output import show_explanation
from budwood.runs.explanation_record import ExplainedImage, ExplanationRecord, ImagesPart
from budwood.runs.run_record import HardwareRecord
from budwood.text import (
    count_columns,
    counted,
    fit_table,
    format_csv,
    format_seconds,
    format_table,
    listed,
    quote_path,
    shorten,
    show_unprintable,
)

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"  # one picture of three, joined


@pytest.mark.parametrize(
    ("name", "seen"),
    [("a\nb", r"a\nb"), ("\x07", r"\x07"), ("\u202eabc", r"\u202eabc"), (FAMILY, FAMILY), ("\udcff", r"\udcff")],
)
def test_only_what_cannot_be_seen_is_spelt_out(name: str, seen: str) -> None:
    assert show_unprintable(name) == seen


def test_a_terminal_shows_joined_emoji_whole(capsys: pytest.CaptureFixture[str]) -> None:
    row = ExplainedImage(
        path=f"{FAMILY}/1\n.jpg", label="b\x07", called=FAMILY, probability=0.5, near=(), maps={}, explained=FAMILY
    )
    images = ImagesPart(rows=(row,), methods={}, chosen=True)
    hardware = HardwareRecord(cpu="a cpu", cores=2, accelerator="none", system="Linux")
    show_explanation(ExplanationRecord(run="r", created="2026", images=images, seconds={}, hardware=hardware))
    assert capsys.readouterr().out == f"{FAMILY}/1\\n.jpg: {FAMILY} 50.0% (wrong: label b\\x07)\n"


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


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 files"), (1, "1 file"), (2, "2 files"), (1234, "1,234 files")], ids=str
)
def test_a_noun_agrees_with_its_number(count: int, text: str) -> None:
    assert counted(count, "file") == text


def test_an_irregular_plural_is_given() -> None:
    assert [counted(count, "class", "classes") for count in (1, 2)] == ["1 class", "2 classes"]


def test_a_list_names_the_first_and_counts_the_rest() -> None:
    names = [f"{number}.png" for number in range(200)]
    assert listed(names, 3) == "0.png, 1.png, 2.png and 197 more"
    assert listed(names, 2, "; ") == "0.png; 1.png; and 198 more"


@pytest.mark.parametrize("count", [0, 1, 3, 4])
def test_a_list_never_says_that_one_more_is_left(count: int) -> None:
    names = list("abcd")[:count]
    assert listed(names, 3) == ", ".join(names)


def test_columns_are_as_wide_as_their_widest_cell_in_a_terminal() -> None:
    lines = format_table([("class", "n"), ("日本語", "10"), ("cat", "2")], right=(1,)).splitlines()
    assert lines == ["class    n", "----------", "日本語  10", "cat      2"]
    assert {count_columns(line) for line in lines} == {10}


def test_a_table_is_read_by_every_program(tmp_path: Path) -> None:
    rows: list[list[object]] = [
        ["path", "n"],
        ["=cmd()", 1],
        ["+1", -2],
        ["@x", None],
        ["-", 0.5],
        ["a\udce9.png", 1],
        ['say "x", y\n', 2],
    ]
    file = tmp_path / "t.csv"
    file.write_text(format_csv(rows), encoding="utf-8")
    with file.open(newline="", encoding="utf-8") as handle:
        read = list(csv.reader(handle))
    assert [row[0] for row in read[1:]] == ["'=cmd()", "'+1", "'@x", "'-", "a\\udce9.png", 'say "x", y\n']
    assert [row[1] for row in read[1:]] == ["1", "-2", "", "0.5", "1", "2"]


@pytest.mark.parametrize("path", ["photos", "my photos", "it's", "a\nb's \\ c", "$HOME `x`"])
def test_a_quoted_path_is_one_word_of_a_shell(path: str) -> None:
    said = subprocess.run(["bash", "-c", f"printf %s {quote_path(path)}"], capture_output=True, text=True, check=True)
    assert said.stdout == path
    assert quote_path(path).isprintable()


ROWS = (
    ("run", "data", "recipe", "score"),
    ("a-long-name", "photos", "resnet18, adam, lr 0.001", "95.0 % (90.1 to 97.9)"),
    ("b", "photos", "mlp, sgd", "9.1 % (1.0 to 20.2)"),
)


def test_a_table_says_once_what_is_the_same_in_all_rows() -> None:
    assert fit_table(ROWS, (3,), None).splitlines() == [
        "run          recipe                                    score",
        "------------------------------------------------------------",
        "a-long-name  resnet18, adam, lr 0.001  95.0 % (90.1 to 97.9)",
        "b            mlp, sgd                    9.1 % (1.0 to 20.2)",
        "The same in all rows: data photos.",
    ]
    assert "data" in fit_table(ROWS[:2], (), None).splitlines()[0], "of one row everything is shown"
    assert "data" in fit_table(ROWS, (), None, kept=(0, 1)).splitlines()[0]


def test_cells_go_on_in_the_next_line_where_the_terminal_is_narrow() -> None:
    lines = fit_table(ROWS, (3,), 46).splitlines()
    assert max(map(count_columns, lines)) <= 46
    assert lines[2].startswith("a-long-name  resnet18,")
    assert lines[3].startswith(" " * 13)
    whole = " ".join(" ".join(lines).split())
    assert all(word in whole for word in ("0.001", "97.9)", "20.2)"))


def test_columns_that_have_no_room_are_left_out_and_told() -> None:
    lines = fit_table(ROWS, (3,), 24).splitlines()
    assert lines[0] == "run          recipe"
    assert " ".join(" ".join(lines[-3:]).split()).endswith("Left out, as the terminal is too narrow: score.")
    assert fit_table(ROWS, (3,), 5).splitlines()[2] == "a-long-name", "the first column is always whole"


def test_a_wide_letter_takes_two_columns_of_a_table() -> None:
    rows = (("a", "b"), ("日本 日本 日本", "x"), ("y", "z"))
    lines = fit_table(rows, (), 12, kept=()).splitlines()
    assert max(map(count_columns, lines)) <= 12
