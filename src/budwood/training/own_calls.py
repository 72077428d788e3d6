"""Calling users' own code: what it raises is told with its file and line, except that memory has run out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from budwood.config.own_objects import make_failure
from budwood.errors import BudwoodError


@contextmanager
def telling_failures(name: str, option: str) -> Iterator[None]:
    """Run a block that calls a user's own code.

    Args:
        name: Its name in the recipe.
        option: The option that holds it.

    Raises:
        RecipeError: It has failed; the message says in which line.
    """
    try:
        yield
    except (BudwoodError, MemoryError):
        raise
    except Exception as error:  # a user's code can fail in any way
        if isinstance(error, RuntimeError) and _is_out_of_memory(error):
            raise
        raise make_failure(error, name, option) from error


def _is_out_of_memory(error: RuntimeError) -> bool:
    from budwood.training.device import is_out_of_memory  # which loads torch, and what schedules need does not

    return is_out_of_memory(error)
