"""How the words of a command line are read before they are parsed, so that what one would guess is right.

`--weight_decay` and `--Epochs` are `--weight-decay` and `--epochs`; `--nesterov true` is `--nesterov`; words of other
tools are taken for what they mean here or answered in one sentence (`familiar_words`).
"""

from __future__ import annotations

import re
import shlex
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import click

from budwood.cli.familiar_words import RUN, find_familiar

_TRUE: Final = frozenset({"true", "yes", "on", "1", "t", "y"})
_FALSE: Final = frozenset({"false", "no", "off", "0", "f", "n"})
_PAIR: Final = re.compile(r"([A-Za-z_][\w-]*)=(.*)", re.DOTALL)
_UNNEEDED: Final = ("task", "mode", "name", "exist-ok", "verbose")  # of `yolo KEY=VALUE`, which the command says


@dataclass
class _Reader:
    """Reads the words of one command from left to right."""

    ctx: click.Context
    options: Mapping[str, click.Option]
    arguments: str
    words: deque[str]
    first: list[str] = field(default_factory=list)
    read: list[str] = field(default_factory=list)
    pairs: list[str] = field(default_factory=list)

    @property
    def command(self) -> str:
        """Return the name of the command."""
        return self.ctx.command.name or ""

    def take_all(self) -> list[str]:
        """Return all words as the parser expects them."""
        while self.words:
            word = self.words.popleft()
            if word == "--":
                self.read += [word, *self.words]
                break
            if word.startswith("--"):
                self._take_long(word)
            elif word.startswith("-") and word != "-":
                self._take_short(word)
            else:
                if self._is_pair(word):
                    self.pairs.append(word)
                self.read.append(word)
        return [*self.first, *self.read]

    def _take_short(self, word: str) -> None:
        option = self.options.get(word[:2])
        if option is None:
            self._answer(word[:2])
        self.read.append(word)
        if option is not None and len(word) == 2 and takes_value(option) and self.words:
            self.read.append(self.words.popleft())

    def _take_long(self, word: str) -> None:
        given, separator, value = word.partition("=")
        name = normalize_name(given, self.options)
        if name not in self.options:
            means = self._answer(normalize_name(given))
            if means.isupper():
                self._take_argument(given, means, value if separator else None)
                return
            name = means or given
        option = self.options.get(name)
        if option is not None and option.secondary_opts and name in option.opts:
            self.read.append(self._choose_flag(name, option, value if separator else None))
            return
        self.read.append(f"{name}{separator}{value}")
        if option is not None and takes_value(option) and not separator and self.words:
            self.read.append(self.words.popleft())

    def _answer(self, name: str) -> str:
        """What means the same as an option of other tools; empty for none. Raises `UsageError` with the answer."""
        for found in find_familiar(name, self.command):
            if found.answer:
                raise click.UsageError(f"{name}: {found.answer}", self.ctx)
            if found.means in self.options or (found.means.isupper() and found.means in self.arguments):
                return found.means
        return ""

    def _take_argument(self, given: str, means: str, value: str | None) -> None:
        """The value of an option that is an argument here; that of the run comes first."""
        if value is None and not self.words:
            raise click.UsageError(f"{given}: expected {means} after it.", self.ctx)
        (self.first if means == RUN else self.read).append(self.words.popleft() if value is None else value)

    def _choose_flag(self, name: str, option: click.Option, value: str | None) -> str:
        """The flag for yes or no, of an option that may be followed by a word for either."""
        if value is None:
            word = self.words[0].lower() if self.words else ""
            if word in _TRUE | _FALSE:
                self.words.popleft()
                return name if word in _TRUE else option.secondary_opts[0]
            return name
        if value.lower() not in _TRUE | _FALSE:
            raise click.UsageError(f"{name}: expected {name} or {option.secondary_opts[0]}, found {value!r}.", self.ctx)
        return name if value.lower() in _TRUE else option.secondary_opts[0]

    def _is_pair(self, word: str) -> bool:
        """Whether a word is an option as `epochs=3`, and not a path or a data set with its name."""
        return bool(_PAIR.fullmatch(word)) and "=" not in self.arguments and not Path(word).exists()


def read_arguments(ctx: click.Context, parameters: Sequence[click.Parameter], words: Sequence[str]) -> list[str]:
    """Read the words of a command as its parser expects them.

    Args:
        ctx: The context of the call.
        parameters: The options and arguments of the command.
        words: What was typed after the command.

    Returns:
        The words, to be parsed.

    Raises:
        click.UsageError: A word is answered in a sentence.
    """
    options = {
        flag: option
        for option in parameters
        if isinstance(option, click.Option)
        for flag in (*option.opts, *option.secondary_opts)
    }
    arguments = " ".join(one.metavar or "" for one in parameters if isinstance(one, click.Argument))
    reader = _Reader(ctx, options, arguments, deque(words))
    read = reader.take_all()
    if reader.pairs:
        raise click.UsageError(_write_with_dashes(reader, read), ctx)
    return read


def normalize_name(given: str, known: Mapping[str, object] | None = None) -> str:
    """Write the name of an option or a command in small letters and with dashes.

    Args:
        given: What was typed.
        known: Names that stay as they are.

    Returns:
        The name.
    """
    return given if known is not None and given in known else given.lower().replace("_", "-")


def takes_value(option: click.Option) -> bool:
    """Return whether an option takes the word after it.

    Args:
        option: The option.

    Returns:
        False for flags.
    """
    return not option.is_flag and not option.count


def _write_with_dashes(reader: _Reader, read: Sequence[str]) -> str:
    """The whole command with the options that were given as KEY=VALUE written as options. Raises `UsageError`."""
    given: list[str] = []
    for word in read:
        pair = _PAIR.fullmatch(word) if word in reader.pairs else None
        if pair is None:
            given.append(word)
        elif (name := normalize_name(pair[1])) not in _UNNEEDED or f"--{name}" in reader.options:
            given.append(f"--{name}={pair[2]}")
    again = _Reader(reader.ctx, reader.options, reader.arguments, deque(given))
    words = again.take_all()
    unknown = next(
        (word for word in words if word.startswith("--") and word.partition("=")[0] not in again.options), ""
    )
    if unknown:
        raise click.NoSuchOption(unknown.partition("=")[0], possibilities=reader.options, ctx=reader.ctx)
    spaced = " ".join(shlex.quote(part) for word in words for part in _split_option(word))
    return f"{reader.pairs[0]}: options have dashes before them. Say `{reader.ctx.command_path} {spaced}`."


def _split_option(word: str) -> list[str]:
    """`--epochs=3` as two words, as people write it."""
    name, separator, value = word.partition("=")
    return [name, value] if separator and word.startswith("--") else [word]
