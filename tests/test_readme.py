"""What the README shows, runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

import budwood
from budwood.cli.main import app
from budwood.config.ladder_options import NARROWING
from budwood.data.tables import PATH_COLUMNS
from budwood.studies.published_tables import GridFigure
from conftest import picture

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
DOCS = Path(__file__).parents[1] / "docs"


def test_the_ten_lines_of_python(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(photos.parent)
    picture(9999, hue=2).save("new.jpg")
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert code
    exec(compile(code[1], "README.md", "exec"), {})
    said = capsys.readouterr().out
    assert "low=" in said
    assert "'sky'" in said
    assert list(Path("runs").glob("*/report.html"))


def test_every_command_is_in_the_table_and_every_package_in_the_map() -> None:
    listed = set(re.findall(r"^\| `budwood ([\w-]+)", README, re.MULTILINE))
    assert listed == set(app.commands)
    source = Path(budwood.__file__).parent
    told = set(re.findall(r"`([\w/]+\.py)`", README))
    assert told
    assert all((source / file).is_file() for file in told)
    assert set(re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE)) >= {
        p.parent.name for p in source.glob("*/__init__.py")
    }
    assert PATH_COLUMNS[0] in README


def test_every_key_of_a_published_figure_is_told() -> None:
    told = (DOCS / "studies_format.md").read_text(encoding="utf-8")
    assert not [key for key in GridFigure.model_fields if f"`{key}`" not in told and f"`{key} = " not in told]


def test_every_option_that_narrows_the_search_is_told() -> None:
    told = (DOCS / "ladder.md").read_text(encoding="utf-8")
    assert not [name for name in NARROWING if f"--{name.replace('_', '-')}" not in told]


def test_every_page_that_is_linked_exists() -> None:
    for page in (DOCS.parent / "README.md", *DOCS.glob("*.md")):
        links = re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", page.read_text(encoding="utf-8"))
        assert not [link for link in links if not (page.parent / link).exists()], page.name


@pytest.mark.parametrize("name", sorted(app.commands))
def test_every_command_explains_itself(name: str) -> None:
    help_text = CliRunner().invoke(app, [name, "--help"]).output
    assert "--json" in help_text
    assert "--debug" in help_text
