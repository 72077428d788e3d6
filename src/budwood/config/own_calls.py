"""How users' own code is called, by the option that names it, and a check of that before anything is trained."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any, Final

from budwood.config.registry import check_call, import_entry, make_entry
from budwood.errors import RecipeError

# By option: the arguments by place, and by name.
CALLS: Final[Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "optimizer": (("params",), ("lr", "weight_decay")),
    "schedule": (("progress",), ()),
    "loss": (("logits", "targets"), ()),
    "transform": (("images", "generator"), ()),
    "select": (("labels", "logits"), ()),
    "metrics": (("labels", "logits"), ()),
    "callbacks": (("moment",), ()),
}
MOMENTS: Final = ("on_epoch_end", "on_step_end")  # the methods of a callback
BATCHES: Final = ("images", "batch")  # the name of its only argument, by which a transform asks for a whole batch


def check_part(name: str, option: str, keywords: Mapping[str, object]) -> object:
    """Check that a part of the user's own can be imported, made and called as training will call it.

    Args:
        name: `package.module:name`, or the name of an object.
        option: The option that holds it.
        keywords: The options that a recipe gives it.

    Returns:
        What the name stands for, as it is imported.

    Raises:
        RecipeError: It cannot be imported or made, or its signature is another.
    """
    entry = import_entry(name, option)
    positional, named = CALLS[option]
    if option == "callbacks":
        find_moments(make_entry(name, option), name)
    elif option == "transform":
        _check_transform(entry, name, keywords)
    elif option == "optimizer":
        check_call(entry, name, option, positional, named)
    else:
        check_call(make_entry(name, option), name, option, positional, named)
    return entry


def takes_generator(change: Callable[..., Any], keywords: Mapping[str, object]) -> bool:
    """Return whether a transform is a function of a batch and a generator, and not of single images.

    Args:
        change: The transform.
        keywords: The options that a recipe gives it.

    Returns:
        Whether it has two arguments by place that must be given, besides these options; or takes a `generator` or,
        being a plain function, any number of them.
    """
    if len([name for name in _list_places(change) if name not in keywords]) >= 2:
        return True
    named = _parameters(change)
    takes_any = isinstance(change, FunctionType) and any(each.kind is each.VAR_POSITIONAL for each in named.values())
    return takes_any or "generator" in named


def takes_batch(change: Callable[..., Any]) -> bool:
    """Return whether a transform asks for a whole batch by the name of its argument.

    Args:
        change: The transform.

    Returns:
        Whether its only argument by place is called `images` or `batch`.
    """
    return _list_places(change)[:1] in ([name] for name in BATCHES)


def takes_keyword(change: Callable[..., Any]) -> bool:
    """Return whether a transform is called as those of Albumentations are: with `image=`, an array.

    Args:
        change: The transform.

    Returns:
        Whether it is one of theirs, or has an argument `image` that is given by name only.
    """
    if any(kind.__module__.partition(".")[0] == "albumentations" for kind in type(change).__mro__):
        return True
    argument = _parameters(change).get("image")
    return argument is not None and argument.kind is argument.KEYWORD_ONLY


def find_moments(callback: object, name: str) -> dict[str, Callable[..., object]]:
    """Find what a callback wants to be called for.

    Args:
        callback: The object or function.
        name: Its name in the recipe, for messages.

    Returns:
        Its methods by name: `on_epoch_end` and `on_step_end`, or one of them; a function is called after every epoch.

    Raises:
        RecipeError: It has neither, or a method `on_...` that nothing calls.
    """
    others = [each for each in dir(callback) if each.startswith("on_") and each not in MOMENTS]
    if others:
        raise RecipeError(
            f"callbacks: {name} has {others[0]}, which is never called; there are {' and '.join(MOMENTS)}.",
            f"Rename it, or take it out: {MOMENTS[0]}(moment) is called after every epoch.",
        )
    found = {each: getattr(callback, each) for each in MOMENTS if callable(getattr(callback, each, None))}
    if not found and not callable(callback):
        raise RecipeError(
            f"callbacks: {name} has neither {MOMENTS[0]} nor {MOMENTS[1]}, found a {type(callback).__name__}.",
            f"Write a function of one argument, or a class with a method {MOMENTS[0]}(self, moment).",
        )
    found = found or {MOMENTS[0]: callback}
    for each, method in found.items():
        check_call(method, f"{name}.{each}" if each in dir(callback) else name, "callbacks", CALLS["callbacks"][0])
    return found


def _check_transform(entry: Any, name: str, keywords: Mapping[str, object]) -> None:
    """Raises `RecipeError` for what is neither a function of a batch and a generator nor one of an image."""
    if isinstance(entry, type):
        made = make_entry(name, "transform", **keywords)
        if not callable(made):
            raise RecipeError(
                f"transform: an object of {name} cannot be called.", "Give the class a method __call__(self, image)."
            )
    elif not callable(entry):
        check_call(entry, name, "transform", CALLS["transform"][0])
    elif takes_generator(entry, keywords):
        check_call(entry, name, "transform", CALLS["transform"][0], tuple(keywords))
    elif takes_keyword(entry):
        check_call(entry, name, "transform", (), ("image", *keywords))
    else:
        check_call(entry, name, "transform", ("image",), tuple(keywords))


def _list_places(change: Callable[..., Any]) -> list[str]:
    """The arguments by place that must be given; of a module of PyTorch, those of `forward`."""
    return [
        name
        for name, each in _parameters(getattr(change, "forward", change)).items()
        if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD) and each.default is each.empty
    ]


def _parameters(change: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(change).parameters
    except (TypeError, ValueError):  # what is written in C may tell no signature
        return {}
