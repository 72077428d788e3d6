"""What differs between recipes, in as few options as tell them apart."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from budwood.config.options import LOSS_OPTIONS, OPTIMIZER_OPTIONS, SCHEDULE_OPTIONS, SMALL_NETWORK_OPTIONS
from budwood.config.recipe import Recipe, find_default_valued
from budwood.errors import RecipeError

Options = Mapping[str, Any]

REPEATED: Final = "seed"  # what tells repeats of one recipe apart
SAID_ALONE: Final = ("model", "optimizer", "schedule", "loss", "policy")  # options whose value says what it is
TOLD: Final = (*SAID_ALONE, "lr", "regularisation", "epochs", "batch")  # options that are told with any value
LABEL: Final = 60  # characters of a label
_CHOSEN: Final[tuple[Mapping[str, Options], ...]] = (
    OPTIMIZER_OPTIONS,
    SCHEDULE_OPTIONS,
    LOSS_OPTIONS,
    SMALL_NETWORK_OPTIONS,
)
# Options that only some optimizers, schedules, losses or networks use: where they are missing, they do not apply.
_DEPENDENT: Final = frozenset(
    name for table in _CHOSEN for options in table.values() for name, value in options.items() if value is not None
)


def normalize_options(recipe: Options) -> dict[str, Any]:
    """A recipe's table as JSON would give it back, without the seed."""
    table: dict[str, Any] = json.loads(json.dumps(dict(recipe)))
    return {name: value for name, value in table.items() if name != REPEATED}


def fill_defaults(base: Options) -> dict[str, Any]:
    """A recipe's options with those that stand in when none is given; options that make no recipe alone as they are."""
    try:
        return normalize_options(Recipe(**base).table())
    except RecipeError:
        return normalize_options(base)


def find_varying(tables: Sequence[Options]) -> list[dict[str, Any]]:
    """For each recipe the options that have more than one value among all, in the recipe's order.

    An option that does not apply to a recipe is left out of it; one that is simply not given is None.
    """
    names = [
        name
        for name in _order_options(tables)
        if _is_worth_telling(name, tables) and len(_collect_values(name, tables)) > 1
    ]
    return [{name: table.get(name) for name in names if name in table or name not in _DEPENDENT} for table in tables]


def find_differing(table: Options, base: Options) -> dict[str, Any]:
    """The options of a recipe that are not those of another; None where it lacks one. What changes nothing is left."""
    quiet = find_default_valued(table)
    changed = {name: value for name, value in table.items() if name in base and value != base[name]}
    added = {name: value for name, value in table.items() if name not in base and name not in quiet}
    missing = {name: None for name in base if name not in table and name not in _DEPENDENT}
    told = {**changed, **added, **missing}
    return {name: told[name] for name in _order_options([table, base]) if name in told}


def describe_options(options: Options, *, short: bool = False) -> str:
    """Options as one line: `optimizer adam, lr 0.001`; short: `adam, lr 0.001`."""
    return ", ".join(_describe_option(name, value, short) for name, value in options.items())


def label_rows(options: Sequence[Options], names: Sequence[str]) -> list[str]:
    """A different label for each recipe: what it differs in, else its name; numbered where two would be alike."""
    told = [describe_options(drop_defaults(option), short=True) for option in options]
    cut = [text if len(text) <= LABEL else f"{text[: LABEL - 1]}…" for text in told]
    return make_distinct([text or name for text, name in zip(cut, names, strict=True)])


def drop_defaults(options: Options) -> dict[str, Any]:
    """Options without those that have the value which stands in when none is given; all where none is left."""
    usual = OPTIMIZER_OPTIONS.get(str(options.get("optimizer")), {})
    quiet = {name for name in options if name in Recipe.model_fields and _is_usual(name, options[name], usual)}
    return {name: value for name, value in options.items() if name in TOLD or name not in quiet} or dict(options)


def _is_usual(name: str, value: Any, usual: Options) -> bool:
    known = Recipe.model_fields[name].default
    return value == known or value == usual.get(name, known) or bool(find_default_valued({name: value}))


def make_distinct(names: Iterable[str]) -> list[str]:
    """Names, the second and later of equal ones numbered."""
    seen: Counter[str] = Counter()
    told = []
    for name in names:
        seen[name] += 1
        told.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return told


def _order_options(tables: Sequence[Options]) -> list[str]:
    """The options of all recipes, in the order in which a recipe has them."""
    present = {name for table in tables for name in table}
    return [*(name for name in Recipe.model_fields if name in present), *sorted(present - set(Recipe.model_fields))]


def _is_worth_telling(name: str, tables: Sequence[Options]) -> bool:
    """Whether an option changes something in one of the recipes."""
    return any(name in table and name not in find_default_valued({name: table[name]}) for table in tables)


def _collect_values(name: str, tables: Sequence[Options]) -> set[str]:
    return {json.dumps(table.get(name)) for table in tables if name in table or name not in _DEPENDENT}


def _describe_option(name: str, value: Any, short: bool) -> str:
    if value is None:
        return f"no {name.replace('_', ' ')}"
    if isinstance(value, bool):
        return name.replace("_", " ") if value else f"no {name.replace('_', ' ')}"
    said = f"{value:.4g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)
    return said if short and name in SAID_ALONE and said != "none" else f"{name.replace('_', ' ')} {said}"
