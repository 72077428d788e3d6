"""What `budwood publish` would send, and sends; no test speaks to the Hub."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import timm

import budwood as bw
from budwood.config.recipe import Recipe
from budwood.errors import PublishError
from budwood.exporting import form_answers, other_formats
from budwood.runs.run import Run, open_run
from budwood.storage.context import open_context
from budwood.workflows import export as workflow
from budwood.workflows.publish import publish, publish_run
from conftest import Notes, run_command


class KeptApi:
    """Keeps a copy of what it is sent."""

    def __init__(self) -> None:
        self.sent: dict[str, bytes] = {}
        self.message = ""

    def whoami(self) -> dict[str, Any]:
        return {"name": "anna"}

    def create_repo(self, repo_id: str, **_: Any) -> Any:
        return SimpleNamespace(repo_id=repo_id)

    def upload_folder(self, *, folder_path: str, commit_message: str, **_: Any) -> None:
        self.message = commit_message
        self.sent = {file.name: file.read_bytes() for file in Path(folder_path).iterdir()}


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forms answer in this process, as another takes seconds to import PyTorch; the ONNX file is checked elsewhere."""
    monkeypatch.setattr(workflow, "check_model", lambda *_: (None, None))
    monkeypatch.setattr(other_formats, "compute_answers", lambda form, *rest: form_answers.FORMS[form](*rest))


@pytest.fixture(scope="module")
def timm_run(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    recipe = Recipe(model="timm:test_resnet", weights="none", freeze="none", size=32, epochs=1, batch=8, lr=0.01)
    return bw.train(bw.scan(tiny / "photos"), recipe, out=tmp_path_factory.mktemp("timm"), id="timm")


def test_it_sends_a_folder_that_timm_loads(timm_run: Run, tmp_path: Path) -> None:
    api = KeptApi()
    made = publish_run(timm_run, "anna/pond", False, False, open_context(), api)
    assert (made.repository, made.form, made.sent) == ("anna/pond", "timm", True)
    assert api.message == "photos, run timm"
    assert {file.path: file.bytes for file in made.files} == {name: len(data) for name, data in api.sent.items()}
    for name, data in api.sent.items():
        (tmp_path / name).write_bytes(data)
    assert timm.create_model(f"local-dir:{tmp_path}", pretrained=True).num_classes == 2
    assert "library_name: timm" in made.head


def test_what_timm_cannot_hold_is_an_onnx_file(tiny: Path) -> None:
    notes, api = Notes(), KeptApi()
    run, context = open_run(tiny / "runs" / "one"), open_context(progress=notes)
    made = publish_run(run, "pond", False, False, context, api)
    assert (made.form, set(api.sent)) == ("onnx", {"README.md", "model.onnx"})
    assert "library_name: budwood" in made.head
    assert any("Published as an ONNX file." in note and "no network of timm's" in note for note in notes.kept)


def test_a_dry_run_lists_and_sends_nothing(
    timm_run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "none")
    said, _ = run_command(capsys, "publish", timm_run.path, "anna/pond", "--dry-run")
    assert "bytes  model.safetensors" in said
    assert "  library_name: timm\n" in said
    assert "Nothing was sent. Without --dry-run, this would be anna/pond, for timm." in said
    said, _ = run_command(capsys, "publish", timm_run.path, "anna/pond", "--dry-run", "--json")
    table = json.loads(said)
    assert (table["sent"], table["form"]) == (False, "timm")
    assert {file["path"] for file in table["files"]} == {"README.md", "config.json", "model.safetensors"}


def test_without_a_token_it_says_how_to_get_one(
    timm_run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import huggingface_hub

    def refuse(self: Any) -> None:
        raise huggingface_hub.errors.LocalTokenNotFoundError("no token")

    monkeypatch.setattr(huggingface_hub.HfApi, "whoami", refuse)
    _, said = run_command(capsys, "publish", timm_run.path, "anna/pond", code=2)
    assert "There is no token for the Hugging Face Hub on this machine." in said
    assert "hf auth login" in said


def test_a_bad_name_is_refused_before_anything_is_made(timm_run: Run) -> None:
    with pytest.raises(PublishError, match="'a b' is no name for a repository"):
        publish(timm_run, "a b")
