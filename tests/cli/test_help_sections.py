"""The help of commands: what matters first, all of it in sections, and the exit codes."""

from __future__ import annotations

import re
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from budwood.cli.commands import COMMAND_SECTIONS, BudwoodCommand
from budwood.cli.exit_codes import list_exit_codes
from budwood.cli.help_sections import COMMON, FIRST, OTHER, SECTIONS, arrange_options
from budwood.cli.main import app, run


def _show(*arguments: str) -> str:
    shown = CliRunner().invoke(app, list(arguments), prog_name="budwood")
    assert shown.exit_code == 0
    return shown.output


def _list_options(name: str) -> list[click.Option]:
    command = app.commands[name]
    return [one for one in command.get_params(click.Context(command)) if isinstance(one, click.Option)]


def _list_flags(text: str) -> list[str]:
    """The flags at which an entry of a help begins."""
    return re.findall(r"^ {2,4}(?:-\w, )?(--?[\w-]+)", text, re.MULTILINE)


def test_train_shows_the_ten_options_that_matter_first() -> None:
    shown = _show("train", "--help")
    ten = ["time", "model", "size", "freeze", "epochs", "lr", "batch", "optimizer", "dry-run", "out"]
    assert _list_flags(shown)[:10] == [f"--{name}" for name in ten]
    assert "--nesterov" not in shown
    left = re.search(r"(\d+) more options, in sections: budwood train --help-all", shown)
    assert left
    assert int(left[1]) == len(_list_options("train")) - len(_list_flags(shown))


@pytest.mark.parametrize("name", sorted(FIRST))
def test_what_matters_first_is_short_and_exists(name: str) -> None:
    known = {one.name for one in _list_options(name)}
    assert set(FIRST[name]) <= known
    assert len(FIRST[name]) <= 10


@pytest.mark.parametrize("name", sorted(FIRST))
def test_help_all_shows_every_option_once(name: str) -> None:
    shown = sorted(_list_flags(_show(name, "--help-all")))
    assert shown == sorted(option.opts[-1] for option in _list_options(name))


@pytest.mark.parametrize("name", sorted(app.commands.keys() - FIRST.keys()))
def test_the_help_of_a_short_command_shows_all(name: str) -> None:
    shown = _show(name, "--help")
    assert all(option.opts[-1] in shown for option in _list_options(name))
    assert "--help-all" not in shown


@pytest.mark.parametrize("name", sorted(FIRST))
def test_every_option_has_its_section(name: str) -> None:
    assert OTHER not in dict(arrange_options(_list_options(name)))


def test_options_of_new_parts_find_their_section() -> None:
    made = [click.Option([f"--{name}", name]) for name in ("focal_gamma", "schedule_new", "hue", "unheard_of")]
    placed = {title: [one.name for one in options] for title, options in arrange_options(made)}
    assert placed == {
        "Loss, and classes of unequal size": ["focal_gamma"],
        "Schedule of the learning rate": ["schedule_new"],
        "Augmentation": ["hue"],
        OTHER: ["unheard_of"],
    }


def test_no_option_is_in_two_sections() -> None:
    names = [name for names in SECTIONS.values() for name in names]
    assert len(names) == len(set(names))
    assert COMMON in SECTIONS


def test_the_commands_are_shown_in_sections_each_once() -> None:
    shown = _show("--help")
    assert shown.index("From data to a model:") < shown.index("train ") < shown.index("A model in use:")
    listed = re.findall(r"^    ([a-z][\w-]*)  ", shown, re.MULTILINE)
    assert sorted(listed) == sorted(app.commands)
    assert "..." not in shown.partition("Commands:")[2], "sentences are not cut off"
    placed = [name for names in COMMAND_SECTIONS.values() for name in names]
    assert len(placed) == len(set(placed))


@pytest.mark.parametrize("name", sorted(app.commands))
def test_every_command_tells_its_exit_codes(name: str) -> None:
    assert isinstance(app.commands[name], BudwoodCommand)
    shown = " ".join(_show(name, "--help").partition("Exit codes:")[2].split())
    for code, words in list_exit_codes(name).items():
        assert f"{code} {words}" in shown


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("predict", "3 Some images could not be read; the others are predicted."),
        ("drift", "4 Drift was found."),
        ("inspect", "5 A finding is as severe as --fail-on says."),
        ("study", "0 Done; rows that failed are findings of the table."),
    ],
)
def test_exit_codes_of_their_own_are_told(name: str, words: str) -> None:
    assert words in " ".join(_show(name, "--help").split())


def test_the_package_is_the_program() -> None:
    done = subprocess.run([sys.executable, "-m", "budwood", "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: budwood [OPTIONS] COMMAND")
    wrong = subprocess.run([sys.executable, "-m", "budwood", "grow"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "budwood: No such command 'grow'" in wrong.stderr


@pytest.mark.parametrize(("name", "flag"), [("train", "--help-all"), ("export", "--help")])
def test_a_mistake_names_the_help_that_shows_all(name: str, flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([name, "photos", "--unheard-of"]) == 2
    assert f"`budwood {name} {flag}` lists the arguments and options." in capsys.readouterr().err
