"""One table a kind of thing that a recipe names (networks, losses, optimizers, ...), and what users bring of their own.

A registry is a frozen table from names to entries, written once where its kind is at home:

    LOSSES: Final = Registry("loss", {"cross_entropy": CrossEntropy, "focal": "budwood.config.losses:Focal"})

An entry may be the text `package.module:name`; it is imported when it is first asked for, so that a table can be read
without what its entries need. A recipe may name so, too, what no table knows: `LOSSES.get("mine.losses:huber")`.

An option of a part has two entries: its default is in the part's record, and a field of `Recipe` makes it public, with
a type that type checkers know and a place in `--help`. `tests/config/test_parts.py` says which one is missing.

`source_digest` tells one version of the user's code from another, and belongs in the key of all that is cached of it.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import os
import sys
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, Final, Generic, TypeVar, cast

from budwood.config.own_objects import (
    MAIN,
    ObjectName,
    describe_place,
    describe_state,
    is_object_name,
    is_portable,
    make_failure,
    make_lost_error,
)
from budwood.errors import BudwoodError, RecipeError, did_you_mean

T = TypeVar("T")
ENTRY_SEPARATOR: Final = ":"  # between the module and the name in it


@dataclass(frozen=True)
class Registry(Generic[T]):
    """A frozen table of entries of one kind by name.

    Attributes:
        kind: The option that names them, for messages.
        entries: The entries, or the text `package.module:name` that is imported when it is first asked for.
    """

    kind: str
    entries: Mapping[str, T | str] = field(default_factory=dict)

    def __contains__(self, name: object) -> bool:
        """Return whether a name is in the registry; a user's own is not.

        Args:
            name: The name.

        Returns:
            Whether it is.
        """
        return name in self.entries

    def register(self, name: str, entry: T | str) -> Registry[T]:
        """Return the registry with one more entry.

        Args:
            name: Its name in recipes; without a colon, and not taken yet.
            entry: The entry itself, or the `package.module:name` that names it.

        Returns:
            A new registry; this one stays as it is.

        Raises:
            ValueError: The name is taken or has a colon.
        """
        if name in self.entries or ENTRY_SEPARATOR in name:
            raise ValueError(f"{self.kind}: {name!r} is {'taken' if name in self.entries else 'no plain name'}")
        return replace(self, entries={**self.entries, name: entry})

    def names(self) -> tuple[str, ...]:
        """Return every name, sorted, without importing anything.

        Returns:
            The names.
        """
        return tuple(sorted(self.entries))

    def get(self, name: str) -> T:
        """Return the entry of a name, or what `package.module:name` names in the user's own code.

        Args:
            name: A name of the registry, or `package.module:name`.

        Returns:
            The entry, imported where it is text.

        Raises:
            RecipeError: There is no such name, module or name in the module.
        """
        entry = self.entries.get(name)
        if entry is None and is_entry_point(name):
            entry = name
        if entry is None:
            hint = f"{did_you_mean(name, self.entries)} Your own: package.module:name."
            raise RecipeError(f"{self.kind}: there is no {name!r}.", hint)
        if not isinstance(entry, str):
            return entry
        return cast("T", load_function(entry) if name in self.entries else import_entry(entry, self.kind))


def is_entry_point(name: str) -> bool:
    """Return whether a name is a user's own: of the form `package.module:name`, or of an object that no module holds.

    Args:
        name: The name.

    Returns:
        Whether it is; nothing is imported.
    """
    if is_object_name(name):
        return True
    module, separator, attribute = name.partition(ENTRY_SEPARATOR)
    parts = [*module.split("."), *attribute.split(".")]
    return bool(separator) and all(part.isidentifier() for part in parts)


def load_function(path: str) -> object:
    """Load what a table of Budwood's own names, without a look at the working directory.

    Args:
        path: The module and the name in it, for example `torch.optim:Adam`.

    Returns:
        The object that is named.
    """
    module, _, name = path.partition(ENTRY_SEPARATOR)
    return getattr(importlib.import_module(module), name)


def import_entry(path: str, kind: str) -> Any:
    """Import what `package.module:name` names; the working directory is searched before all installed packages.

    Args:
        path: The module and the name in it, for example `mine.networks:small`.
        kind: The option that holds the path, for messages.

    Returns:
        The object that is named.

    Raises:
        RecipeError: The path is malformed, the module cannot be imported, has no such name, or is another than the
            one in the working directory; or only the program had the object that made the recipe.
    """
    if isinstance(path, ObjectName):
        return path.entry
    if is_object_name(path):
        raise make_lost_error(path, kind)
    name = _module_of(path, kind)
    attribute = path.partition(ENTRY_SEPARATOR)[2]
    entry: Any = _import_module(name, path, kind)
    for part in attribute.split("."):
        if not hasattr(entry, part):
            if name == MAIN:
                raise make_lost_error(path, kind)
            public = [each for each in vars(entry) if not each.startswith("_")] if hasattr(entry, "__dict__") else []
            raise RecipeError(f"{kind}: the module {name} has no {attribute!r}.", did_you_mean(part, public))
        entry = getattr(entry, part)
    return entry


def make_entry(path: str, kind: str, **options: object) -> Any:
    """Import what `package.module:name` names; a class is made into an object.

    Args:
        path: The module and the name in it, for example `mine.losses:Focal`.
        kind: The option that holds the path, for messages.
        **options: What a class is made with.

    Returns:
        The function or object.

    Raises:
        RecipeError: It cannot be imported, or the class cannot be made with these options.
    """
    entry = import_entry(path, kind)
    if not isinstance(entry, type):
        return entry
    try:
        return entry(**options)
    except BudwoodError:
        raise
    except Exception as error:  # a user's class can fail in any way
        raise make_failure(error, path, kind) from error


def check_call(
    entry: object, path: str, kind: str, positional: Sequence[str] = (), keywords: Sequence[str] = ()
) -> None:
    """Check that what a user names can be called as Budwood will call it.

    Args:
        entry: What `import_entry` has found.
        path: Its `package.module:name`, for messages.
        kind: The option that holds the path, for messages.
        positional: Words for the arguments that are given by place.
        keywords: Names of the arguments that are given by name.

    Raises:
        RecipeError: It is no function, or its signature is another.
    """
    name = path.partition(ENTRY_SEPARATOR)[2]
    call = f"{name}({', '.join([*positional, *(f'{word}=...' for word in keywords)])})"
    if not callable(entry):
        found = f"is a value of type {type(entry).__name__}, expected a function"
        raise RecipeError(f"{kind}: {path} {found}.", f"It is called as {call}.")
    try:
        inspect.signature(entry).bind(*positional, **dict.fromkeys(keywords))
    except ValueError:
        pass  # what is written in C may tell no signature
    except TypeError as error:
        raise RecipeError(
            f"{kind}: {path} cannot be called as {call} ({error}).",
            "Change its parameters, or the options given to it.",
        ) from error


def source_digest(entry: object) -> str:
    """Return a digest of the code that defines a function, class or object (of its class).

    The digest is BLAKE2b-96 in hex of the file that defines it. For a user's own code it also covers the files in
    the same folder, or below, that this file imports from; an installed package stands for itself by its version.
    It reads the files as they are now: after an edit, the module has to be imported again.

    Args:
        entry: A function, a class, a `functools.partial` of one, or an instance.

    Returns:
        The digest, 24 hex digits.

    Raises:
        RecipeError: There is no source to read, as for what was typed into an interactive session.
    """
    defined = _definition(entry)
    name = f"{defined.__module__}{ENTRY_SEPARATOR}{defined.__qualname__}"
    file = _file_of(sys.modules.get(defined.__module__))
    return _digest(name, file, _typed_source(defined) if file is None else "")


def entry_digest(path: str, kind: str) -> str:
    """Return a digest of the code that `package.module:name` names, as `source_digest` does, without importing it.

    Only the packages around the module are imported, not the module itself or what it needs.

    Args:
        path: The module and the name in it, for example `mine.networks:small`.
        kind: The option that holds the path, for messages.

    Returns:
        The digest, 24 hex digits; of an object that no module holds, and of what a script or a notebook defines, that
        of its class or function and of what it holds.

    Raises:
        RecipeError: The path is malformed, or there is no such module.
    """
    if is_object_name(path) or _module_of(path, kind) == MAIN:
        return _digest_object(import_entry(path, kind))
    return _digest(path, find_source(path, kind), "")


def part_digest(entry: object, path: str, kind: str) -> str:
    """Return a digest of the code that a name stands for, once it is imported.

    Args:
        entry: What `import_entry` has found.
        path: Its name in the recipe.
        kind: The option that holds it, for messages.

    Returns:
        That of `source_digest` for a function or a class; for any other value of a module that of the module, which
        says what the value is; for what no module holds that of `entry_digest`.

    Raises:
        RecipeError: There is no source to read.
    """
    defines = hasattr(entry, "__qualname__") and is_portable(path)
    return source_digest(entry) if defines else entry_digest(path, kind)


def find_source(path: str, kind: str) -> Path | None:
    """Find the file of the module that `package.module:name` names, without importing it.

    Only the packages around the module are imported.

    Args:
        path: The module and the name in it, for example `mine.networks:small`.
        kind: The option that holds the path, for messages.

    Returns:
        The file; None for a module that is built into Python, and for an object of a class of an installed package.

    Raises:
        RecipeError: The path is malformed, there is no such module, or it is another than the one in the working
            directory.
    """
    if is_object_name(path) or _module_of(path, kind) == MAIN:
        file = _file_of(sys.modules.get(_definition(import_entry(path, kind)).__module__))
        return None if file is None or _is_installed(file.resolve()) else file
    name = _module_of(path, kind)
    _search_working_directory()
    try:
        found = importlib.util.find_spec(name)
    except Exception as error:  # a user's package can fail in any way
        raise _not_imported(name, path, kind, error) from error
    if found is None:
        raise _absent(name, name, path, kind)
    _refuse_shadowed(path, kind)
    return Path(found.origin) if found.has_location and found.origin else None


def _digest(name: str, file: Path | None, more: str) -> str:
    """The digest of a name, of the files that its code depends on, and of more."""
    digest = hashlib.blake2b(f"{name}\n{more}".encode(), digest_size=12)
    if file is not None:
        module, _, _ = name.partition(ENTRY_SEPARATOR)
        root = _root(file.resolve(), module)
        for each in _source_files(file.resolve(), root):
            digest.update(each.relative_to(root).as_posix().encode())
            digest.update(each.read_bytes())
        if _is_installed(file.resolve()):
            digest.update(_version(module.partition(".")[0]).encode())
    return digest.hexdigest()


def _digest_object(entry: object) -> str:
    """The digest of an object: of its source and of what it holds; of a function without a source, of its code."""
    try:
        source = source_digest(entry)
    except RecipeError:
        if not isinstance(_definition(entry), FunctionType):
            raise
        source = ""
    return _digest(f"{source} {describe_state(entry)}", None, "")


def _module_of(path: str, kind: str) -> str:
    """The module that a path names; raises `RecipeError` for what is no path."""
    if not is_entry_point(path):
        raise RecipeError(f"{kind}: {path!r} is not of the form package.module:name.", "Example: mine.networks:small.")
    return path.partition(ENTRY_SEPARATOR)[0]


def _search_working_directory() -> None:
    """Search the working directory for modules before all other places, as Python does for the folder of a script.

    It stays on the path, as modules may import others when they are first used.
    """
    if sys.path[:1] not in ([str(Path.cwd())], [""]):
        sys.path.insert(0, str(Path.cwd()))
    importlib.invalidate_caches()


def _import_module(name: str, path: str, kind: str) -> ModuleType:
    if name not in sys.modules:
        _search_working_directory()
    try:
        module = importlib.import_module(name)
    except Exception as error:  # a user's module can fail in any way
        raise _not_imported(name, path, kind, error) from error
    _refuse_shadowed(path, kind)
    return module


def _refuse_shadowed(path: str, kind: str) -> None:
    """Raises `RecipeError` where Python has another module of the name than the one in the working directory."""
    top = path.partition(ENTRY_SEPARATOR)[0].partition(".")[0]
    files = [place for place in (Path(top, "__init__.py"), Path(f"{top}.py")) if place.is_file()]
    if top == "__main__" or top not in sys.modules or not files:
        return
    used, file = _file_of(sys.modules[top]), files[0].resolve()
    if used is None or used.resolve() != file:
        raise RecipeError(
            f"{kind}: {path!r} names the module {top}, which is {used or 'a part of Python'} here, not {file}.",
            f"Rename {files[0]}: another module of its name is in use already.",
        )


def _not_imported(name: str, path: str, kind: str, error: Exception) -> RecipeError:
    """What is said of a module that is not there, or fails when it is imported."""
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing is not None and f"{name}.".startswith(f"{missing}."):
        return _absent(missing, name, path, kind)
    message = f"{kind}: the module {name}, which {path!r} names, cannot be imported ({type(error).__name__}: {error})"
    return RecipeError(f"{message}{describe_place(error)}.", f"Try: python -c 'import {name}'")


def _absent(missing: str, name: str, path: str, kind: str) -> RecipeError:
    file = f"{name.replace('.', os.sep)}.py"
    return RecipeError(
        f"{kind}: there is no module {missing!r}, which {path!r} names.",
        f"Install its package, or run this in the folder that has {file}.",
    )


def _definition(entry: object) -> Callable[..., object]:
    """The function or class that an entry is or is made of."""
    while isinstance(entry, functools.partial):
        entry = entry.func
    entry = inspect.unwrap(entry) if callable(entry) else entry
    return cast("Callable[..., object]", entry if hasattr(entry, "__qualname__") else type(entry))


def _root(file: Path, module: str) -> Path:
    """The folder from which a module in this file has its name; that of the file, where another name was given."""
    parts = module.split(".") if file.stem != "__init__" else [*module.split("."), "__init__"]
    named = file.with_suffix("").parts[-len(parts) :] == tuple(parts)
    return file.parents[len(parts) - 1] if named else file.parent


def _source_files(first: Path, root: Path) -> list[Path]:
    """A file and, for code of the user's own, those below `root` that it imports from, sorted."""
    found, waiting = {first}, [] if _is_installed(first) else [first]
    while waiting:
        new = _imported_files(waiting.pop(), root) - found
        found |= new
        waiting += new
    return sorted(found)


def _imported_files(file: Path, root: Path) -> set[Path]:
    """The files below `root` that a file imports from, wherever in it."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return set()
    names: set[Path] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {root.joinpath(*alias.name.split(".")) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            home = file.parents[node.level - 1] if node.level else root
            module = home.joinpath(*(node.module or "").split("."))
            names |= {module, *(module / alias.name for alias in node.names)}
    parents = {parent for name in names for parent in (name, *name.parents) if parent.is_relative_to(root)}
    places = [place for name in parents for place in (name.with_suffix(".py"), name / "__init__.py")]
    return {place.resolve() for place in places if place.is_file() and place.resolve().is_relative_to(root)}


def _version(package: str) -> str:
    """The version of an installed package, where one of that name is known."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _file_of(module: ModuleType | None) -> Path | None:
    """The file of a module, if it has one."""
    file = getattr(module, "__file__", None)
    return Path(file) if isinstance(file, str) and Path(file).is_file() else None


def _is_installed(file: Path) -> bool:
    """Whether a file is of the standard library or of an installed package."""
    folders = (sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    return any(file.is_relative_to(Path(folder).resolve()) for folder in folders if folder)


def _typed_source(defined: Callable[..., object]) -> str:
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
