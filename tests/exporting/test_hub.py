"""What `budwood publish` sends to the Hugging Face Hub, by an API that only notes what it is told."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

from budwood.errors import PublishError
from budwood.exporting.hub import HubFile, check_repository_name, list_files, publish_folder


class NotedApi:
    """Makes what it is asked for under the owner `anna`, or fails at one step."""

    def __init__(self, failing: str = "", error: Exception | None = None) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.failing, self.error = failing, error

    def _note(self, call: str, **options: Any) -> None:
        self.calls.append((call, options))
        if call == self.failing and self.error:
            raise self.error

    def whoami(self) -> dict[str, Any]:
        self._note("whoami")
        return {"name": "anna"}

    def create_repo(self, repo_id: str, **options: Any) -> Any:
        self._note("create_repo", repo_id=repo_id, **options)
        return SimpleNamespace(repo_id=f"anna/{repo_id}")

    def upload_folder(self, **options: Any) -> None:
        self._note("upload_folder", **options)


def refused(status: int) -> HfHubHTTPError:
    error = HfHubHTTPError.__new__(HfHubHTTPError)
    Exception.__init__(error, f"{status} Client Error")
    error.response = SimpleNamespace(status_code=status)  # type: ignore[assignment]
    return error


def test_it_makes_the_repository_and_sends_one_commit(tmp_path: Path) -> None:
    api = NotedApi()
    assert publish_folder(tmp_path, "pond", True, "A title", api) == "anna/pond"
    assert api.calls == [
        ("whoami", {}),
        ("create_repo", {"repo_id": "pond", "repo_type": "model", "private": True, "exist_ok": True}),
        (
            "upload_folder",
            {
                "repo_id": "anna/pond",
                "repo_type": "model",
                "folder_path": str(tmp_path),
                "commit_message": "A title",
            },
        ),
    ]


@pytest.mark.parametrize(
    ("step", "error", "message", "hint"),
    [
        ("whoami", LocalTokenNotFoundError("no token"), "There is no token for the Hugging Face Hub", "hf auth login"),
        ("whoami", refused(401), r"because the token does not allow it \(401\)", "HF_TOKEN"),
        ("create_repo", refused(403), r"does not make pond, because the token does not allow it \(403\)", "HF_TOKEN"),
        ("upload_folder", refused(500), "does not take the files for anna/pond", "later"),
        ("whoami", ConnectionError("name not resolved"), r"cannot be reached \(ConnectionError: name not", "--dry-run"),
    ],
)
def test_whatever_fails_is_one_clear_message(
    step: str, error: Exception, message: str, hint: str, tmp_path: Path
) -> None:
    api = NotedApi(step, error)
    with pytest.raises(PublishError, match=message) as raised:
        publish_folder(tmp_path, "pond", False, "A title", api)
    assert hint in raised.value.hint
    assert api.calls[-1][0] == step


@pytest.mark.parametrize("name", ["a b", "a/b/c", "-a", "a..b", "", "x" * 200])
def test_names_that_no_repository_can_have_are_refused(name: str) -> None:
    with pytest.raises(PublishError, match="is no name for a repository of the Hugging Face Hub"):
        check_repository_name(name)


def test_usual_names_are_taken() -> None:
    for name in ("pond-plants", "anna/pond_plants.v2"):
        check_repository_name(name)


def test_files_are_listed_with_their_sizes(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c.txt").write_text("four")
    (tmp_path / "a.txt").write_text("x")
    assert list_files(tmp_path) == (HubFile("a.txt", 1), HubFile("b/c.txt", 4))
