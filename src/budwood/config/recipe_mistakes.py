"""Mistakes that validation finds in a recipe, in words for people."""

from __future__ import annotations

from pydantic import ValidationError

from budwood.config.option_rules import PHASE_OPTIONS


def list_mistakes(error: ValidationError) -> list[str]:
    """List what is wrong with a recipe, in words for people.

    Args:
        error: What the validation of its options has found.

    Returns:
        A sentence for each mistake, without its full stop; the option goes first, and a colon.
    """
    lines, faulty = [], {item["loc"][0] for item in error.errors() if item["loc"][1:]}
    for item in error.errors():
        name, *inside = map(str, item["loc"] or ("",))
        expected = str(item["msg"]).removeprefix("Value error, ")
        if name == "phases" and len(inside) > 1:
            lines.append(_describe_phase_mistake(int(inside[0]) + 1, inside[1], item["type"], expected, item["input"]))
        elif item["type"] == "extra_forbidden":
            lines.append(f"{name}: there is no such option")
        elif not name:
            lines.append(expected)
        elif item["type"] != "too_short" or name not in faulty:  # what is faulty is not counted
            lines.append(f"{name}: {expected[0].lower()}{expected[1:]}, found {item['input']!r}")
    return lines


def find_unknown(error: ValidationError) -> list[str]:
    """Find the options of a recipe that there are not.

    Args:
        error: What the validation of its options has found.

    Returns:
        Their names.
    """
    return [str(item["loc"][0]) for item in error.errors() if item["type"] == "extra_forbidden" and not item["loc"][1:]]


def _describe_phase_mistake(number: int, option: str, kind: str, expected: str, found: object) -> str:
    """What is wrong with an option of a phase, the number of which counts from 1."""
    if kind == "missing":
        return f"phases: phase {number} has no {option}"
    if kind == "extra_forbidden":
        return f"phases: phase {number} has no option {option}; its options are {', '.join(PHASE_OPTIONS)}"
    return f"phases: {option} of phase {number}: {expected[0].lower()}{expected[1:]}, found {found!r}"
