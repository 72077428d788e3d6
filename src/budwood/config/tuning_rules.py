"""Rules for what belongs to fine-tuning alone: a start from a solved head, weights between start and end, kept norms.

Options are plain values by name, before a `Recipe` is made of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from budwood.config.options import Options

TUNING_OPTIONS: Final = ("probe", "wise_ft", "trained_norm")
_WITHOUT_WEIGHTS: Final[Mapping[str, str]] = {
    "probe": "a head that is solved on a random trunk is no better start than a random one",
    "wise_ft": "it averages what was trained with the weights that training started from",
    "trained_norm": "a random network has no statistics of batch norm to keep",
}


def refuse_tuning(options: Options, freeze: object, weights: object) -> dict[str, str]:
    """Find the options of fine-tuning that have no meaning where they are given.

    Args:
        options: The options that are given, by name.
        freeze: What is frozen, the value that stands in included.
        weights: Where the weights come from, the value that stands in included.

    Returns:
        For each refused option the sentence that says why.
    """
    asked = [name for name in TUNING_OPTIONS if options.get(name) is not None and options[name] is not False]
    phases = options.get("phases")
    listed = phases if isinstance(phases, list | tuple) else ()
    froze = [each.get("freeze") for each in listed if isinstance(each, Mapping)]
    refused = {}
    for name in asked:
        if all(each == "trunk" for each in froze or [freeze]):
            refused[name] = (
                f"{name}: nothing but the head is trained with freeze = trunk; expected more, as freeze = none or "
                "upto:STAGE"
            )
        elif weights == "none" and options[name] != "train":
            refused[name] = f"{name}: expected weights, as imagenet or run:ID; {_WITHOUT_WEIGHTS[name]}"
    if "wise_ft" in asked and phases:
        refused["wise_ft"] = "wise_ft: cannot be used with phases, of which each starts from the one before"
    if "probe" in asked and "probe" not in refused and (why := _prevents_probe(options)):
        refused["probe"] = f"probe: solves a linear head, and cannot be used with {why}"
    return refused


def _prevents_probe(options: Options) -> str:
    """What of a head cannot be solved; empty where it can."""
    if options.get("head", "linear") != "linear":
        return f"the head {options['head']!r}"
    if options.get("init", "default") != "default":
        return f"init = {options['init']}, which would be replaced"
    return "batch norm in the head (batch_norm)" if options.get("batch_norm") else ""
