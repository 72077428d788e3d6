"""`budwood completion`: the script with which a shell completes commands, options, choices, runs and files."""

from __future__ import annotations

from typing import Final

import click

from budwood.cli.commands import BudwoodCommand
from budwood.cli.options import add_common_options, print_json

SHELLS: Final = ("bash", "zsh", "fish")
_PROGRAM: Final = "budwood"
_VARIABLE: Final = "_BUDWOOD_COMPLETE"  # by which the script asks the program; Click's name for it


@click.command(cls=BudwoodCommand)
@click.argument("shell", type=click.Choice(SHELLS, case_sensitive=False))
@add_common_options
def completion(shell: str, as_json: bool, debug: bool) -> None:
    r"""Print the script with which bash, zsh or fish completes budwood's commands and options.

    \b
    bash: add to ~/.bashrc   eval "$(budwood completion bash)"
    zsh:  add to ~/.zshrc    eval "$(budwood completion zsh)"
    fish: budwood completion fish > ~/.config/fish/completions/budwood.fish
    """
    from click.shell_completion import get_completion_class

    maker = get_completion_class(shell)
    assert maker is not None
    group = click.get_current_context().find_root().command
    # Not `source()`, which asks the installed bash for its version: the script may be for another machine.
    made = maker(group, {}, _PROGRAM, _VARIABLE)
    script = made.source_template % made.source_vars()
    if as_json:
        print_json({"shell": shell, "script": script})
        return
    print(script)
