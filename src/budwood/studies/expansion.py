"""The expansion of a study file into experiments: rows, points of grids, and the search, each with its recipe checked.

StudyFile -> drafts of rows and grids, search -> Study and the mistakes that were found
"""

from __future__ import annotations

import re
from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from budwood.comparison.document import Claim
from budwood.comparison.published import Published
from budwood.config.file_checks import Mistake, describe_errors, suggest
from budwood.config.options import MOVING, UNCHANGED
from budwood.config.recipe import Recipe
from budwood.config.toml_lines import Place
from budwood.errors import RecipeError
from budwood.networks.plan import hash_json
from budwood.studies.ensemble_table import check_ensembles, expand_ensembles
from budwood.studies.published_tables import PublishedTable
from budwood.studies.search_space import RangeAxis, Search, corners, fix_options, order_space
from budwood.studies.study import Experiment, Overrides, Study
from budwood.studies.study_tables import (
    LIMITS,
    DataOptions,
    DataSpec,
    Options,
    QuickTable,
    SearchTable,
    StudyFile,
)

_REASON: Final = re.compile(r"; (?=\w+: )")  # between the mistakes of a recipe

_TRIAL: Final = re.compile(r"trial \d+")  # the label of a trial


@dataclass(frozen=True)
class AppliedOverrides:
    """Overrides of one study file.

    Attributes:
        quick: The file's quick table, or an empty one where it is not asked for.
        overrides: The overrides.
        source: Path or name of the study's own data.
    """

    quick: QuickTable
    overrides: Overrides
    source: str

    def options(self, options: Options) -> dict[str, Any]:
        """Return the recipe options of a row with the overrides applied; `epochs` of the quick table is a limit.

        Args:
            options: The options of the row, those of the base included.

        Returns:
            The recipe options, without data options.
        """
        quick = {name: value for name, value in self.quick.options.items() if name not in LIMITS}
        return _limit_epochs({**_recipe_options(options), **quick, **self.overrides.settings}, self.quick.epochs)

    def changed(self) -> dict[str, Any]:
        """Return what is set for every row, by the names of options and limits; of two numbers of epochs the least."""
        changed = {**self.quick.options, **self.overrides.settings}
        limit, epochs = self.quick.epochs, self.overrides.settings.get("epochs")
        return changed | ({"epochs": min(limit, epochs)} if limit and isinstance(epochs, int) else {})

    def points(self, count: int, published: Collection[int] = ()) -> list[int]:
        """Choose the points of a grid to keep: those with published figures, and of the others some, spread evenly.

        Args:
            count: Number of points of the grid.
            published: Numbers of the points with published figures, from 0.

        Returns:
            Numbers of the points, in order; at most `points` of the quick table, or as many as are published.
        """
        others = [number for number in range(count) if number not in published]
        limit = min(max((self.quick.points or count) - len(published), 0), len(others))
        spread = [others[number * (len(others) - 1) // max(limit - 1, 1)] for number in range(limit)]
        return sorted([*published, *spread])

    def data(self, spec: DataSpec) -> DataSpec:
        """Return the images of a row with the overrides applied.

        Args:
            spec: The images as the file describes them.

        Returns:
            The images at their given path, no more than the quick table allows.
        """
        is_own, places = spec.data == self.source, self.overrides.places
        place = places.get(spec.data, spec.data)
        corrections = (*spec.corrections, *(self.overrides.corrections if is_own else ()))
        placed = {"data": places.get("", place) if is_own else place, "corrections": corrections}
        limit = self.quick.images
        limits = {} if limit is None else {"images": min(limit, spec.images or limit), "held_out": limit}
        return spec.model_copy(update={**placed, **limits})


@dataclass(frozen=True)
class _Draft:
    """An experiment before it is checked: its own options, by the tables in which they stand."""

    label: str
    tables: Mapping[Place, Options]
    published: Published | None = None
    refused: str = ""
    varied: bool = False
    stand_in: str = ""


def expand_study(
    file: StudyFile, overrides: Overrides, text: str, faulty: Container[Place] = ()
) -> tuple[Study, list[Mistake]]:
    """Expand a study file into its rows and its search, with the overrides applied.

    Args:
        file: The checked file.
        overrides: What is set for every row.
        text: The file's text, which the study keeps.
        faulty: Tables that have mistakes already, so that none are reported that only follow from them.

    Returns:
        The study, without the parts that have mistakes, and the mistakes.
    """
    applied = AppliedOverrides(file.quick if overrides.quick else QuickTable(), overrides, file.data)
    parts: list[Experiment | Mistake] = [*_check_head(file, overrides)]
    for draft in (*_list_drafts(file), *_vary_drafts(file, applied, faulty)):
        parts += [draft] if isinstance(draft, Mistake) else _check_draft(draft, file, applied)
    search = None
    if file.search and ("search",) not in faulty:
        search = _make_search(file.search, file, applied)
        parts += _check_search(search, file.search, file, applied)
    rows = tuple(part for part in parts if isinstance(part, Experiment))
    ensembles = expand_ensembles(file.ensembles)
    if overrides == Overrides():
        parts += _find_twins([row for row in rows if row.place not in faulty])
        parts += _check_trial_labels(file)
        parts += (
            () if faulty else _check_claims(file, [*(row.label for row in rows), *(row.label for row in ensembles)])
        )
    if overrides == Overrides() and not faulty and not any(isinstance(part, Mistake) for part in parts):
        refused = {row.label: bool(row.refused) for row in rows}
        parts += check_ensembles(ensembles, refused, len(file.seeds), file.folds, bool(search))
    mistakes = _tell_once([part for part in parts if isinstance(part, Mistake)])
    if not (rows or search or mistakes or faulty):
        mistakes = [Mistake((), "contains no [[rows]], no [grid] and no [search]")]
    searched = {"data": file.data, **file.base.options, **(file.search.base.options if file.search else {})}
    study = Study(
        name=file.name,
        title=file.title or file.name,
        source=file.source,
        assumed=file.assumed,
        caveats=file.caveats,
        metric=file.metric,
        metric_given="metric" in file.model_fields_set,
        seeds=overrides.seeds or file.seeds,
        folds=file.folds,
        base=_recipe_options(file.base.options),
        rows=rows,
        search=search,
        searched=applied.data(_data_spec(searched)) if search else DataSpec(),
        edges=_find_edges(file, search),
        changed=applied.changed(),
        text=text,
        claims=tuple(Claim(**claim.model_dump()) for claim in file.claims),
        left_out=(*_list_left_out(file, rows, search), *_list_unsearched(file, overrides)),
        ensembles=ensembles,
    )
    return study, mistakes


def _tell_once(mistakes: Sequence[Mistake]) -> list[Mistake]:
    """Each mistake once; of an option that stands once for many rows, what is wrong with it in the first of them."""
    first: dict[Place, str] = {}
    for mistake in mistakes:
        if mistake.place[:1] in (("base",), ("settings",)):
            first.setdefault(mistake.place, mistake.case)
    return [one for one in dict.fromkeys(mistakes) if first.get(one.place, one.case) == one.case]


def _limit_epochs(options: Options, limit: int | None) -> dict[str, object]:
    """Options with at most so many epochs, in each phase where there are phases; a solved head has none."""
    if limit is None:
        return dict(options)
    try:
        recipe = Recipe(**options)
    except RecipeError:
        return dict(options)  # told when the row is checked
    if recipe.phases:
        short = [{**phase.model_dump(), "epochs": min(limit, phase.epochs)} for phase in recipe.phases]
        return {**options, "phases": short}
    return {**options, "epochs": min(limit, recipe.epochs)} if recipe.epochs else dict(options)


def _list_drafts(file: StudyFile) -> Iterator[_Draft]:
    """The experiments under `[[rows]]`."""
    for number, row in enumerate(file.rows):
        label = row.label or _label(row.options) or "base"
        stand_in = row.stand_in if "stand_in" in row.model_fields_set else file.base.stand_in
        tables: dict[Place, Options] = {("rows", number): row.options}
        yield _Draft(label, tables, _figure(row.published, file), row.refused, stand_in=stand_in)


def _vary_drafts(file: StudyFile, applied: AppliedOverrides, faulty: Container[Place]) -> Iterator[_Draft | Mistake]:
    """The experiments of the grids, but for those that the quick table leaves out."""
    for number, grid in enumerate(file.grid):
        place: Place = ("grid", number)
        if place in faulty:
            continue
        tables = {place: grid.options} | {(*place, "paired", n): part.options for n, part in enumerate(grid.paired)}
        if not any(tables.values()):
            yield Mistake(place, "contains no list of values")
            continue
        points, figures = grid.points(), dict[int, Published | None]()
        for count, entry in enumerate(grid.published):
            described = [n for n, point in enumerate(points) if entry.where.items() <= point.items()]
            if len(described) == 1 and described[0] not in figures:
                figures[described[0]] = _figure(entry, file)
                continue
            message = f"where {dict(entry.where)} describes {len(described)} rows, expected one"
            if len(described) == 1:
                message = f"where {dict(entry.where)} describes a row that has published figures already"
            yield Mistake((*place, "published", count), message)
        varying = [name for name in points[0] if len({str(point[name]) for point in points}) > 1]
        idle = _find_idle(points, file.base.options)
        for n in applied.points(len(points), figures):
            words = _label({name: points[n][name] for name in varying})
            label = ": ".join(filter(None, (grid.label, words))) or _label(points[n])
            options = {
                table: {name: points[n][name] for name in names if name not in idle[n]}
                for table, names in tables.items()
            }
            yield _Draft(label, options, figures.get(n), varied=True, stand_in=grid.stand_in or file.base.stand_in)


def _find_idle(points: Sequence[Options], base: Options) -> list[set[str]]:
    """Options that some points of a grid leave nothing to act on, as a `fill` where nothing is moved, for each point.

    An option that is idle at every point is none of them, so that it is refused as in any row.
    """
    idle = []
    for point in ({**base, **point} for point in points):
        changed = {name for name, value in UNCHANGED.items() if point.get(name) not in (None, 0, value)}
        idle.append({name for name, acts in (("fill", changed & set(MOVING)), ("views", changed)) if not acts})
    everywhere = set.intersection(*idle)
    return [found - everywhere for found in idle]


def _check_head(file: StudyFile, overrides: Overrides) -> Iterator[Mistake]:
    """What is wrong with the repetitions and with the names of what is put over every row."""
    if len(set(file.seeds)) != len(file.seeds):
        yield Mistake(("seeds",), f"expected each once, found {list(file.seeds)}")
    if file.folds is not None and "seeds" in file.model_fields_set:
        yield Mistake(("folds",), "expected either seeds or folds, found both")
    if file.folds is not None and overrides.seeds:
        yield Mistake(("settings", "seed"), "the study has folds, which stand in place of seeds: leave out --seed")
    for name in overrides.settings.keys() - Recipe.model_fields.keys():
        yield Mistake(("settings", name), f"unknown option. {suggest(name, Recipe.model_fields)}")


def _check_draft(draft: _Draft, file: StudyFile, applied: AppliedOverrides) -> Iterator[Experiment | Mistake]:
    """The experiment of a draft, or what is wrong with it."""
    place = next(iter(draft.tables))
    layers = {(): {"data": file.data}, ("base",): file.base.options, **draft.tables}
    options = {name: value for table in layers.values() for name, value in table.items()}
    layers[("settings",)] = applied.overrides.settings
    places = {name: (*where, name) for where, table in layers.items() for name in table}
    try:
        images = applied.data(_data_spec(options))
    except ValidationError as error:
        yield from (Mistake(places[str(one.place[0])], one.message) for one in describe_errors(error, DataSpec))
        return
    yield from _check_numbers(options, places)
    applied_options = applied.options(options)
    recipe, faults = _make_recipe(applied_options, places, place, draft.label)
    reason = next((one.message for one in faults if one.place[-1] == draft.refused), "")
    if "seed" in applied_options:
        faults = [Mistake(places["seed"], "write `seeds = [0, 1, 2]` once for all rows of the study")]
    elif reason:
        faults, reason = [], f"{draft.refused}: {reason}"
    elif recipe and draft.refused:
        faults = [Mistake((*place, "refused"), f"{draft.refused} is valid here, so remove `refused` to train the row")]
    yield from faults
    if not faults:
        yield Experiment(
            draft.label,
            applied_options,
            recipe,
            images,
            draft.published,
            reason,
            draft.varied,
            place,
            draft.stand_in,
        )


def _check_numbers(options: Options, places: Mapping[str, Place]) -> Iterator[Mistake]:
    """That training images are limited in one way."""
    if {"images", "images_per_class"} <= options.keys():
        inner = "images" if places["images_per_class"][0] == "base" else "images_per_class"
        message = "expected either images (in total, at most) or images_per_class (of each class, exactly), found both"
        yield Mistake(places[inner], message)


def _figure(table: PublishedTable | None, file: StudyFile) -> Published | None:
    return table.read(file.metric, file.source_machine) if table else None


def _recipe_options(options: Options) -> Options:
    return {name: value for name, value in options.items() if name not in DataOptions.model_fields}


def _data_spec(options: Options) -> DataSpec:
    return DataSpec.model_validate({name: options[name] for name in DataOptions.model_fields if name in options})


def _make_recipe(
    options: Options, places: Mapping[str, Place], place: Place, case: str
) -> tuple[Recipe | None, list[Mistake]]:
    """The recipe of options, or what is wrong with them, at the places where they stand, else at `place`."""
    try:
        return Recipe(**options), []
    except RecipeError as error:
        reasons = [reason.partition(": ") for reason in _REASON.split(error.message.partition(": ")[2].rstrip("."))]
        return None, [Mistake(places.get(name, (*place, name)), message, case) for name, _, message in reasons]


def _make_search(table: SearchTable, file: StudyFile, applied: AppliedOverrides) -> Search:
    """The search of a table; what is put over every row is not searched, nor what does not apply beside it."""
    return Search(
        sampler=table.sampler,
        trials=min(table.trials, applied.quick.trials or table.trials),
        space=order_space(fix_options(table.space, applied.overrides.settings)),
        options=applied.options({**file.base.options, **table.base.options}),
        seed=table.seed,
        best=_figure(table.best, file),
        worst=_figure(table.worst, file),
        stand_in=table.base.stand_in or file.base.stand_in,
    )


def _check_search(search: Search, table: SearchTable, file: StudyFile, applied: AppliedOverrides) -> list[Mistake]:
    """What is wrong with a search: every choice and end of its space, one after another, must make a recipe."""
    place: Place = ("search", "space")
    mistakes = []
    for name, axis in table.space.items():
        if name not in Recipe.model_fields:
            mistakes.append(Mistake((*place, name), f"unknown option. {suggest(name, Recipe.model_fields)}"))
        for other in axis.when:
            if other not in table.space or table.space[other].when:
                message = f"`when` names {other!r}, expected an option of the space that is always drawn"
                mistakes.append(Mistake((*place, name), message))
        if table.sampler == "grid" and not axis.points:
            mistakes.append(Mistake((*place, name), "the sampler grid needs a list of values, or a step"))
    if not search.space:
        mistakes.append(Mistake(place, "expected at least one option to search"))
    layers = {("base",): file.base.options, ("search", "base"): table.base.options, place: table.space}
    layers[("settings",)] = applied.overrides.settings
    places = {name: (*where, name) for where, names in layers.items() for name in names}
    mistakes += _check_numbers({**file.base.options, **table.base.options}, places)
    for options in () if mistakes else corners(search.space):
        mistakes += _make_recipe({**search.options, **options}, places, place, _label(options))[1]
    return mistakes


def _list_left_out(file: StudyFile, rows: Sequence[Experiment], search: Search | None) -> Iterator[str]:
    """What the limits of the quick table leave out of the grids and the search."""
    for number, grid in enumerate(file.grid):
        points = len(grid.points()) if any(grid.options for grid in (grid, *grid.paired)) else 0
        count = points - sum(row.place == ("grid", number) for row in rows)
        if count > 0:
            name = f"grid {grid.label!r}" if grid.label else f"grid {number + 1}" if len(file.grid) > 1 else "grid"
            yield f"{count:,} of {points:,} rows of the {name} (points = {file.quick.points})"
    if file.search and search and search.trials < file.search.trials:
        count = file.search.trials - search.trials
        yield f"{count:,} of {file.search.trials:,} trials of the search (trials = {file.quick.trials})"


def _list_unsearched(file: StudyFile, overrides: Overrides) -> Iterator[str]:
    """What is not searched because of an option that is set for every row."""
    space = file.search.space if file.search else {}
    searched = fix_options(space, overrides.settings)
    for name in space:
        if name in overrides.settings:
            yield f"the search for {name} (set for every row)"
        elif name not in searched:
            needed = " and ".join(f"{other} = {_in_words(values)}" for other, values in space[name].when.items())
            yield f"the search for {name} (it applies only with {needed})"


def _find_twins(rows: Sequence[Experiment]) -> Iterator[Mistake]:
    """Rows of one label, and rows that would be trained alike."""
    labels: set[str] = set()
    same: dict[str, str] = {}
    for row in rows:
        if row.label in labels:
            yield Mistake(row.place, f"has the label of an earlier row, {row.label!r}")
        labels.add(row.label)
        decided = row.recipe.table() if row.recipe else dict(row.options)
        key = hash_json([sorted(decided.items()), row.images.record()])
        if key in same:
            yield Mistake(row.place, f"is the same experiment as {same[key]!r}", row.label)
        same.setdefault(key, row.label)


def _check_trial_labels(file: StudyFile) -> Iterator[Mistake]:
    """Labels that a search gives its own trials."""
    labels: dict[Place, str] = {("rows", number, "label"): row.label for number, row in enumerate(file.rows)}
    labels |= {("ensembles", number, "label"): row.label for number, row in enumerate(file.ensembles)}
    for place, label in labels.items() if file.search else ():
        if _TRIAL.fullmatch(label):
            yield Mistake(place, f"{label!r} is the label of a trial of the search, expected another")


def _check_claims(file: StudyFile, labels: Sequence[str]) -> Iterator[Mistake]:
    """Claims of rows that there are not, or of one row against itself."""
    for number, claim in enumerate(file.claims):
        for key, label in (("better", claim.better), ("than", claim.than)):
            if label not in labels:
                yield Mistake(("claims", number, key), f"there is no row {label!r}. {suggest(label, labels)}".rstrip())
        if claim.better == claim.than:
            yield Mistake(("claims", number, "than"), "expected another row than `better`")


def _find_edges(file: StudyFile, search: Search | None) -> dict[str, tuple[float, ...]]:
    """The numbers that each option of a grid or a search goes through, where they are more than two or a range."""
    space = search.space if search else {}
    tables = [part.options for grid in file.grid for part in (grid, *grid.paired)]
    tables.append({name: axis.ends for name, axis in space.items()})
    numbers: dict[str, set[float]] = {}
    for name, values in (item for table in tables for item in table.items()):
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            numbers.setdefault(name, set()).update(values)
    ranges = {name for name, axis in space.items() if isinstance(axis, RangeAxis)}
    return {name: tuple(sorted(values)) for name, values in numbers.items() if len(values) > 2 or name in ranges}


def _label(options: Options) -> str:
    """Options in a few words."""
    return ", ".join(f"{name.replace('_', ' ')} {_in_words(value)}" for name, value in options.items())


def _in_words(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "/".join(map(_in_words, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
