"""What a public function is given, held against its own annotations, before it does anything.

Inside the package types are checked by mypy. A user's values are checked once, where `budwood` and `budwood.explain`
hand out their functions: a wrong one is told in a sentence, in place of an AttributeError deep inside, and a single
value where several may be given is a list of one, never its letters.
"""

from __future__ import annotations

import builtins
import functools
import inspect
import numbers
import types
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin

from budwood.errors import ArgumentError

F = TypeVar("F", bound=Callable[..., Any])

_KINDS: Final[Mapping[Any, tuple[type, ...]]] = {
    bool: (bool,),
    int: (numbers.Integral,),
    float: (numbers.Real,),
    str: (str,),
    Path: (PurePath,),
}
_WORDS: Final[Mapping[str, str]] = {  # of what users meet, by the name of the type
    "bool": "True or False",
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "Path": "a path",
    "Run": "a run",
    "Dataset": "a data set",
    "Samples": "images of a data set (`data.samples(split)`)",
    "Recipe": "a recipe",
    "RowSpec": "a row of a table",
    "Progress": "a progress display, as `budwood.progress.Terminal()`",
    "ndarray": "an array",
    "bytes": "the bytes of a file",
    "Image": "a PIL image",
}
_HINTS: Final[Mapping[str, str]] = {
    "Dataset": "Read one with `bw.scan(folder)`.",
    "Run": "Give what `bw.train` returned, or the folder of a run.",
    "Recipe": "Make one with `bw.Recipe(...)`.",
    "Path": "Give the path of a file or folder.",
}


def check_arguments(function: F) -> F:
    """Wrap a public function so that arguments of wrong types are refused in one sentence.

    Args:
        function: The function; its annotations say what it takes.

    Returns:
        A function that does the same. Where several values may be given, one alone becomes a list of one.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:
            return function(*args, **kwargs)  # Python says what is missing or unknown, with the function's name
        hints = read_hints(function)
        for name, value in bound.arguments.items():
            if name in hints:
                bound.arguments[name] = _check(function.__name__, name, value, hints[name])
        return function(*bound.args, **bound.kwargs)

    return checked  # type: ignore[return-value]


@functools.cache
def read_hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Read the annotations of a function's parameters.

    A name that its module imports for type checkers alone stands for any class of that name, so that nothing is
    imported to check a value that is not there.

    Args:
        function: The function.

    Returns:
        The type of each parameter that has one; those that collect further arguments are left out.
    """
    names = _Names(function.__globals__)
    collecting = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {
        name: eval(one.annotation, {}, names) if isinstance(one.annotation, str) else one.annotation
        for name, one in inspect.signature(function).parameters.items()
        if one.annotation is not one.empty and one.kind not in collecting
    }


class _Names(dict[str, Any]):
    """The names of a module; one that it does not have is a class that has nothing but that name."""

    def __missing__(self, name: str) -> Any:
        return getattr(builtins, name, None) or type(name, (), {"_by_name": True})


def _check(function: str, name: str, value: Any, hint: Any) -> Any:
    """The value, or a list of it; raises `ArgumentError`."""
    if fits(value, hint):
        return value
    several = [one for one in _list_members(hint) if _is_several(one)]
    if any(fits((value,), one) for one in several):
        return (value,)
    wrong = _find_wrong_item(value, several)
    expected, advice = describe_type(hint), next((_HINTS[each] for each in _HINTS if each in _list_names(hint)), "")
    raise ArgumentError(f"{function}: {name}: expected {expected}, found {_describe_value(wrong)}.", advice)


