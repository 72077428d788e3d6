"""A run in, a repository on the Hugging Face Hub out; or, without sending anything, what it would hold."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from budwood.errors import RunError
from budwood.exporting.formats import ExportRequest
from budwood.exporting.hub import HubApi, HubFile, check_repository_name, list_files, publish_folder
from budwood.exporting.other_formats import CARD, write_timm
from budwood.progress import Progress
from budwood.reporting.model_card import render_model_card
from budwood.runs.run import Run, open_any_run
from budwood.storage.atomic import raise_storage_errors
from budwood.storage.context import Context, open_context
from budwood.workflows.export import make_checked_model

ONNX: Final = "model.onnx"
FENCE: Final = "---"  # around the head of a card


@dataclass(frozen=True)
class Publication:
    """What was published, or would be.

    Attributes:
        repository: Name of the repository, with its owner once it is published.
        form: In which form: `timm`, or `onnx` where timm cannot hold the network.
        files: The files.
        head: The head of the card, YAML, which the Hub reads.
        sent: Whether it was published.
    """

    repository: str
    form: Literal["onnx", "timm"]
    files: tuple[HubFile, ...]
    head: str
    sent: bool


def publish(
    run: Run | str | Path,
    name: str,
    *,
    private: bool = False,
    dry_run: bool = False,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Publication:
    """Publish a run on the Hugging Face Hub, with its model card: as timm loads it, else as an ONNX file.

    Images are not published, but the card says of the data what it knows: read it before, with `dry_run`.

    Args:
        run: A finished run, or its path or id.
        name: `owner/name` of the repository, or `name` for one of the user's own; it is made where it is missing.
        private: Whether a repository that is made is private.
        dry_run: Whether nothing is sent, and no network is needed.
        cache: The cache folder; None: the usual one.
        progress: Where notes go; None: below the cell of a notebook, else nowhere.

    Returns:
        What was published, or would be.

    Raises:
        RunError: There is no such run, or its network cannot be exported.
        PublishError: The name is not possible, there is no token, the Hub cannot be reached, or it refuses.
        StorageError: There is no room for the files.
    """
    return publish_run(open_any_run(run), name, private, dry_run, open_context(cache, progress))


def publish_run(
    run: Run, name: str, private: bool, dry_run: bool, context: Context, api: HubApi | None = None
) -> Publication:
    """Publish a run as `publish` does; `api` talks to the Hub (None: `huggingface_hub`, with the user's token)."""
    check_repository_name(name)
    place = Path(tempfile.gettempdir())
    with raise_storage_errors(place), tempfile.TemporaryDirectory(prefix="budwood-") as temporary:
        folder = Path(temporary)
        form = write_form(run, folder, context)
        files, head = list_files(folder), read_head((folder / CARD).read_text(encoding="utf-8"))
        if not dry_run:
            name = publish_folder(folder, name, private, f"{run.record.dataset.name}, run {run.record.id}", api)
    return Publication(name, form, files, head, not dry_run)


def write_form(run: Run, folder: Path, context: Context) -> Literal["onnx", "timm"]:
    """Write what is published into an empty folder, and return in which form it is.

    Raises:
        RunError: The network cannot be exported.
        OSError: The folder cannot be written.
    """
    model, record = make_checked_model(run, context, int8=False)
    card = render_model_card(run)
    try:
        write_timm(ExportRequest(run, model, record, card, folder, context))
        return "timm"
    except RunError as error:
        context.progress.note(f"Published as an ONNX file. {error.message}")
    for file in folder.iterdir():
        file.unlink()
    (folder / ONNX).write_bytes(model)
    (folder / CARD).write_text(card, encoding="utf-8")
    return "onnx"


def read_head(card: str) -> str:
    """Return the YAML at the beginning of a card, without what encloses it; empty where there is none."""
    before, found, rest = card.partition(f"{FENCE}\n")
    return rest.partition(f"\n{FENCE}")[0] if found and not before else ""
