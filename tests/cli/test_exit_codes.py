"""`--fail-on` makes findings an exit code, for continuous integration."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pytest

from budwood.cli.exit_codes import FOUND, LEVELS, Level, judge_findings
from budwood.cli.main import run


@dataclass(frozen=True)
class _Finding:
    code: str
    severity: str


FINDINGS = [_Finding("D001", "warning"), _Finding("D020", "error"), _Finding("D001", "warning"), _Finding("D9", "note")]


@pytest.mark.parametrize(
    ("level", "code", "said"),
    [
        ("never", 0, ""),
        ("error", FOUND, "--fail-on error: 1 finding (D020), so the exit code is 5.\n"),
        ("warning", FOUND, "--fail-on warning: 3 findings (D001, D020), so the exit code is 5.\n"),
    ],
)
def test_findings_of_a_severity_fail(level: Level, code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert judge_findings(FINDINGS, level) == code
    assert capsys.readouterr().err == said
    assert judge_findings(FINDINGS[3:], level) == 0


def test_every_level_is_told() -> None:
    assert list(LEVELS) == list(get_args(Level))


@pytest.fixture
def copied(photos: Path) -> Path:
    """Pictures with an exact copy, which is a warning."""
    shutil.copy(photos / "leaf/000.png", photos / "leaf/copy.png")
    return photos


def test_inspect_fails_on_a_severity(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", str(copied)]) == 0
    assert run(["inspect", str(copied), "--fail-on", "Error"]) == 0
    capsys.readouterr()
    assert run(["inspect", str(copied), "--fail-on", "warning", "--json"], as_json=True) == FOUND
    out, err = capsys.readouterr()
    assert [one["code"] for one in json.loads(out)["findings"]] == ["D010"]
    assert "--fail-on warning: 1 finding (D010), so the exit code is 5." in err
    assert run(["inspect", str(copied), "--fail-on", "warning"]) == FOUND
    assert run(["inspect", str(copied), "--fail-on", "note"]) == 2


def test_train_keeps_the_run_and_fails(copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", str(copied), "--model", "mlp", "--size", "8", "--epochs", "1", "--out", str(tmp_path / "runs")]
    assert run([*words, "--device", "cpu", "--fail-on", "warning", "--json"], as_json=True) == FOUND
    assert (Path(json.loads(capsys.readouterr().out)["run"]) / "report.html").is_file()


def test_a_study_fails_on_its_findings(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "s.toml").write_text(
        f'name = "s"\ndata = "{photos.as_posix()}"\nseeds = [0, 1]\n'
        '[base]\nmodel = "mlp"\nsize = 8\nepochs = 1\noptimizer = "adam"\n'
        '[[rows]]\nlabel = "one"\n[[rows]]\nlabel = "two"\nepochs = 2\n'
    )
    words = ["study", str(tmp_path / "s.toml"), "--out", str(tmp_path / "runs"), "--seed", "7"]
    assert run(words) == 0
    capsys.readouterr()
    assert run([*words, "--fail-on", "warning"]) == FOUND
    assert "so the exit code is 5." in capsys.readouterr().err
    recipes = [one.read_text(encoding="utf-8") for one in (tmp_path / "runs" / "s").rglob("recipe.toml")]
    assert len(recipes) == 2, "one seed in place of the file's two"
    assert all("seed = 7" in recipe for recipe in recipes)
