"""What the page about parts of one's own shows, runs."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from budwood.cli.main import run as run_command
from budwood.config.own_calls import CALLS
from budwood.runs.run import find_run

PAGE = (Path(__file__).parents[1] / "docs" / "own_parts.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def folder(photos: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of `photos`, with the files of the page."""
    monkeypatch.chdir(photos.parent)
    monkeypatch.setattr(sys, "path", [str(photos.parent), *(place for place in sys.path if place)])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (photos.parent / "parts.py").write_text(blocks("python")[0])
    (photos.parent / "mine.toml").write_text(blocks("toml")[0])
    yield photos.parent
    sys.modules.pop("parts", None)


def test_the_commands_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands = re.findall(r"^\$ budwood (.*)$", blocks("console")[0], re.MULTILINE)
    for command in commands:
        assert run_command([*command.split(), "--json"]) == 0, capsys.readouterr().err
    assert len((folder / "log.txt").read_text().splitlines()) <= 3
    runs = {run.recipe.model: run for run in (find_run(file.parent) for file in folder.glob("runs/*/run.json"))}
    used = {option.partition(" ")[0] for option in runs["parts:net"].record.parts}
    assert used == {"model", *CALLS, "track"} - {"metrics"}
    assert "parts:worst_class" in runs["cnn"].metrics["val"]


def test_the_python_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {"__name__": "shown"}
    exec(compile(blocks("python")[1], "own_parts.md", "exec"), names)
    said = capsys.readouterr().out
    assert "'sky'" in said
    assert said.startswith("1 ")
    run = names["run"]
    assert set(run.record.parts) == {"model", "loss", "transform 1", "transform 2", "callbacks", "metrics", "track 1"}
    assert "were defined in a script, a notebook or a session" in (run.path / "report.html").read_text()


def test_every_option_is_in_the_table() -> None:
    assert not [option for option in (*CALLS, "model", "track") if f"`{option}`" not in PAGE]
