"""What users bring of their own as Python objects: the name of each in a recipe, its state, and where it fails.

A recipe is text. An object that a module holds under a name is written as `package.module:name`, and can be found
again wherever that module can be imported. Any other (a lambda, a closure, an instance that was made on the way) is
written as `module:<words>` and travels in an `ObjectName`, which other processes cannot read back. What a script or a
notebook defines is found in that process alone, too: its module is `__main__`.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import re
import sys
import sysconfig
import traceback
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, Final

from budwood.errors import RecipeError

MAIN: Final = "__main__"  # the module of a script, a notebook or an interactive session
OBJECT: Final = re.compile(r"[\w.]+:<[^\n]+>")  # the name of an object that no module holds
LOST_HINT: Final = "Write it into a module, as parts.py, name it in the recipe as parts:NAME, and train again."
_PLAIN: Final = (type(None), bool, int, float, complex, str, bytes)


class ObjectName(str):
    """The name in a recipe of an object that only this process has, with the object.

    Attributes:
        entry: The object.
    """

    entry: Any
    __slots__ = ("entry",)

    def __new__(cls, name: str, entry: Any) -> ObjectName:
        """Make the name of an object.

        Args:
            name: The name, as `OBJECT` matches it.
            entry: The object.

        Returns:
            The name.
        """
        made = super().__new__(cls, name)
        made.entry = entry
        return made

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        """Return what another process gets: the name alone, which then says that the object is not there."""
        return str, (str(self),)

    def __deepcopy__(self, memo: object) -> ObjectName:
        """Return the name itself: the object is not copied."""
        return self


def name_object(value: object) -> object:
    """Name an object as recipes do.

    Args:
        value: A function, a class or any other object; text is taken for a name.

    Returns:
        `module:name` where a module holds it under a name, else an `ObjectName`; text, numbers and tables as they are.
    """
    if isinstance(value, (*_PLAIN, Mapping, list, tuple)):
        return value
    module, path = getattr(value, "__module__", ""), getattr(value, "__qualname__", "")
    if module and path and _look_up(module, path) is value:
        return f"{module}:{path}"
    if not path and not hasattr(value, "state_dict"):  # the values of a network are not in its source
        for place in (type(value).__module__, MAIN):
            held = vars(sys.modules[place]) if place in sys.modules else {}
            names = [name for name, each in held.items() if each is value and not name.startswith("_")]
            if names:
                return f"{place}:{names[0]}"
    words = path.replace("<locals>.", "").replace("<lambda>", "lambda") if path else type(value).__qualname__
    return ObjectName(f"{module or type(value).__module__}:<{words.rpartition('.')[2]}>", value)


def is_object_name(name: str) -> bool:
    """Return whether a name stands for an object that no module holds.

    Args:
        name: A name in a recipe.

    Returns:
        Whether it does; whether the object is at hand, only `ObjectName` tells.
    """
    return bool(OBJECT.fullmatch(name))


def is_portable(name: str) -> bool:
    """Return whether what a name stands for can be found again by another process.

    Args:
        name: `package.module:name`, or the name of an object.

    Returns:
        False for objects that no module holds, and for what a script, a notebook or a session defines.
    """
    return not is_object_name(name) and name.partition(":")[0] != MAIN


def explain_unportable(named: Mapping[str, str]) -> str:
    """Explain what of a run another program cannot find.

    Args:
        named: The user's own parts by option.

    Returns:
        A sentence; empty where everything can be found.
    """
    lost = [f"{option} {name}" for option, name in named.items() if not is_portable(name)]
    if not lost:
        return ""
    also = " and predicted with" if "model" in named and not is_portable(named["model"]) else ""
    was, them = ("was", "it") if len(lost) == 1 else ("were", "them")
    return (
        f"{', '.join(lost)} {was} defined in a script, a notebook or a session, where no other program finds {them}: "
        f"write {them} into a module if this run is to be resumed{also} later or elsewhere"
    )


def make_lost_error(name: str, kind: str) -> RecipeError:
    """Make the error for an object that only the program had that trained with it.

    Args:
        name: Its name in the recipe.
        kind: The option that holds it.

    Returns:
        The error, to be raised.
    """
    return RecipeError(
        f"{kind}: {name} was defined in the script, the notebook or the session that made this recipe, and cannot be "
        "found here.",
        LOST_HINT,
    )


def make_failure(error: Exception, name: str, kind: str) -> RecipeError:
    """Make the error that tells where a user's own code has failed.

    Args:
        error: What it raised.
        name: Its name in the recipe.
        kind: The option that holds it.

    Returns:
        The error, to be raised from `error`.
    """
    return RecipeError(
        f"{kind}: {name} failed ({type(error).__name__}: {error}){describe_place(error)}.",
        "--debug shows the whole traceback.",
    )


def describe_place(error: BaseException) -> str:
    """Describe the line of a user's own file that an error comes from.

    Args:
        error: The error.

    Returns:
        Words such as ` in mine.py, line 3`; empty where no line of theirs was running.
    """
    if isinstance(error, SyntaxError) and error.filename:
        return f" in {_shorten(error.filename)}, line {error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_library(frame.filename)]
    return f" in {_shorten(frames[-1].filename)}, line {frames[-1].lineno}" if frames else ""


def describe_state(value: object) -> str:
    """Return a digest of what an object holds besides its code: attributes, arguments, what a closure has captured.

    Args:
        value: The object.

    Returns:
        BLAKE2b-96 in hex. Of what cannot be told apart by its values, as an open file, it is another every time.
    """
    digest = hashlib.blake2b(digest_size=12)
    _add_state(value, digest.update, ())
    return digest.hexdigest()


def _add_state(value: Any, add: Callable[[bytes], None], within: tuple[int, ...]) -> None:
    """Give the bytes that tell a value from others, without going round in circles."""
    add(f"{type(value).__module__}.{type(value).__qualname__} ".encode())
    if id(value) in within:
        return
    within = (*within, id(value))
    if isinstance(value, (*_PLAIN, enum.Enum)):
        add(repr(value).encode())
        return
    if isinstance(value, ModuleType | type):
        add(f"{value.__name__} ".encode())
        return
    if callable(getattr(value, "tobytes", None)):
        add(f"{getattr(value, 'dtype', '')} {getattr(value, 'shape', '')} ".encode() + value.tobytes())
        return
    for part in _list_parts(value):
        _add_state(part, add, within)


def _list_parts(value: Any) -> Sequence[Any]:
    """The values that a value is made of; a value of its own where they are not known."""
    if isinstance(value, Mapping):
        return [part for pair in value.items() for part in pair]
    if isinstance(value, list | tuple):
        return value
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    if isinstance(value, MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, FunctionType):
        captured = [_read_cell(cell) for cell in value.__closure__ or ()]
        return [value.__qualname__, *_list_code(value.__code__), captured, value.__defaults__, value.__kwdefaults__]
    if callable(getattr(value, "detach", None)):  # a tensor, of which NumPy may not know the type
        flat = value.detach().cpu().contiguous().reshape(-1)
        return [str(value.dtype), tuple(value.shape), flat.view(sys.modules["torch"].uint8).numpy()]
    if hasattr(value, "__dict__"):
        return [vars(value)]
    return [uuid.uuid4().hex]


def _read_cell(cell: CellType) -> object:
    """What a closure has captured; None where it is not there yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return None


def _list_code(code: CodeType) -> list[object]:
    """What a function does, and the constants that it has, those of functions inside it included."""
    constants = [_list_code(each) if isinstance(each, CodeType) else each for each in code.co_consts]
    return [code.co_code, code.co_names, constants]


def _look_up(module: str, path: str) -> object:
    """What a module that is loaded holds under a path; None where it holds nothing."""
    held: object = sys.modules.get(module)
    for part in path.split("."):
        held = getattr(held, part, None) if part.isidentifier() else None
    return held


def _is_library(file: str) -> bool:
    """Whether a file is Budwood's, Python's or an installed package's."""
    installed = (sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    folders = [Path(__file__).parents[1], *(Path(folder) for folder in installed if folder)]
    return file.startswith("<frozen") or any(Path(file).is_relative_to(folder) for folder in folders)


def _shorten(file: str) -> str:
    """A file as it is below the working directory, else whole."""
    path = Path(file)
    return path.relative_to(Path.cwd()).as_posix() if path.is_relative_to(Path.cwd()) else file
