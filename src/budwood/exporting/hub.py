"""A folder on the Hugging Face Hub: nothing leaves this machine but what is listed, and only when it is told to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from budwood.errors import PublishError

if TYPE_CHECKING:
    from types import ModuleType

LOGIN: Final = "Log in with `hf auth login`, or set HF_TOKEN to a token that may write."
MODEL: Final = "model"


class HubRepository(Protocol):
    """What the Hub says of a repository that it has made or found."""

    @property
    def repo_id(self) -> str:
        """Its whole name, owner included."""


class HubApi(Protocol):
    """What is used of `huggingface_hub.HfApi`."""

    def whoami(self) -> dict[str, Any]:
        """Say whose token is in use."""

    def create_repo(self, repo_id: str, *, repo_type: str, private: bool, exist_ok: bool) -> HubRepository:
        """Make a repository, or find it."""

    def upload_folder(self, *, repo_id: str, repo_type: str, folder_path: str, commit_message: str) -> object:
        """Make one commit of a folder's files."""


@dataclass(frozen=True)
class HubFile:
    """A file that is, or would be, published.

    Attributes:
        path: Its path in the repository.
        bytes: Its size.
    """

    path: str
    bytes: int


def list_files(folder: Path) -> tuple[HubFile, ...]:
    """List what publishing a folder sends.

    Args:
        folder: The folder.

    Returns:
        Its files with their sizes, by path.
    """
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return tuple(HubFile(file.relative_to(folder).as_posix(), file.stat().st_size) for file in files)


def check_repository_name(name: str) -> None:
    """Refuse a name that no repository of the Hub can have.

    Args:
        name: `owner/name`, or `name` for one of the user's own.

    Raises:
        PublishError: The name is not possible, or the package huggingface_hub is missing.
    """
    hub = _import_hub()
    try:
        hub.utils.validate_repo_id(name)
    except hub.errors.HFValidationError as error:
        raise PublishError(
            f"{name!r} is no name for a repository of the Hugging Face Hub.",
            "Give owner/name, of letters, digits, '-', '_' and '.', such as anna/pond-plants.",
        ) from error


def publish_folder(folder: Path, name: str, private: bool, message: str, api: HubApi | None = None) -> str:
    """Publish a folder as one commit to a model repository of the Hub, which is made where it is missing.

    Args:
        folder: The files.
        name: `owner/name`, or `name` for one of the user's own.
        private: Whether a repository that is made is private; one that exists stays as it is.
        message: Title of the commit.
        api: What talks to the Hub; None: `huggingface_hub.HfApi`, with the user's token.

    Returns:
        The repository's whole name.

    Raises:
        PublishError: The package huggingface_hub is missing, there is no token that may write, the Hub cannot be
            reached, or it refuses.
    """
    client = api or _import_hub().HfApi(library_name="budwood")
    _ask(client.whoami, "says not who you are")
    made = _ask(
        lambda: client.create_repo(name, repo_type=MODEL, private=private, exist_ok=True), f"does not make {name}"
    )
    repository: str = made.repo_id
    _ask(
        lambda: client.upload_folder(
            repo_id=repository, repo_type=MODEL, folder_path=str(folder), commit_message=message
        ),
        f"does not take the files for {repository}",
    )
    return repository


def _ask(call: Callable[[], Any], what: str) -> Any:
    """The answer of the Hub; raises `PublishError` for whatever kept it from answering."""
    try:
        return call()
    except Exception as error:  # of its own kinds, of the network's, and of the disk's
        raise _explain(error, what) from error


def _explain(error: Exception, what: str) -> PublishError:
    errors = _import_hub().errors
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if isinstance(error, errors.LocalTokenNotFoundError):
        return PublishError("There is no token for the Hugging Face Hub on this machine.", LOGIN)
    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else None
    if status in (401, 403):
        return PublishError(f"The Hugging Face Hub {what}, because the token does not allow it ({status}).", LOGIN)
    if status is not None:
        return PublishError(f"The Hugging Face Hub {what} ({reason}).", "Repeat the command later.")
    return PublishError(
        f"The Hugging Face Hub cannot be reached ({type(error).__name__}: {reason}).",
        "Check the network, and repeat the command; --dry-run shows what would be published without one.",
    )


def _import_hub() -> ModuleType:
    try:
        import huggingface_hub
        import huggingface_hub.errors
        import huggingface_hub.utils
    except ImportError as error:
        raise PublishError(
            "Publishing needs the package huggingface_hub, which is not installed.",
            "Install it with `pip install 'budwood[hub]'`.",
        ) from error
    return huggingface_hub
