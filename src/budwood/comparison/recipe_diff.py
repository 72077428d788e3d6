"""What differs between recipes, in as few options as tell them apart."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from budwood.config.options import LOSS_OPTIONS, OPTIMIZER_OPTIONS, SCHEDULE_OPTIONS, SMALL_NETWORK_OPTIONS
from budwood.config.recipe import Recipe, find_default_valued
from budwood.errors import RecipeError

Options = Mapping[str, object]  # of a recipe, by name

ENSEMBLE: Final = "ensemble"  # what tells an ensemble from runs that were trained; no option of a recipe
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
    {ENSEMBLE}
    | {name for table in _CHOSEN for options in table.values() for name, value in options.items() if value is not None}
)


def normalize_options(recipe: Options) -> dict[str, object]:
    """Convert a recipe's options to what JSON would return, without the seed.

    Args:
        recipe: Options by name.

    Returns:
        The options, with lists in place of tuples.
    """
    table: dict[str, object] = json.loads(json.dumps(dict(recipe)))
    return {name: value for name, value in table.items() if name != REPEATED}


def fill_defaults(base: Options) -> dict[str, object]:
    """Add the defaults to a recipe's options.

    Args:
        base: Options by name.

    Returns:
        All options that apply, without the seed; those of `base` alone where they do not make a recipe.
    """
    try:
        return normalize_options(Recipe(**base).table())
    except RecipeError:
        return normalize_options(base)


def find_varying(tables: Sequence[Options]) -> list[dict[str, object]]:
    """Find the options that have more than one value among recipes.

    Args:
        tables: Options of each recipe.

    Returns:
        The varying options of each recipe, in the recipe's order. An option that does not apply to a recipe is left
        out; one that is simply not given is None.
    """
    names = [
        name
        for name in _order_options(tables)
        if name == ENSEMBLE or (_is_worth_telling(name, tables) and len(_collect_values(name, tables)) > 1)
    ]
    return [{name: table.get(name) for name in names if _applies(name, table)} for table in tables]


def find_shared(tables: Sequence[Options]) -> dict[str, object]:
    """Find the options that all recipes have with the same value.

    Args:
        tables: Options of each recipe; those in which the members of an ensemble differ are missing from its table.

    Returns:
        The options with the value that they share.
    """
    if not tables:
        return {}
    named = {name: value for table in reversed(tables) for name, value in table.items()}
    return {
        name: value
        for name, value in named.items()
        if all(table.get(name) == value for table in tables if name in table or ENSEMBLE not in table)
    }


def _applies(name: str, table: Options) -> bool:
    """Whether a recipe has an option, if only by not giving it."""
    return name in table or (name not in _DEPENDENT and ENSEMBLE not in table)


def find_differing(table: Options, base: Options) -> dict[str, object]:
    """Find the options in which a recipe differs from a base.

    Args:
        table: Options of the recipe.
        base: Options to compare with.

    Returns:
        The recipe's values in the recipe's order; None for an option that only the base has. Additional options
        that have their default are left out.
    """
    quiet = find_default_valued({name: value for name, value in table.items() if name != ENSEMBLE})
    changed = {name: value for name, value in table.items() if name in base and value != base[name]}
    added = {name: value for name, value in table.items() if name not in base and name not in quiet}
    missing = {name: None for name in base if name not in table and _applies(name, table)}
    told = {**changed, **added, **missing}
    return {name: told[name] for name in _order_options([table, base]) if name in told}


def describe_options(options: Options, *, short: bool = False) -> str:
    """Describe options in one line.

    Args:
        options: Options by name.
        short: Whether to leave out names of options whose values speak for themselves.

    Returns:
        For example `optimizer adam, lr 0.001`, or `adam, lr 0.001` if short.
    """
    return ", ".join(_describe_option(name, value, short) for name, value in options.items())


def label_rows(options: Sequence[Options], names: Sequence[str]) -> list[str]:
    """Make a different label for each recipe: what it differs in, else its name.

    Args:
        options: Varying options of each recipe.
        names: Name of each recipe, used where no option varies.

    Returns:
        Labels with descriptions of at most 60 characters; equal ones are numbered.
    """
    named = [{ENSEMBLE: option[ENSEMBLE]} if ENSEMBLE in option else drop_defaults(option) for option in options]
    told = [describe_options(option, short=True) for option in named]
    cut = [text if len(text) <= LABEL else f"{text[: LABEL - 1]}…" for text in told]
    return make_distinct([text or name for text, name in zip(cut, names, strict=True)])


def drop_defaults(options: Options) -> dict[str, object]:
    """Remove options that have their default.

    The optimiser's own defaults count too. Options that are always shown, such as model and learning rate, stay.

    Args:
        options: Options by name.

    Returns:
        The options that are left; all of them where none would be.
    """
    usual = OPTIMIZER_OPTIONS.get(str(options.get("optimizer")), {})
    quiet = {name for name in options if name in Recipe.model_fields and _is_usual(name, options[name], usual)}
    return {name: value for name, value in options.items() if name in TOLD or name not in quiet} or dict(options)


def _is_usual(name: str, value: object, usual: Options) -> bool:
    known = Recipe.model_fields[name].default
    return value == known or value == usual.get(name, known) or bool(find_default_valued({name: value}))


def make_distinct(names: Iterable[str]) -> list[str]:
    """Number the second and later of equal names.

    Args:
        names: Names in order.

    Returns:
        The names, the repeated ones with a number in brackets, such as `adam (2)`.
    """
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
    return {json.dumps(table.get(name)) for table in tables if _applies(name, table)}


def _describe_option(name: str, value: object, short: bool) -> str:
    if value is None:
        return f"no {name.replace('_', ' ')}"
    if isinstance(value, bool):
        return name.replace("_", " ") if value else f"no {name.replace('_', ' ')}"
    said = f"{value:.4g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)
    return said if short and name in SAID_ALONE and said != "none" else f"{name.replace('_', ' ')} {said}"
