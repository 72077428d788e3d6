"""The documentation site: every page is in it, it asks for nothing elsewhere, its figure and its contract are true."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click
import pytest
import yaml  # type: ignore[import-untyped]

import budwood as bw
from budwood.cli.main import app, run
from budwood.cli.options import make_recipe_flags
from conftest import TINY
from make_pages import (
    DOCS,
    FIGURE,
    adapt_links,
    describe_commands,
    describe_names,
    describe_recipe,
    draw_surgery,
    find_foreign,
    main,
)

ROOT: Final = Path(__file__).parents[2]
ROW: Final = re.compile(r"^\| `([\w -]+)`(?:, `([\w-]+)`)?(?: \([^)]*\))? \| (.+) \|$", re.MULTILINE)


def _nav(entry: Any) -> list[str]:
    """The pages of the navigation, in order."""
    if isinstance(entry, str):
        return [entry]
    parts = entry.values() if isinstance(entry, dict) else entry
    return [page for part in parts for page in _nav(part)]


def test_every_page_is_in_the_navigation_once(tmp_path: Path) -> None:
    main(tmp_path / "pages")
    made = {str(path.relative_to(tmp_path / "pages")) for path in (tmp_path / "pages").rglob("*.md")}
    told = _nav(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    assert sorted(told) == sorted(made)


def test_the_reference_has_every_command_option_and_public_name() -> None:
    commands, options, names = describe_commands(), describe_recipe(), describe_names()
    assert re.findall(r"^## budwood ([\w-]+)$", commands, re.MULTILINE) == sorted(app.commands)
    assert "`--images-per-class` `N`" in commands
    assert not [flag.opts[0] for flag in make_recipe_flags() if f"`{flag.opts[0]}`" not in options]
    assert not [name for name in bw.__all__ if f"### bw.{name}\n" not in names and f"## bw.{name}\n" not in names]


def test_links_of_the_repository_become_links_of_the_site() -> None:
    there = "[a](../BENCHMARKS.md#x) [b](docs/start.md) [c](CHANGELOG.md) [d](data.md)"
    assert adapt_links(there) == "[a](benchmarks.md#x) [b](start.md) [c](changelog.md) [d](data.md)"


def test_the_figure_of_surgery_is_what_the_code_draws() -> None:
    assert FIGURE.read_text(encoding="utf-8") == draw_surgery(), "draw it anew: scripts/docs figure"


def test_what_is_loaded_from_elsewhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "fine.html").write_text(
        '<link rel="canonical" href="https://a.b/"><a href="https://a.b/">a</a><script src="assets/x.js"></script>',
        encoding="utf-8",
    )
    (tmp_path / "page.html").write_text(
        '<link rel="stylesheet" href="https://fonts.a/css"><img src=//b.c/d.png><script src="http://e/f.js"></script>',
        encoding="utf-8",
    )
    told = ["page.html: //b.c/d.png", "page.html: http://e/f.js", "page.html: https://fonts.a/css"]
    assert find_foreign(tmp_path) == told


def _named() -> Iterator[tuple[str, str]]:
    """Every piece of code within a line of the pages, with its page."""
    for page in (ROOT / "README.md", *sorted(DOCS.glob("*.md"))):
        prose = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        yield from ((page.name, code) for code in re.findall(r"`([^`\n]+)`", prose))


def test_every_option_and_name_within_the_text_exists() -> None:
    known = {"--help"}
    for name, command in app.commands.items():
        parameters = command.get_params(click.Context(command, info_name=name))
        known |= {option for one in parameters for option in (*one.opts, *one.secondary_opts)}
    options = [(page, word) for page, code in _named() for word in re.findall(r"(?<![\w-])--[a-z][\w-]*", code)]
    assert len(options) > 100
    assert not [(page, word) for page, word in options if word not in known]
    names = [(page, word) for page, code in _named() for word in re.findall(r"\bbw\.(\w+)", code)]
    assert len(names) > 20
    assert not [(page, word) for page, word in names if word not in bw.__all__]


def test_every_recipe_within_the_text_is_valid() -> None:
    recipes = [code for _, code in _named() if code.startswith("bw.Recipe(") and "..." not in code]
    assert len(recipes) > 3
    for code in recipes:
        assert isinstance(eval(code, {"bw": bw}), bw.Recipe), code


def _promised() -> dict[str, set[str]]:
    """Keys that docs/agents.md promises, by command."""
    text = (DOCS / "agents.md").read_text(encoding="utf-8")
    table = text[text.index("## What `--json` gives") : text.index("`metrics` is by split")]
    found = {}
    for first, second, cell in ROW.findall(table):
        keys = set(re.findall(r"`(\w+)`", re.split(r" \(|;", cell)[0]))
        found.update({name: keys for name in (first, second) if name})
    return found


def test_every_command_with_results_is_in_the_contract() -> None:
    told = {name.split()[0] for name in _promised()}
    assert set(app.commands) - {"demo"} <= told


@pytest.fixture(scope="module")
def here(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with photos and the run `one`, and a second run."""
    folder = tmp_path_factory.mktemp("contract") / "here"
    shutil.copytree(tiny, folder)
    bw.train(bw.scan(folder / "photos"), bw.Recipe(**TINY, seed=1), out=folder / "runs", id="two")
    return folder


@pytest.mark.parametrize(
    "arguments",
    [
        ("inspect", "photos"),
        ("train", "photos", "--model", "cnn", "--widths", "4", "--fc", "4", "--size", "16", "--epochs", "1"),
        ("predict", "one", "photos/sky/000.png"),
        ("calibrate", "one", "--refuse", "0.1"),
        ("compare", "one", "two"),
        ("ensemble", "one", "two"),
        ("drift", "one", "photos/sky"),
        ("report", "one"),
        ("models", "resnet*"),
        ("cache",),
        ("test", "two"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_command_gives_the_keys_that_are_promised(
    arguments: tuple[str, ...], here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(here)
    assert run([*arguments, "--json"], as_json=True) in {0, 4}
    document = json.loads(capsys.readouterr().out)
    given = document[0] if isinstance(document, list) else document
    assert _promised()[arguments[0]] <= given.keys()


def test_errors_are_documents_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", "nowhere", "--json"], as_json=True) == 2
    assert json.loads(capsys.readouterr().out)["error"].keys() >= {"code", "message", "hint"}
