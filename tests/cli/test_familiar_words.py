"""What people type who know other tools is taken for what it means, or answered in one sentence."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from budwood.cli.arguments import read_arguments
from budwood.cli.familiar_words import FAMILIAR, FamiliarWord, find_familiar
from budwood.cli.main import app, run

OPTIONS = [one for one in FAMILIAR if one.words[0].startswith("-")]
COMMANDS = [one for one in FAMILIAR if not one.words[0].startswith("-")]


def _flags(name: str) -> set[str]:
    command = app.commands[name]
    options = [one for one in command.get_params(click.Context(command)) if isinstance(one, click.Option)]
    return {flag for one in options for flag in (*one.opts, *one.secondary_opts)}


def _arguments(name: str) -> str:
    return " ".join(one.metavar or "" for one in app.commands[name].params if isinstance(one, click.Argument))


def _read(name: str, *words: str) -> list[str]:
    command = app.commands[name]
    with click.Context(command, info_name=name) as ctx:
        return read_arguments(ctx, command.get_params(ctx), words)


def _values(name: str, *words: str) -> dict[str, object]:
    """The values that the function of a command would get."""
    command = app.commands[name]
    return command.make_context(name, list(words)).params


def _users(one: FamiliarWord) -> list[str]:
    """The commands in which a word of other tools that is an option means something."""
    named = one.commands or tuple(app.commands)
    return [name for name in named if not one.means or one.means in _flags(name) or one.means in _arguments(name)]


def test_each_word_has_a_meaning_or_an_answer_and_stands_once() -> None:
    for one in FAMILIAR:
        assert bool(one.means) != bool(one.answer), one
        assert not one.answer or one.answer.endswith("."), one
    pairs = [(word, name) for one in OPTIONS for word in one.words for name in (one.commands or ("all",))]
    assert len(pairs) == len(set(pairs))
    words = [word for one in COMMANDS for word in one.words]
    assert len(words) == len(set(words))
    assert not set(words) & set(app.commands)


@pytest.mark.parametrize("one", OPTIONS, ids=lambda one: one.words[0])
def test_an_option_of_other_tools_is_taken_or_answered(one: FamiliarWord) -> None:
    users = _users(one)
    assert users, "an option that means nothing anywhere"
    for name in users[:1]:
        for word in set(one.words) - _flags(name):
            if one.means:
                assert _read(name, word, "x") == ([one.means, "x"] if one.means.startswith("-") else ["x"])
            else:
                with pytest.raises(click.UsageError, match=re.escape(f"{word}: {one.answer}")):
                    _read(name, word)


@pytest.mark.parametrize("one", [one for one in FAMILIAR if one.answer], ids=lambda one: one.words[0])
def test_an_answer_names_what_there_is(one: FamiliarWord) -> None:
    known = {"--version", *(flag for name in app.commands for flag in _flags(name))}
    assert set(re.findall(r"--[a-z][\w-]*", one.answer)) <= known
    assert set(re.findall(r"budwood ([a-z][\w-]*)", one.answer)) <= set(app.commands)


@pytest.mark.parametrize("one", COMMANDS, ids=lambda one: one.words[0])
def test_a_command_of_other_tools_is_taken_or_answered(one: FamiliarWord, capsys: pytest.CaptureFixture[str]) -> None:
    for word in one.words:
        if one.means:
            assert run([word, "--help"]) == 0
            assert f"Usage: budwood {one.means} " in capsys.readouterr().out
        else:
            assert run([word, "photos"]) == 2
            assert f"budwood: {word}: {one.answer}\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (["--data", "photos", "--learning-rate", "0.1"], {"data": "photos", "lr": "0.1"}),
        (["photos", "--imgsz=96", "--batch-size", "8"], {"size": 96, "batch": 8}),
        (["photos", "--num-epochs", "3", "--arch", "resnet18"], {"epochs": 3, "model": "resnet18"}),
        (["photos", "--output", "there", "--lr0", "auto"], {"out": Path("there"), "lr": "auto"}),
        (["photos", "--weight_decay", "0.1", "--Epochs", "2"], {"weight_decay": 0.1, "epochs": 2}),
    ],
)
def test_words_with_the_same_meaning_reach_the_command(words: list[str], values: dict[str, object]) -> None:
    assert values.items() <= _values("train", *words).items()


def test_a_word_means_what_it_means_in_its_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert _read("predict", "a.jpg", "--model", "runs/one") == ["runs/one", "a.jpg"], "the run comes first"
    assert _read("predict", "one", "--source", "a.jpg") == ["one", "a.jpg"]
    assert _read("train", "photos", "--model", "resnet18") == ["photos", "--model", "resnet18"]
    assert _read("inspect", "photos", "--augment", "flip=0.5") == ["photos", "--augment", "flip=0.5"]
    assert run(["train", "elpv", "--augment"]) == 2
    assert "--flip 0.5" in capsys.readouterr().err
    assert find_familiar("--checkpoint", "predict")[0].means == "RUN"
    assert find_familiar("--checkpoint", "train")[0].answer


def test_what_is_a_value_is_no_option() -> None:
    assert _read("train", "photos", "-s", "epochs=3", "--phases", "--amp") == [
        "photos", "-s", "epochs=3", "--phases", "--amp",
    ]  # fmt: skip
    assert _read("predict", "one", "--", "--amp", "--Top") == ["one", "--", "--amp", "--Top"]


def test_an_option_without_its_argument_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "--data"]) == 2
    assert "--data: expected DATA after it." in capsys.readouterr().err


def test_options_without_dashes_are_answered_with_the_whole_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["Train", "data=my photos", "epochs=3", "imgsz=96", "mode=train", "lr0=0.1"]) == 2
    said = capsys.readouterr().err
    assert "budwood: data=my photos: options have dashes before them." in said
    assert "Say `budwood train 'my photos' --epochs 3 --size 96 --lr 0.1`." in said
    assert run(["train", "data=photos", "pretrained=True"]) == 2
    assert "Networks begin with ImageNet weights" in capsys.readouterr().err
    assert run(["train", "data=photos", "epocs=3"]) == 2
    assert "No such option '--epocs'" in capsys.readouterr().err
    assert run(["data=photos", "epochs=3"]) == 2
    assert "data=photos: a command comes first. Say `budwood train DATA --epochs 3`." in capsys.readouterr().err


def test_a_path_with_an_equals_sign_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "size=96").mkdir()
    assert _read("train", "size=96") == ["size=96"]
    assert _read("study", "a.toml", "cells=photos") == ["a.toml", "cells=photos"], "a study names its data so"


def test_a_folder_is_no_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([str(tmp_path)]) == 2
    assert f"this is a folder, not a command. Say `budwood inspect {tmp_path}`" in capsys.readouterr().err
