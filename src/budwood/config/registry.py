"""One table a kind of thing that a recipe names (networks, losses, optimizers, ...), and what users bring of their own.

A registry is a frozen table from names to entries, written once where its kind is at home:

    LOSSES: Final = Registry("loss", {"cross_entropy": cross_entropy, "focal": "budwood.losses:focal"})

An entry may be the text `package.module:name`; it is imported when it is first asked for, so that a table can be read
without what its entries need. A recipe may name so, too, what no table knows: `LOSSES.get("mine.losses:huber")`.
`source_digest` tells one version of the user's code from another, and belongs in the key of all that is cached of it.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
import os
import sys
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Generic, TypeVar, cast

from budwood.errors import RecipeError, did_you_mean

T = TypeVar("T")
ENTRY_SEPARATOR: Final = ":"  # between the module and the name in it


@dataclass(frozen=True)
class Registry(Generic[T]):
    """Entries of one kind by name; `kind` is the option that names them, as messages say it."""

    kind: str
    entries: Mapping[str, T | str] = field(default_factory=dict)

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def register(self, name: str, entry: T | str) -> Registry[T]:
        """Return the registry with one more entry.

        Args:
            name: What recipes call it; without a colon, and not taken yet.
            entry: The entry itself, or `package.module:name` where it is.

        Raises:
            ValueError: The name is taken or has a colon.
        """
        if name in self.entries or ENTRY_SEPARATOR in name:
            raise ValueError(f"{self.kind}: {name!r} is {'taken' if name in self.entries else 'no plain name'}")
        return replace(self, entries={**self.entries, name: entry})

    def names(self) -> tuple[str, ...]:
        """Return every name, sorted. Nothing is imported."""
        return tuple(sorted(self.entries))

    def get(self, name: str) -> T:
        """Return the entry of a name, or what `package.module:name` names in the user's own code.

        Args:
            name: A name of the registry, or `package.module:name`.

        Raises:
            RecipeError: There is no such name, module or name in the module.
        """
        entry = self.entries.get(name)
        if entry is None and is_entry_point(name):
            entry = name
        if entry is None:
            hint = f"{did_you_mean(name, self.entries)} Your own: package.module:name."
            raise RecipeError(f"{self.kind}: there is no {name!r}.", hint)
        return cast("T", import_entry(entry, self.kind)) if isinstance(entry, str) else entry


def is_entry_point(name: str) -> bool:
    """Return whether a name is of the form `package.module:name`."""
    module, separator, attribute = name.partition(ENTRY_SEPARATOR)
    parts = [*module.split("."), *attribute.split(".")]
    return bool(separator) and all(part.isidentifier() for part in parts)


def import_entry(path: str, kind: str) -> Any:
    """Import what `package.module:name` names; the working directory is searched after all installed packages.

    Args:
        path: The module and the name in it, for example `mine.networks:small`.
        kind: The option that holds the path, for messages.

    Raises:
        RecipeError: The path is malformed, the module cannot be imported, or has no such name.
    """
    if not is_entry_point(path):
        raise RecipeError(f"{kind}: {path!r} is not of the form package.module:name.", "Example: mine.networks:small.")
    name, _, attribute = path.partition(ENTRY_SEPARATOR)
    entry: Any = _import_module(name, path, kind)
    for part in attribute.split("."):
        if not hasattr(entry, part):
            public = [each for each in vars(entry) if not each.startswith("_")] if hasattr(entry, "__dict__") else []
            raise RecipeError(f"{kind}: the module {name} has no {attribute!r}.", did_you_mean(part, public))
        entry = getattr(entry, part)
    return entry


def source_digest(entry: Any) -> str:
    """Return a digest of the code that defines a function, class or object (of its class).

    The digest is BLAKE2b-96 in hex of the file that defines it. For code of the user's own it is also of the files in
    the same folder, or below, that this file imports from; an installed module stands for itself.

    Args:
        entry: A function, a class, a `functools.partial` of one, or an instance.

    Raises:
        RecipeError: There is no source to read, as for what was typed into an interactive session.
    """
    defined = _definition(entry)
    digest = hashlib.blake2b(f"{defined.__module__}:{defined.__qualname__}".encode(), digest_size=12)
    module = sys.modules.get(defined.__module__)
    files = _source_files(module) if module else []
    if not files:
        digest.update(_typed_source(defined).encode())
    for file in files:
        digest.update(file.name.encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _import_module(name: str, path: str, kind: str) -> ModuleType:
    here = str(Path.cwd())
    if not {here, ""} & set(sys.path):
        sys.path.append(here)  # for good: modules may import others when they are first used
        importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _broken(name, path, kind, error) from error
        file = f"{name.replace('.', os.sep)}.py"
        raise RecipeError(
            f"{kind}: there is no module {error.name!r}, which {path!r} names.",
            f"Install its package, or run this in the folder that has {file}.",
        ) from error
    except Exception as error:  # a user's module can fail in any way
        raise _broken(name, path, kind, error) from error


def _broken(name: str, path: str, kind: str, error: Exception) -> RecipeError:
    message = f"{kind}: the module {name}, which {path!r} names, cannot be imported ({type(error).__name__}: {error})."
    return RecipeError(message, f"Try: python -c 'import {name}'")


def _definition(entry: Any) -> Callable[..., Any]:
    """The function or class that an entry is or is made of."""
    while isinstance(entry, functools.partial):
        entry = entry.func
    entry = inspect.unwrap(entry) if callable(entry) else entry
    return cast("Callable[..., Any]", entry if hasattr(entry, "__qualname__") else type(entry))


def _source_files(module: ModuleType) -> list[Path]:
    """The file of a module and, for code of the user's own, those beside and below it that it imports from, sorted."""
    first = _file_of(module)
    if first is None:
        return []
    if _is_installed(first):
        return [first]
    found, waiting = {first}, [module]
    while waiting:
        for other in _imported_by(waiting.pop()):
            file = _file_of(other)
            if file and file not in found and file.is_relative_to(first.parent) and not _is_installed(file):
                found.add(file)
                waiting.append(other)
    return sorted(found)


def _imported_by(module: ModuleType) -> list[ModuleType]:
    """The modules that a module's global names are, or come from."""
    values = list(vars(module).values())
    names = {getattr(value, "__module__", None) for value in values}
    homes = [sys.modules[name] for name in names if isinstance(name, str) and name in sys.modules]
    return [*(value for value in values if isinstance(value, ModuleType)), *homes]


def _file_of(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    return path.resolve() if isinstance(file, str) and (path := Path(file)).is_file() else None


def _is_installed(file: Path) -> bool:
    """Whether a file is of the standard library or of an installed package."""
    folders = (sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    return any(file.is_relative_to(Path(folder).resolve()) for folder in folders if folder)


def _typed_source(defined: Callable[..., Any]) -> str:
    """The source of what no file defines."""
    if defined.__module__ in sys.builtin_module_names:
        return sys.version
    try:
        return inspect.getsource(defined)
    except (OSError, TypeError) as error:
        raise RecipeError(
            f"{defined.__module__}:{defined.__qualname__} has no source that can be read, so that what is cached of it "
            "could not be told from another version's.",
            "Write it into a file of its own and import it from there.",
        ) from error
