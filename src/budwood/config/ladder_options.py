"""Which options narrow the search for the best network, and which ask for one recipe.

The search tries whole recipes. An option of `NARROWING` has a meaning in every one of them: it is laid over all, and
stays as it was given. Any other option says how to train, and then one recipe is trained: the one that was asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from budwood.config.options import SMALL_NETWORK_OPTIONS, Options
from budwood.config.own_networks import is_users_code

NARROWING: Final = (
    "model",
    "weights",
    "cut",
    "taps",
    "pool",
    "channels",
    "size",
    "resize",
    "interpolation",
    "tta",
    "time",
    "class_weights",
    "balanced_sampling",
    "logit_adjustment",
    "label_smoothing",
    "select",
    "metrics",
    "seed",
)


def list_recipe_options(given: Options) -> list[str]:
    """List the options that are given and ask for one recipe, so that nothing is searched for.

    Args:
        given: The options that are given, by name.

    Returns:
        Their names, in the order in which they are given; empty where the best network is to be searched for.
    """
    named = [name for name in given if name not in NARROWING]
    model, weights = given.get("model"), given.get("weights", "imagenet")
    if model in SMALL_NETWORK_OPTIONS or is_users_code(model):
        named.append("model")
    if weights == "none" or str(weights).startswith("run:"):
        named.append("weights")
    if given.get("select") == "last":
        named.append("select")
    return named


def explain_recipe(named: Sequence[str]) -> str:
    """Explain why one recipe is trained and nothing is searched for.

    Args:
        named: What `list_recipe_options` returned.

    Returns:
        A sentence; empty where nothing asks for one recipe.
    """
    if not named:
        return ""
    flags = ", ".join(f"--{name.replace('_', '-')}" for name in named)
    verb, them = ("says", "it") if len(named) == 1 else ("say", "them")
    return f"{flags} {verb} how to train, so this one recipe is trained. Without {them}, several are tried."


def lay_over(candidate: Mapping[str, Any], given: Options) -> dict[str, Any]:
    """Lay the options that are given over those of a candidate.

    Args:
        candidate: Options that the search chose.
        given: Options that the user chose; `time`, which limits the whole search, is not part of a candidate.

    Returns:
        The options of the candidate's recipe: every given one as it was given.
    """
    return {**candidate, **{name: value for name, value in given.items() if name != "time"}}
