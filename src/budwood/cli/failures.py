"""How a command ends when it cannot do its work: one message on stderr, or as JSON on stdout, and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from budwood.cli.options import print_json
from budwood.text import show_unprintable


def fail(
    code: str, message: str, hint: str, exit_code: int, as_json: bool, files: Sequence[tuple[str, str]] = ()
) -> int:
    """Tell why a command failed.

    Args:
        code: Short name of the kind of failure.
        message: What is wrong, and where.
        hint: What to do; may be empty.
        exit_code: The exit code.
        as_json: Whether it is written as JSON to stdout, not as text to stderr.
        files: Files and what is wrong with each, for the JSON.

    Returns:
        The exit code.
    """
    if as_json:
        listed = {"files": [{"path": path, "problem": problem} for path, problem in files]} if files else {}
        print_json({"error": {"code": code, "message": message, "hint": hint, **listed}})
    else:
        print(f"budwood: {message}" + (f"\n  {hint}" if hint else ""), file=sys.stderr)
    return exit_code


def flush_output(code: int) -> int:
    """Write what is left of the output.

    Args:
        code: Exit code of the command.

    Returns:
        The exit code; 2 where the output cannot be written.
    """
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError as error:
        return _tell_lost_output(error)
    return code


def tell_failed_file(error: OSError, as_json: bool) -> int:
    """Tell which file could not be read or written; an error without a file is one of the output.

    Args:
        error: What the operating system reported.
        as_json: Whether it is told as JSON.

    Returns:
        The exit code.
    """
    if error.filename is None:
        return _tell_lost_output(error)
    message = f"{show_unprintable(str(error.filename))}: {error.strerror or error}."
    return fail("storage", message, "Check the path, and that you may read and write it.", 2, as_json)


def _tell_lost_output(error: OSError) -> int:
    """Tell that the output could not be written; whoever closed a pipe has seen enough and is told nothing."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or the interpreter tries again at its end, and complains
    if isinstance(error, BrokenPipeError):
        return 0
    return fail("storage", f"The output cannot be written ({error.strerror}).", "Send it to another place.", 2, False)
