"""What commands of the command line have in common: flags of recipes, of data and of output; progress; JSON."""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeVar, Union, cast, get_args, get_origin

import click

from budwood.cli.choices import NetworkName, Words, match_case
from budwood.cli.commands import BudwoodCommand
from budwood.cli.completers import complete_path
from budwood.storage.strict_json import encode_json

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from budwood.progress import Progress

Command = TypeVar("Command", bound=Callable[..., Any])
# Words of options that take anything, such as a file, of which these are known.
_FREE_WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    "freeze": ("trunk", "none"),
    "head": ("linear",),
    "weights": ("imagenet", "none"),
}
READING_OPTIONS: Final = {
    "label_from": "top",
    "label_separator": None,
    "spelling": "join",
    "split_folders": "auto",
    "image_column": None,
    "label_column": None,
}


class RecipeCommand(BudwoodCommand):
    """A command with one flag per recipe option.

    The flags are generated when the command is called, not when Budwood starts.
    """

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the command's own parameters, then the recipe's.

        Args:
            ctx: The context of the call.

        Returns:
            The parameters.
        """
        return [*super().get_params(ctx), *make_recipe_flags()]


class SurgeryCommand(BudwoodCommand):
    """A command with one flag per recipe option that decides how a network is built."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the command's own parameters, then those of network surgery.

        Args:
            ctx: The context of the call.

        Returns:
            The parameters.
        """
        return [*super().get_params(ctx), *make_recipe_flags(of_surgery=True)]


class TuneCommand(RecipeCommand):
    """A command with the recipe's flags, of which those that it has itself are of a trial, such as --trial-time."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the command's own parameters, then the recipe's, renamed where it has the same flag itself.

        Args:
            ctx: The context of the call.

        Returns:
            The parameters.
        """
        own = BudwoodCommand.get_params(self, ctx)
        names, taken = {each.name for each in own}, {flag for each in own for flag in each.opts}
        flags = [each for each in make_recipe_flags() if each.name not in names]
        return [*own, *(_rename_for_trial(each) if taken & set(each.opts) else each for each in flags)]


def _rename_for_trial(flag: click.Option) -> click.Option:
    """A flag of the recipe under a name of its own, where the command's flag of that name is of the whole search."""
    name, words = (
        f"--trial-{flag.opts[0].removeprefix('--')}",
        f"Of each trial: {str(flag.help)[0].lower()}{str(flag.help)[1:]}",
    )
    return click.Option([name, str(flag.name)], type=flag.type, metavar=flag.metavar, help=words)


def add_common_options(command: Command) -> Command:
    """Add --json and --debug to a command.

    Args:
        command: The function of the command.

    Returns:
        The function with the options.
    """
    command = click.option("--debug", is_flag=True, help="Show the Python traceback of an error.")(command)
    return click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document.")(command)


def add_out_option(command: Command) -> Command:
    """Add --out, the folder of runs, to a command.

    Args:
        command: The function of the command.

    Returns:
        The function with the option.
    """
    option = click.option(
        "--out", type=click.Path(path_type=Path), default="runs", show_default=True, help="Folder of runs."
    )
    return option(command)


def add_name_option(command: Command) -> Command:
    """Add --name, the name of the new run, to a command.

    Args:
        command: The function of the command.

    Returns:
        The function with the option.
    """
    words = "Name of the new run, by which later commands find it; it must be free. [time, network and four digits]"
    return click.option("--name", metavar="NAME", help=words)(command)


def refuse_bad_name(name: str | None, out: Path, *, search: bool = False) -> None:
    """Refuse a name of a new run that is taken or that no folder can have, before anything is read.

    Args:
        name: What --name gave; None: nothing.
        out: The folder of runs.
        search: Whether it is that of a search, whose runs have it with a number behind it.

    Raises:
        RunError: There is such a run already, or a folder cannot be named so.
    """
    from budwood.runs.run_ids import refuse_bad_id

    if name is not None:
        refuse_bad_id(name, out, "--name", search=search)


def add_leaks_option(command: Command) -> Command:
    """Add --leaks, what is done with images that stand in two given splits, to a command.

    Args:
        command: The function of the command.

    Returns:
        The function with the option.
    """
    option = click.option(
        "--leaks",
        type=click.Choice(("drop", "refuse", "allow"), case_sensitive=False),
        default="drop",
        show_default=True,
        help="If images of a given split are also in another: drop leaves them out of training (and of validation, for "
        "the test set); refuse stops; allow uses them, and every report says so.",
    )
    return option(command)


def add_corrections_option(command: Command) -> Command:
    """Add --corrections, files of corrected labels, to a command.

    Args:
        command: The function of the command.

    Returns:
        The function with the option.
    """
    option = click.option(
        "--corrections",
        multiple=True,
        metavar="FILE",
        help="CSV file with corrected labels (columns path, label, correct); may be repeated.",
    )
    return option(command)


