"""Shells complete commands, options, choices, runs and paths, from the parser itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import BashComplete

from budwood.cli.main import app, run


def _complete(*words: str) -> list[str]:
    """What is offered for the last word."""
    found = BashComplete(app, {}, "budwood", "_BUDWOOD_COMPLETE").get_completions(list(words[:-1]), words[-1])
    return [one.value if one.type == "plain" else f"<{one.type}>" for one in found]


@pytest.mark.parametrize(
    ("shell", "words"),
    [("bash", "complete -o nosort -F"), ("zsh", "#compdef budwood"), ("fish", "complete --no-files --command budwood")],
)
def test_the_script_of_each_shell(shell: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell.upper()]) == 0
    script = capsys.readouterr().out
    assert words in script
    assert f"_BUDWOOD_COMPLETE={shell}_complete" in script
    assert run(["completion", shell, "--json"], as_json=True) == 0
    assert json.loads(capsys.readouterr().out) == {"shell": shell, "script": script.removesuffix("\n")}


def test_an_unknown_shell_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", "csh"]) == 2
    assert "'csh' is not one of 'bash', 'zsh', 'fish'" in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_valid_in_its_shell(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    assert run(["completion", shell]) == 0
    script = capsys.readouterr().out
    done = subprocess.run([program, "-n"], input=script, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_commands_options_and_choices_are_completed() -> None:
    assert _complete("tr") == ["train"]
    assert _complete("train", "--fre") == ["--freeze"]
    assert {"--nesterov", "--no-nesterov"} <= {*_complete("train", "--nest"), *_complete("train", "--no-nest")}
    assert _complete("train", "--optimizer", "AD") == ["adam", "adamw", "adamax", "adagrad", "adadelta"]
    assert _complete("train", "--leaks", "") == ["drop", "refuse", "allow"]
    assert _complete("completion", "z") == ["zsh"]


def test_runs_and_paths_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for place in ("runs/20260101-a", "runs/20260102-b", "there/other"):
        (tmp_path / place).mkdir(parents=True)
    assert _complete("test", "2026") == ["20260102-b", "20260101-a"]
    assert _complete("predict", "--out", "there", "") == ["other"]
    assert _complete("test", "runs/2") == ["<file>"]
    assert _complete("train", "pho") == ["<file>"]
    assert _complete("predict", "20260101-a", "pho") == ["<file>"]


def test_a_shell_is_answered_without_loading_torch() -> None:
    script = (
        "import atexit, os, sys; from budwood.cli.main import run;"
        "atexit.register(lambda: 'torch' in sys.modules and os._exit(9)); sys.exit(run([]))"
    )
    asked = {"_BUDWOOD_COMPLETE": "bash_complete", "COMP_WORDS": "budwood train --fre", "COMP_CWORD": "2"}
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, **asked}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "plain,--freeze"), done.stderr
