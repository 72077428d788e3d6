"""What every job is given beside its task: where to keep what can be computed again, and whom to tell how far it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from budwood.hardware import Runtime, find_runtime
from budwood.progress import Progress, choose_progress
from budwood.storage.atomic import cache_folder


@dataclass(frozen=True)
class Context:
    """The surroundings of a job, which change how it runs and never what comes out.

    Attributes:
        cache: The cache folder.
        progress: Where bars and notes go.
        runtime: The processes that carry out the job together.
    """

    cache: Path
    progress: Progress
    runtime: Runtime = field(default_factory=Runtime)


def open_context(cache: Path | None = None, progress: Progress | None = None) -> Context:
    """Make the context of a job from what its caller gave.

    Args:
        cache: The cache folder; None: the usual one.
        progress: Where bars and notes go; None: below the cell of a notebook, else nowhere.

    Returns:
        The context of a job.
    """
    return Context(cache or cache_folder(), progress or choose_progress(), find_runtime())
