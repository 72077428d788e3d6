"""What README.md and the pages of docs/ show runs: every command and every block of Python.

A comment before a block, `<!-- not run: REASON -->`, says why it does not. Its commands are still parsed (options
that do not exist, values out of range) and its Python compiled, so that no block names what is not there. A block that
begins with the name of a file as a comment, `# parts.py`, is that file, for the blocks after it.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
import pytest

import budwood as bw
from budwood.cli.main import app, run
from budwood.cli.options import make_recipe_flags
from budwood.config.recipe import Recipe
from conftest import TINY, fill, picture

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE: Final = re.compile(r"(?:<!-- not run: (?P<why>[^>]+) -->\n)?```(?P<kind>\w*)\n(?P<text>.*?)\n```", re.DOTALL)
FILE: Final = re.compile(r"# (\w+\.(?:csv|py|toml))\n")
SHOWN: Final = {"", "text", "toml", "javascript", "csharp", "json"}  # no commands, or of other languages
OTHERS: Final = {"make", "pip", "uv", "git", "ray", "find", "cd"}  # commands that are not Budwood's: never run here
RUNS: Final = ("one", "two", "three")  # what RUN stands for, the first time, the second time ...
WITH_RECIPES: Final = {"train", "lr-find", "tune"}
FINE: Final = {"drift": {0, 4}}  # exit codes of commands that may end otherwise than with 0


@dataclass(frozen=True)
class Block:
    """A block of code: its page, its line, its language, its text, and why it is not run."""

    line: int
    kind: str
    text: str
    why: str | None


def _blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        yield Block(text[: found.start("text")].count("\n") + 1, found["kind"], found["text"], found["why"])


def _commands(block: Block) -> Iterator[list[str]]:
    """The commands of a block as arguments, up to the first pipe; lines of output and comments are left out."""
    lines = block.text.replace("\\\n", " ").splitlines()
    if any(line.startswith("$ ") for line in lines):
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    for line in lines:
        words = shlex.split(line, comments=True)
        ends = [place for place, word in enumerate(words) if word in {"|", "||", "&&", ">"}]
        if words:
            yield words[: ends[0]] if ends else words


def _fill_in(words: list[str]) -> list[str]:
    """Put the runs of the folder in the place of RUN."""
    names = iter(RUNS)
    return [re.sub(r"\bRUN\b", lambda _: next(names), word) for word in words]


def _parse(words: list[str]) -> None:
    """Parse a command of Budwood's without carrying it out; its recipe has to be valid, too."""
    command = app.commands[words[0]]
    context = command.make_context(words[0], list(words[1:]), resilient_parsing=False)
    if words[0] not in WITH_RECIPES:
        return
    flags = {flag.name for flag in make_recipe_flags()}
    given = {name: value for name, value in context.params.items() if name in flags and value is not None}
    Recipe(**given)


@pytest.fixture(scope="module")
def filled(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the pages speak of: photos, new images, a table of labels, three runs."""
    folder = tmp_path_factory.mktemp("pages") / "here"
    shutil.copytree(tiny, folder)
    for seed, name in ((1, "two"), (2, "three")):
        bw.train(bw.scan(folder / "photos"), Recipe(**TINY, seed=seed), out=folder / "runs", id=name)
    fill(folder / "camera", 12, first=500, hue=1)
    picture(9999, hue=2).save(folder / "new.jpg")
    (folder / "costs.csv").write_text(",leaf,sky\nleaf,0,1\nsky,20,0\n", encoding="utf-8")
    labels = [f"photos/{name}/{number:03}.png,{name}" for name in ("leaf", "sky") for number in range(15)]
    (folder / "shapes.csv").write_text("\n".join(["path,labels", *labels]) + "\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_shows_runs(
    page: Path, filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = tmp_path / "here"
    shutil.copytree(filled, here)
    monkeypatch.chdir(here)
    monkeypatch.syspath_prepend(here)
    names: dict[str, Any] = {"bw": bw}
    before = set(sys.modules)
    for block in _blocks(page):
        where = f"{page.name}, line {block.line}"
        if file := FILE.match(block.text):
            (here / file[1]).write_text(block.text + "\n", encoding="utf-8")
        elif block.kind == "console":
            for words in _commands(block):
                _check_command(words, block.why is None, where)
        elif block.kind == "python":
            code = compile("\n" * block.line + block.text, str(page), "exec")
            if block.why is None:
                exec(code, names)
        else:
            assert block.kind in SHOWN, f"{where}: how is {block.kind} run?"
    capsys.readouterr()
    for name in set(sys.modules) - before:
        if str(here) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def _check_command(words: list[str], wanted: bool, where: str) -> None:
    told = f"{where}: {shlex.join(words)}"
    if words[0] != "budwood":
        assert not wanted, f"{told}: is not run; say why"
        assert words[0] in OTHERS, told
        return
    arguments = _fill_in(words[1:])
    if not wanted:
        try:
            _parse(arguments)
        except click.exceptions.Exit:
            return  # --help
        except Exception as error:
            pytest.fail(f"{told}: {error}")
        return
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        code = run(arguments)
    assert code in FINE.get(arguments[0], {0}), f"{told}: exit code {code}\n{errors.getvalue()}"
