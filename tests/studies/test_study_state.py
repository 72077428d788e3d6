"""`study.json` is read whoever wrote it; studies that version 0.1 made are opened, resumed, extended and reported."""

from __future__ import annotations

import csv
import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

import budwood as bw
from budwood.cli.main import run
from budwood.comparison.published import Published
from budwood.errors import StudyError
from budwood.runs.run import find_run
from budwood.studies import training_job
from budwood.studies.reports import report_study
from budwood.studies.study_state import RowState, StudyState, read_state, write_state
from budwood.workflows.train import train_recipe

KEPT = Path(__file__).parents[1] / "kept" / "study-0.1"  # its root is `photos` in the working directory
PUBLISHED = Published(val=0.9, test=(0.8, 0.85), seconds=364.0, machine="a GPU", note="Table 2")
STATE = StudyState(
    name="small",
    title="Small networks",
    source="",
    state="running",
    written="2026-01-01T00:00:00+00:00",
    metric="accuracy",
    changed={"widths": (8, 8)},
    rows=(
        RowState(label="a", state="training", problem="", runs=("a-1", "a-2"), published=PUBLISHED),
        RowState(label="b", state="failed", problem="no weights", runs=(), published=None),
    ),
)


def _photos(folder: Path) -> None:
    """The images of the kept study, byte for byte: noise with a strong red or green."""
    for place, label in enumerate(("leaf", "sky")):
        (folder / label).mkdir(parents=True)
        for number in range(16):
            pixels = bytearray(random.Random(100 * place + number).randbytes(3 * 12 * 12))
            pixels[place::3] = bytes(200 + value // 5 for value in pixels[place::3])
            (folder / label / f"{number:02}.ppm").write_bytes(b"P6\n12 12\n255\n" + pixels)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the study that version 0.1 made, with its images beside it, as the working directory."""
    monkeypatch.chdir(tmp_path)
    _photos(tmp_path / "photos")
    shutil.copytree(KEPT, tmp_path / "runs" / "kept")
    return Path("runs/kept")


def _table(folder: Path) -> list[dict[str, str]]:
    with (folder / "table.csv").open(newline="") as handle:
        return list(csv.DictReader(handle))


def test_a_state_that_was_written_is_read_again(tmp_path: Path) -> None:
    write_state(tmp_path, STATE)
    assert read_state(tmp_path) == STATE.model_copy(update={"changed": {"widths": [8, 8]}})
    assert json.loads((tmp_path / "study.json").read_text())["schema_version"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["study.json"]


def test_a_state_of_version_0_1_is_read() -> None:
    assert "schema_version" not in json.loads((KEPT / "study.json").read_text())
    state = read_state(KEPT)
    assert (state.schema_version, state.state, state.metric) == (1, "running", "accuracy")
    assert {row.label: row.state for row in state.rows} == {
        "slow": "done",
        "fast": "done",
        "wild": "refused",
        "missing": "waiting",
        "cut short": "waiting",
    }
    assert state.rows[0].published == Published(test=0.9, note="by nobody")


def _without_name(content: dict[str, Any]) -> None:
    del content["name"]


def _with_a_new_state(content: dict[str, Any]) -> None:
    content["rows"][0]["state"] = "dreaming"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without_name, r"study\.json: cannot be read \(name: Field required\)"),
        (_with_a_new_state, r"study\.json: cannot be read \(rows\.0\.state: Input should be 'waiting'"),
        (lambda content: content.update(schema_version=2), r"has the schema version 2, expected 1 at most"),
    ],
)
def test_a_state_that_cannot_be_read_is_refused_with_the_place(tmp_path: Path, change: Any, message: str) -> None:
    write_state(tmp_path, STATE)
    content = json.loads((tmp_path / "study.json").read_text())
    change(content)
    (tmp_path / "study.json").write_text(json.dumps(content))
    with pytest.raises(StudyError, match=message):
        read_state(tmp_path)


@pytest.mark.parametrize("text", ["[1]", "{", "null"])
def test_what_is_no_state_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "study.json").write_text(text)
    with pytest.raises(StudyError, match=r"study\.json: cannot be read"):
        read_state(tmp_path)
    with pytest.raises(StudyError, match=r"study\.json: cannot be read"):
        read_state(tmp_path / "nowhere")


def _leave_out(row: dict[str, str], names: set[str]) -> dict[str, str]:
    return {name: value for name, value in row.items() if name not in names}


def test_a_study_of_version_0_1_is_reported(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = report_study(kept)
    assert [row.label for row in made.rows if row.runs] == ["slow", "fast"]
    for now, then in zip(_table(kept), _table(KEPT), strict=True):
        then |= {"published_against": "", "published_difference": ""}  # of another split than ours
        then["problem"] = then["problem"].replace("was not trained to its end", "its training did not finish")
        made_anew = {f"{name}_{end}" for name in ("train", "from_best") for end in ("low", "high")}
        assert {name: now[name] for name in then if name not in made_anew} == _leave_out(then, made_anew)
        for name in made_anew:
            assert bool(now[name]) == bool(then[name]), "of version 0.1 are other intervals where there are some"
    assert "A study made by version 0.1" in (kept / "report.html").read_text()
    assert run(["report", "kept"]) == 0
    assert capsys.readouterr().out.strip() == str(Path("runs/kept/report.html"))


def test_a_study_of_version_0_1_goes_on_with_an_added_row(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[str] = []
    resumed: list[str] = []
    train, resume = train_recipe, bw.resume

    def noting_train(*arguments: Any, **options: Any) -> Any:
        trained.append(options["id"].rpartition("-")[0])
        return train(*arguments, **options)

    def noting_resume(found: Any, **options: Any) -> Any:
        resumed.append(found.path.name)
        return resume(found, **options)

    monkeypatch.setattr(training_job, "train_recipe", noting_train)
    monkeypatch.setattr(training_job, "resume", noting_resume)
    before = {path: path.read_bytes() for path in KEPT.glob("[sf]*/run.json")}
    file = Path("kept.toml")
    file.write_text((kept / "study.toml").read_text() + '\n[[rows]]\nlabel = "added"\nlr = 0.005\n')
    made = bw.study(file)
    assert trained == ["missing", "added"]
    assert resumed == ["cut-short-bb96c2d833"]
    for path, content in before.items():
        assert (kept / path.relative_to(KEPT)).read_bytes() == content, "what was finished is left as it is"
    state = read_state(kept)
    assert {row.label: row.state for row in state.rows} == {
        "slow": "done",
        "fast": "done",
        "wild": "refused",
        "missing": "failed",
        "cut short": "done",
        "added": "done",
    }
    assert (state.state, len([row for row in made.rows if row.runs])) == ("done", 4)
    assert len(find_run(kept / "cut-short-bb96c2d833").history) == 2
