"""What a shell offers where a run or a path is typed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


def complete_run(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a run in the folder of runs, or a path.

    Args:
        ctx: The context of the call, which may have --out.
        _parameter: The argument.
        incomplete: What is typed.

    Returns:
        The runs whose names begin so, the latest first; where there are none, the shell completes a path.
    """
    from click.shell_completion import CompletionItem

    out = Path(ctx.params.get("out") or "runs")
    names = sorted((place.name for place in out.iterdir() if place.is_dir()), reverse=True) if out.is_dir() else []
    found = [CompletionItem(name) for name in names if name.startswith(incomplete)]
    return found or [CompletionItem(incomplete, type="file")]


def complete_path(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Have the shell complete a path.

    Args:
        _ctx: The context of the call.
        _parameter: The argument or option.
        incomplete: What is typed.

    Returns:
        What tells the shell so.
    """
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]