def fits(value: Any, hint: Any) -> bool:
    """Tell whether a value is of a type.

    Args:
        value: Any value.
        hint: The type, as an annotation writes it. Of a literal only its own type counts, as the function itself says
            best which words there are; an iterable, which may be read only once, is left to the function, too.

    Returns:
        Whether it fits.
    """
    if hint is Any or hint is object:
        return True
    if hint is None or hint is type(None):
        return value is None
    origin, inner = get_origin(hint) or hint, get_args(hint)
    if origin in (Union, types.UnionType):
        return any(fits(value, one) for one in inner)
    if origin is Literal:
        return any(isinstance(value, type(one)) for one in inner)
    if _is_several(hint):
        return origin is Iterable or _fits_several(value, origin, inner)
    if origin in _KINDS:
        return isinstance(value, _KINDS[origin]) and (origin is bool or not isinstance(value, bool))
    if getattr(origin, "_by_name", False):
        return any(base.__name__ == origin.__name__ for base in type(value).__mro__)
    if getattr(origin, "_is_protocol", False):
        return all(hasattr(value, each) for each in vars(origin) if not each.startswith("_"))
    return callable(value) if origin is Callable else isinstance(value, origin)


def _fits_several(value: Any, origin: Any, inner: tuple[Any, ...]) -> bool:
    if isinstance(value, str | bytes | bytearray | PurePath | Mapping) or not isinstance(value, origin):
        return False
    items = [one for one in inner if one is not Ellipsis]
    return not items or not isinstance(value, Collection) or all(fits(each, items[0]) for each in value)


def _is_several(hint: Any) -> bool:
    """Whether a type is that of several values in a row."""
    origin = get_origin(hint) or hint
    row = (Sequence, Collection, Iterable, list, tuple)
    return origin in row


def _list_members(hint: Any) -> tuple[Any, ...]:
    """The types of a union, or the type itself."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _list_names(hint: Any) -> Iterator[str]:
    """The names of all types in an annotation."""
    for one in _list_members(hint):
        yield from (name for part in get_args(one) if part is not Ellipsis for name in _list_names(part))
        yield getattr(get_origin(one) or one, "__name__", "")


def _find_wrong_item(value: Any, several: Sequence[Any]) -> Any:
    """The first item that does not fit, where the value is a row; else the value."""
    for hint in several:
        items = [one for one in get_args(hint) if one is not Ellipsis]
        if items and isinstance(value, list | tuple | set | frozenset):
            return next((one for one in value if not fits(one, items[0])), value)
    return value


def describe_type(hint: Any) -> str:
    """Describe in words what a parameter takes.

    Args:
        hint: The type, as an annotation writes it.

    Returns:
        For example "a run, a path or a text"; None is not named, as it means that nothing is given.
    """
    members = _list_members(hint)
    words = dict.fromkeys(word for one in members if not _is_several(one) for word in _describe_member(one))
    for one in members:
        if _is_several(one):
            items = [each for part in get_args(one)[:1] for each in _list_members(part)]
            known = words and {word for each in items for word in _describe_member(each)} <= {*words}
            words |= {"a list of these": None} if known else dict.fromkeys(_describe_member(one))
    if "a path" in words:
        words.pop("a text", None)  # a path may be written so
    if "a run" in words and "a path" in words:
        words.pop("a path")
        words = {word: None for each in words for word in ((each, "its path") if each == "a run" else (each,))}
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last


def _describe_member(hint: Any) -> Iterator[str]:
    origin, inner = get_origin(hint) or hint, [one for one in get_args(hint) if one is not Ellipsis]
    if hint is None or hint is type(None):
        return
    if origin is Literal:
        yield f"one of {', '.join(map(str, inner))}"
    elif _is_several(hint):
        yield f"a list, each {describe_type(inner[0])}" if inner else "a list"
    elif origin is Callable:
        yield "a function"
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        yield "a dict"
    else:
        name = getattr(origin, "__name__", str(origin))
        yield _WORDS.get(name, f"{'an' if name[0] in 'AEIOU' else 'a'} {name}")


def _describe_value(value: Any) -> str:
    """A value with its type, cut where it is long."""
    if value is None:
        return "None"
    kind = type(value).__name__
    text = repr(value) if isinstance(value, str | int | float | PurePath) else ""
    return f"{text if len(text) <= 60 else text[:59] + '…'} ({kind})" if text else f"a value of type {kind}"
