"""The command and the group of commands: help in sections, exit codes in it, and words that one would guess."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click

from budwood.cli.arguments import normalize_name, read_arguments
from budwood.cli.exit_codes import list_exit_codes
from budwood.cli.familiar_words import find_familiar
from budwood.cli.help_sections import FIRST, make_help_all_option, write_options

# The commands by what they are for, in the order of the work.
COMMAND_SECTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "From data to a model": ("demo", "inspect", "train", "resume", "test", "lr-find"),
    "What a model is worth": ("report", "explain", "compare", "runs"),
    "A model in use": ("predict", "calibrate", "export", "publish", "drift", "suggest"),
    "Many models": ("study", "tune", "ensemble"),
    "What there is": ("models", "cache", "completion"),
}
_SENTENCE: Final = 200  # characters of what a command does, in the list of commands; lines are wrapped


class BudwoodCommand(click.Command):
    """A command that reads words of other tools, and whose help has sections and exit codes."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the parameters, with --help-all where --help does not show all.

        Args:
            ctx: The context of the call.

        Returns:
            The parameters.
        """
        parameters = super().get_params(ctx)
        return [*parameters, make_help_all_option()] if self.name in FIRST else parameters

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the words after the command.

        Args:
            ctx: The context of the call, which gets the values.
            args: The words.

        Returns:
            Words that are left over; none.

        Raises:
            click.UsageError: A word is wrong, or is answered in a sentence.
        """
        if not ctx.resilient_parsing:
            args = read_arguments(ctx, self.get_params(ctx), args)
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options into the help, in sections.

        Args:
            ctx: The context of the call.
            formatter: What the help is written with.
        """
        write_options(ctx, formatter, [one for one in self.get_params(ctx) if isinstance(one, click.Option)])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write what each exit code means into the help.

        Args:
            ctx: The context of the call.
            formatter: What the help is written with.
        """
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), words) for code, words in list_exit_codes(self.name or "").items()])


class BudwoodGroup(click.Group):
    """The group of all commands, which knows their names in other tools."""

    command_class = BudwoodCommand

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is meant.

        Args:
            ctx: The context of the call.
            args: The words of the command line.

        Returns:
            The name of the command, the command, and the words after it.

        Raises:
            click.UsageError: There is no such command.
        """
        given = args[0]
        name = normalize_name(given, self.commands)
        if name not in self.commands and not ctx.resilient_parsing:
            name = self._find_other_name(ctx, given) or given
        return super().resolve_command(ctx, [name, *args[1:]])

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands into the help, in sections.

        Args:
            ctx: The context of the call.
            formatter: What the help is written with.
        """
        placed = {name for names in COMMAND_SECTIONS.values() for name in names}
        sections: dict[str, Any] = {**COMMAND_SECTIONS, "Others": sorted(self.commands.keys() - placed)}
        longest = max(map(len, self.commands))
        with formatter.section("Commands"):
            for title, names in sections.items():
                listed = [
                    (name.ljust(longest), self.commands[name].get_short_help_str(_SENTENCE))
                    for name in names
                    if name in self.commands
                ]
                if listed:
                    with formatter.section(title):
                        formatter.write_dl(listed)

    def _find_other_name(self, ctx: click.Context, given: str) -> str:
        """The command that means the same; empty for none. Raises `UsageError` where there is an answer."""
        for found in find_familiar(normalize_name(given)):
            if found.answer:
                raise click.UsageError(f"{given}: {found.answer}", ctx)
            return found.means
        if Path(given).is_dir():
            both = f"Say `budwood inspect {given}`, which looks at it, or `budwood train {given}`"
            raise click.UsageError(f"{given}: this is a folder, not a command. {both}.", ctx)
        if "=" in given and not given.startswith("-"):
            raise click.UsageError(f"{given}: a command comes first. Say `budwood train DATA --epochs 3`.", ctx)
        return ""