def add_data_argument(command: Command) -> Command:
    """Add the DATA argument, with the options of its splits, classes, corrections and reading, to a command.

    Args:
        command: The function of the command.

    Returns:
        The function with the argument and the options; how the data are read comes as the argument `reading`.
    """
    share = click.FloatRange(0, 1, min_open=True, max_open=True)
    command = click.option("--exclude", multiple=True, metavar="CLASS", help="Class to leave out; may be repeated.")(
        add_reading_options(command)
    )
    command = click.option(
        "--test", type=share, help="Share of images for the sealed test set, if the data have no split. [0.2]"
    )(command)
    command = click.option(
        "--val", type=share, help="Share of the remaining images for the validation set, if the data have none. [0.2]"
    )(command)
    argument = click.argument(
        "data", metavar="DATA...", nargs=-1, required=True, callback=join_data, shell_complete=complete_path
    )
    return argument(add_corrections_option(command))


def join_data(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> str:
    """Join the DATA that were given to the one name that they have in runs and studies, as click's callback.

    Args:
        context: The context of the call.
        parameter: The argument.
        given: The paths, at least one unless the call is only parsed.

    Returns:
        The name.

    Raises:
        DataError: When one of several paths has the separator in it.
    """
    from budwood.data.several import join_sources

    return join_sources(given) if given else ""


def add_reading_options(command: Command) -> Command:
    """Add the options that say how data are read that could be read in two ways, as one argument, `reading`.

    Args:
        command: The function of the command.

    Returns:
        The function with the options.
    """
    options = (
        click.option(
            "--label-from",
            type=click.Choice(["top", "parent", "path"], case_sensitive=False),
            default=READING_OPTIONS["label_from"],
            help="Class of images in folders in a class folder: that folder, the one they are in, or their path. [top]",
        ),
        click.option(
            "--label-separator",
            metavar="SEP",
            help="What parts several labels in a cell of a table: a character, 'space', or 'none'. [found out]",
        ),
        click.option(
            "--spelling",
            type=click.Choice(["join", "keep"], case_sensitive=False),
            default=READING_OPTIONS["spelling"],
            help="Read 'cat', 'Cat' and 'cat ' as one class, or keep labels as written. [join]",
        ),
        click.option(
            "--split-folders",
            type=click.Choice(["auto", "never"], case_sensitive=False),
            default=READING_OPTIONS["split_folders"],
            help="Read folders called train, val or test as splits, or never: as classes. [auto]",
        ),
        click.option(
            "--image-column", metavar="NAME", help="Column of a table that holds paths or images. [found by its name]"
        ),
        click.option("--label-column", metavar="NAME", help="Column of a table that holds labels. [found by its name]"),
    )

    @functools.wraps(command)
    def with_reading(**arguments: Any) -> Any:
        reading = {name: arguments.pop(name) for name in READING_OPTIONS}
        return command(**arguments, reading=reading)

    wrapped = cast(Command, with_reading)
    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped


def add_selection_options(command: Command) -> Command:
    """Add the options that draw so many images of each class to a command, as one argument, `selection`.

    Args:
        command: The function of the command.

    Returns:
        The function with the options.
    """
    names = {"": "training", "val-": "validation", "test-": "test"}

    @functools.wraps(command)
    def with_selection(**arguments: Any) -> Any:
        given = {
            name: arguments.pop(name) for name in [name for name in arguments if name.endswith("images_per_class")]
        }
        return command(**arguments, selection=drop_unset(given))

    wrapped = cast(Command, with_selection)
    for prefix, words in reversed(names.items()):
        wrapped = click.option(
            f"--{prefix}images-per-class",
            type=click.IntRange(1),
            metavar="N",
            help=f"Use exactly N {words} images of each class. [all]",
        )(wrapped)
    return wrapped


def add_recipe_sources(command: Command) -> Command:
    """Add -s and --recipe, which give recipe options by name and by file, to a command.

    Args:
        command: The function of the command.

    Returns:
        The function with the options.
    """
    settings = click.option(
        "-s", "settings", multiple=True, metavar="KEY=VALUE", help="Set an option of the recipe; may be repeated."
    )
    file = click.option(
        "--recipe", "file", type=click.Path(path_type=Path), help="TOML file with options of the recipe."
    )
    return file(settings(command))


def drop_unset(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flags that were given on the command line.

    Args:
        options: Every flag by name; None where it was not given.

    Returns:
        The flags without None.
    """
    return {name: value for name, value in options.items() if value is not None}


def collect_options(file: Path | None, settings: Sequence[str], flags: Mapping[str, Any]) -> dict[str, Any]:
    """Collect recipe options from a file, settings and flags.

    Args:
        file: A TOML file with recipe options; None: no file.
        settings: `KEY=VALUE` strings, which override the file.
        flags: Flags by option, which override both.

    Returns:
        Options by name, not validated yet.

    Raises:
        RecipeError: The file cannot be read, or a setting is malformed.
    """
    from budwood.config.recipe import load_recipe

    return {**(load_recipe(file) if file else {}), **read_settings(settings), **flags}


def read_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Read `KEY=VALUE` strings as options of a recipe; words that an option chooses from may have any case.

    Args:
        settings: The strings.

    Returns:
        Options by name, not validated yet.

    Raises:
        RecipeError: A string is not of that form.
    """
    from budwood.config.recipe import Recipe, parse_settings

    fields = Recipe.model_fields
    return {
        name: match_case(value, _list_words(name, fields[name])) if name in fields else value
        for name, value in parse_settings(settings).items()
    }


def make_recipe_flags(of_surgery: bool = False) -> list[click.Option]:
    """Make one flag for each recipe option.

    Args:
        of_surgery: Whether to make only those that decide how a network is built.

    Returns:
        The flags, in the order of the recipe.
    """
    from budwood.config.options import SURGERY
    from budwood.config.recipe import Recipe

    return [_make_flag(name, field) for name, field in Recipe.model_fields.items() if not of_surgery or name in SURGERY]


def _make_flag(name: str, field: FieldInfo) -> click.Option:
    """The flag of an option: a pair for yes and no, or one that takes a value."""
    from budwood.config.options import DURATION

    flag, words = f"--{name.replace('_', '-')}", _format_help(field)
    kinds = {kind for part in _list_alternatives(field.annotation) for kind in _list_types(part)}
    if kinds == {bool}:
        return click.Option([f"{flag}/--no-{flag.removeprefix('--')}", name], default=None, help=words)
    if name == DURATION:
        return click.Option([flag, name], metavar="TIME", help=words)
    if name == "model":
        return click.Option([flag, name], type=NetworkName(), metavar="NAME", help=words)
    if kinds == {int} or (kinds and kinds <= {int, float}):
        return click.Option([flag, name], type=int if kinds == {int} else float, help=words)
    known = _list_words(name, field)
    metavar = ("|".join(["NUMBER", *known]) if float in kinds else "NAME") if known else None
    return click.Option([flag, name], type=Words(known) if known else str, metavar=metavar, help=words)


def _list_words(name: str, field: FieldInfo) -> list[str]:
    """The words that an option chooses from; it may take other values, too."""
    known = [word for part in _list_alternatives(field.annotation) for word in _words(part)]
    known += _names(field.annotation) or _names_by(field.metadata)
    if name == "select":
        from budwood.config.metric_registry import SELECTABLE

        known += SELECTABLE
    return [word for word in (*known, *_FREE_WORDS.get(name, ())) if ":" not in word]


def _format_help(field: FieldInfo) -> str:
    words = [word for part in _list_alternatives(field.annotation) for word in _words(part)]
    words += _names(field.annotation) or _names_by(field.metadata)
    default = f" [{_format_default(field.default)}]" if field.default is not None else ""
    said = str(field.description)
    first = said.partition(" ")[0]
    if first.isalpha() and first not in words:  # what begins with a word that is typed stays as it is typed
        said = said[0].upper() + said[1:]
    return f"{said}{': ' + ', '.join(words) if len(words) > 1 else ''}.{default}"


def _words(part: Any) -> list[str]:
    return [str(word) for word in get_args(part)] if get_origin(part) is Literal else []


def _names(annotation: Any) -> list[str]:
    """The names of the table that an option chooses from, in the order of the table, and how a user's own is named."""
    if get_origin(annotation) in (Union, types.UnionType):
        return [name for part in get_args(annotation) for name in _names(part)]
    return _names_by(getattr(annotation, "__metadata__", ()))


def _names_by(metadata: Sequence[Any]) -> list[str]:
    """The names that a validator among the metadata of an option allows."""
    known = [getattr(getattr(mark, "func", None), "names", ()) for mark in metadata]
    return [name for names in known if names for name in (*names, "package.module:name")]


def _format_default(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _list_alternatives(annotation: Any) -> list[Any]:
    """The alternatives of a type, without None."""
    if get_origin(annotation) is Annotated:
        return _list_alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [part for alternative in get_args(annotation) for part in _list_alternatives(alternative)]
    return [] if annotation is type(None) else [annotation]


def _list_types(part: Any) -> set[type]:
    """The types of the values that a part of a type takes."""
    return {type(word) for word in get_args(part)} if get_origin(part) is Literal else {part}


def make_terminal_progress() -> Progress:
    """Make the progress display of the terminal, on stderr.

    Returns:
        The display.
    """
    from budwood.progress import Terminal

    return Terminal()


def say_nothing(sentence: str = "") -> None:
    """Drop a sentence, in place of printing it.

    Args:
        sentence: The sentence.
    """


def print_json(document: Any) -> None:
    """Print a document as JSON to stdout.

    Args:
        document: Plain values and mappings; a number that is not finite becomes null.
    """
    readable = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    print(encode_json(document, indent=1, ensure_ascii=not readable))
