"""Words that an option chooses from, in any case: `--optimizer SGD` is `--optimizer sgd`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class Words(click.ParamType):  # type: ignore[type-arg]  # generic since Click 8.4 only
    """A type of options that take some words, or something else, such as a number or a name of the user's own.

    A word is taken in any case. What is none of the words stays as it is: the recipe tells all mistakes at once.
    """

    name = "name"

    def __init__(self, words: Sequence[str]) -> None:
        """Store the words.

        Args:
            words: The words.
        """
        self.words = tuple(words)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the word that a value is in any case, else the value.

        Args:
            value: What was given.
            param: The option.
            ctx: The context of the call.

        Returns:
            The word, or the value.
        """
        return match_case(value, self.words)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the words that begin like what is typed.

        Args:
            ctx: The context of the call.
            param: The option.
            incomplete: What is typed.

        Returns:
            The words.
        """
        from click.shell_completion import CompletionItem

        return [CompletionItem(word) for word in self.words if word.lower().startswith(incomplete.lower())]


class NetworkName(click.ParamType):  # type: ignore[type-arg]  # generic since Click 8.4 only
    """The type of `--model`: a name of a network, in any case, or `package.module:name` as it is."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the name in small letters, as all networks are written.

        Args:
            value: What was given.
            param: The option.
            ctx: The context of the call.

        Returns:
            The name; a user's own as it is.
        """
        from budwood.config.own_networks import is_users_code

        return value if not isinstance(value, str) or is_users_code(value) else value.lower()


def match_case(value: Any, words: Sequence[str]) -> Any:
    """Return the word that a value is, whatever its case.

    Args:
        value: What was given.
        words: The words.

    Returns:
        The word; the value where it is none of them.
    """
    if not isinstance(value, str) or value in words:
        return value
    return next((word for word in words if word.lower() == value.lower()), value)
