"""Study files: a whole table of experiments in one TOML file, checked as it is written, then expanded into rows.

TOML -> StudyFile (pydantic) -> drafts of rows and grids, search -> Study; mistakes are told at once, with their lines
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from budwood.comparison.rows import Published
from budwood.config.file_checks import HIDDEN, FileModel, Mistake, describe_errors, leave_out, suggest, tell_mistakes
from budwood.config.metric_registry import REPORTED, is_metric
from budwood.config.recipe import Recipe
from budwood.config.toml import read_toml, write_table
from budwood.config.toml_lines import Place
from budwood.errors import RecipeError, StudyError, did_you_mean
from budwood.networks.plan import hash_json
from budwood.studies.search_space import AxisTable, RangeAxis, Sampler, Search, corners, default_space, order_space

TRIALS: Final = 30
LIMITS: Final = ("images", "epochs", "points", "trials")  # of the quick table
_KEPT_DEPTH: Final[Mapping[str, int]] = {"rows": 3, "grid": 3, "base": 2, "quick": 2}  # places left out when at fault
_REASON: Final = re.compile(r"; (?=\w+: )")  # between the mistakes of a recipe

Options = Mapping[str, object]  # of recipes and data, as given
_Listed = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)
_Text = Annotated[str, Field(description="text")]
_Source = Annotated[str, Field(description="a path or a name")]
_Share = Annotated[float | None, Field(gt=0, lt=1, description="a share between 0 and 1")]
_Count = Annotated[int | None, Field(ge=1, description="a whole number from 1")]
_Several = Annotated[int | None, Field(ge=2, description="a whole number from 2")]


class DataOptions(FileModel):
    """The options of a row that decide its images.

    Attributes:
        data: A path or the name of a data set.
        val: Share, between 0 and 1, of the images outside the test split that validate; None: as in `scan`.
        test: Share, between 0 and 1, of all images that are sealed for testing; None: as in `scan`.
        exclude: Classes that are left out.
        images: Number of training images at most, 2 or more; None: all.
        corrections: Files of tables that correct labels.
        classes: Number of classes, for when the images are not available.
    """

    data: _Source = ""
    val: _Share = None
    test: _Share = None
    exclude: Annotated[tuple[str, ...], _Listed, Field(description="a list of classes")] = ()
    images: _Several = None
    corrections: Annotated[tuple[str, ...], _Listed, Field(description="a list of files")] = ()
    classes: _Several = None


class DataSpec(DataOptions):
    """The images of an experiment.

    Attributes:
        held_out: Number of validation images at most, the same share of every class; None: all.
    """

    held_out: int | None = None

    def record(self) -> dict[str, Any]:
        """Return what decides the images, as plain values.

        Returns:
            The options that are set, without `classes`.
        """
        given = self.model_dump(exclude={"classes"})
        return {name: value for name, value in given.items() if value not in (None, ())}


class OptionTable(FileModel):
    """A table that mixes recipe options with keys of its own.

    The options are checked by name only, as their valid values depend on the row in which they end up.

    Attributes:
        collected: Names that count as options.
        options: The options as given.
    """

    collected: ClassVar[frozenset[str]] = frozenset(Recipe.model_fields)
    options: Annotated[Options, Field(alias=HIDDEN)] = MappingProxyType({})

    @model_validator(mode="before")
    @classmethod
    def _collect(cls, table: object) -> object:
        if not isinstance(table, Mapping):
            return table
        options = {name: value for name, value in table.items() if name in cls.collected}
        own = {name: value for name, value in table.items() if name in cls.model_fields or name not in options}
        return {HIDDEN: options, **own}

    @classmethod
    def known_keys(cls) -> set[str]:
        """Return the keys that the table may have, options included.

        Returns:
            The keys, as written in files.
        """
        return super().known_keys() | cls.collected


class BaseTable(OptionTable, DataOptions):
    """The table `[base]`: recipe and data options of every row."""

    collected = frozenset({*Recipe.model_fields, *DataOptions.model_fields})


class PublishedTable(FileModel):
    """A published value of a metric.

    Attributes:
        value: The value, 0 to 1.
        metric: The metric; empty: that of the study.
        split: train, val or test.
        note: A remark.
    """

    value: Annotated[float, Field(ge=0, le=1, description="a value from 0 to 1")]
    metric: _Text = ""
    split: Literal["train", "val", "test"] = "test"
    note: _Text = ""


_Published = Annotated[PublishedTable | None, Field(description="a table with a value")]


class ExperimentTable(BaseTable):
    """One of the tables `[[rows]]`.

    Attributes:
        label: The row's label; empty: made from its options.
        published: The published value; None where there is none.
        refused: The option for which the row must be refused; empty: the row is trained.
    """

    label: _Text = ""
    published: _Published = None
    refused: Annotated[str, Field(description="the name of the option that is refused")] = ""


class GridFigure(PublishedTable):
    """A published value of one row of a grid.

    Attributes:
        where: The options by which the row is found.
    """

    where: Annotated[Options, Field(description="a table of options")] = MappingProxyType({})


class GridLists(OptionTable):
    """Lists of values of recipe and data options.

    Attributes:
        options: The values, at least one, by option.
    """

    collected = frozenset({*Recipe.model_fields, *DataOptions.model_fields})
    options: Annotated[
        Mapping[str, Annotated[tuple[Any, ...], _Listed, Field(min_length=1)]],
        Field(alias=HIDDEN, description="a list of values"),
    ] = {}


class PairedLists(GridLists):
    """One of the tables `[[grid.paired]]`: lists of equal length whose values vary together."""

    @model_validator(mode="after")
    def _check_lengths(self) -> Self:
        if len({len(values) for values in self.options.values()}) > 1:
            told = ", ".join(f"{name} {len(values)}" for name, values in self.options.items())
            raise ValueError(f"lists that vary together must have the same length, found {told}")
        return self


class GridTable(GridLists):
    """The table `[grid]`: every combination of its lists is a row.

    Attributes:
        label: Text before the label of every row.
        paired: Lists whose values vary together.
        published: Published values of rows.
    """

    label: _Text = ""
    paired: Annotated[tuple[PairedLists, ...], _Listed, Field(description="tables, each under [[grid.paired]]")] = ()
    published: Annotated[
        tuple[GridFigure, ...], _Listed, Field(description="tables, each under [[grid.published]]")
    ] = ()

    def points(self) -> list[Options]:
        """List all combinations of the lists; paired lists vary together.

        Returns:
            The options of each row.
        """
        lists = [*({name: values} for name, values in self.options.items()), *(part.options for part in self.paired)]
        axes = [[dict(zip(part, values, strict=True)) for values in zip(*part.values(), strict=True)] for part in lists]
        return [{name: value for part in parts for name, value in part.items()} for parts in itertools.product(*axes)]


class SearchTable(FileModel):
    """The table `[search]`: trials of a space over the base.

    Attributes:
        sampler: How trials are drawn: random, tpe or grid.
        trials: Number of trials at most.
        seed: Seed of the trials.
        space: What is searched, by option.
        base: Options of all trials, over those of `[base]`.
        best: What the source reports of its best trial.
        worst: What the source reports of its worst trial.
    """

    sampler: Sampler = "tpe"
    trials: Annotated[int, Field(ge=1, description="a whole number from 1")] = TRIALS
    seed: Annotated[int, Field(ge=0, description="a whole number from 0")] = 0
    space: Annotated[
        Mapping[str, AxisTable], Field(description="for each option a list of values, or {low, high, log, step}")
    ] = {}
    base: Annotated[BaseTable, Field(description="a table")] = BaseTable()
    best: _Published = None
    worst: _Published = None


class QuickTable(OptionTable):
    """The table `[quick]`: limits and recipe options that `--quick` sets for every row.

    Attributes:
        images: Number of training images, and of validation images, at most.
        epochs: Number of epochs at most, in each phase where there are phases.
        points: Number of rows of each grid at most.
        trials: Number of trials at most.
    """

    collected = frozenset({*Recipe.model_fields, *LIMITS})

    images: _Count = None
    epochs: _Count = None
    points: _Count = None
    trials: _Count = None


def _check_metric(name: str) -> str:
    if not is_metric(name, REPORTED):
        raise ValueError(f"found {name!r}. {did_you_mean(name, REPORTED)}")
    return name


class StudyFile(FileModel):
    """A study file as written; a single `[grid]` is a list of one.

    Attributes:
        name: Name of the study, and of its folder.
        title: Title; empty: the name.
        source: Where the experiments were published.
        data: Path or name of the study's own data.
        metric: The metric that rows are compared by.
        seeds: Seeds with which each row is trained; not together with `folds`.
        folds: Number of folds for cross-validation, 2 or more; None: no folds.
        base: Options of every row.
        rows: Single rows.
        grid: Grids of rows.
        search: The search; None where there is none.
        quick: What `--quick` changes.
    """

    name: Annotated[
        str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="letters, digits, '.', '_' and '-'")
    ]
    title: _Text = ""
    source: _Text = ""
    data: _Source = ""
    metric: Annotated[str, AfterValidator(_check_metric)] = "accuracy"
    seeds: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...],
        _Listed,
        Field(min_length=1, description="a list of whole numbers from 0"),
    ] = (0,)
    folds: _Several = None
    base: Annotated[BaseTable, Field(description="a table")] = BaseTable()
    rows: Annotated[tuple[ExperimentTable, ...], _Listed, Field(description="tables, each under [[rows]]")] = ()
    grid: Annotated[tuple[GridTable, ...], _Listed, Field(description="a table of lists")] = ()
    search: Annotated[SearchTable | None, Field(description="a table")] = None
    quick: Annotated[QuickTable, Field(description="a table")] = QuickTable()


@dataclass(frozen=True)
class Experiment:
    """One row of a study.

    Attributes:
        label: The row's label.
        options: Its options as the file names them, those of the base included.
        recipe: Its recipe; None where the row is refused.
        images: Its images.
        published: The published value; None where there is none.
        refused: Why the row is refused; empty where it is not.
        varied: Whether it is a point of a grid.
        place: The table of the file from which it comes.
    """

    label: str
    options: Options
    recipe: Recipe | None
    images: DataSpec
    published: Published | None = None
    refused: str = ""
    varied: bool = False
    place: Place = ()


@dataclass(frozen=True)
class Study:
    """A table of experiments.

    Attributes:
        name: Name of the study, and of its folder.
        title: Its title.
        source: Where the experiments were published.
        metric: The metric that rows are compared by.
        seeds: Seeds with which each row is trained.
        folds: Number of folds with which each row is trained; None: no folds.
        base: Recipe options of the base.
        rows: The experiments.
        search: The search; None where there is none.
        searched: The images of the search.
        edges: The numbers of each option that a grid or a search goes through, in order.
        changed: What was set for every row on the command line.
        text: The text of the file.
    """

    name: str
    title: str
    source: str
    metric: str
    seeds: tuple[int, ...]
    folds: int | None
    base: Options
    rows: tuple[Experiment, ...]
    search: Search | None
    searched: DataSpec
    edges: Mapping[str, tuple[float, ...]]
    changed: Options
    text: str

    @property
    def changed_options(self) -> dict[str, Any]:
        """Return the recipe options that were set for every row, without limits such as `epochs` of `[quick]`."""
        return {name: value for name, value in self.changed.items() if name not in LIMITS}


@dataclass(frozen=True)
class Overrides:
    """What is set for every row of a study.

    Attributes:
        quick: Whether the file's `[quick]` table is applied.
        settings: Recipe options.
        places: Paths of data sets by name; the name "" stands for the study's own.
        corrections: Tables that correct labels of the study's own data.
    """

    quick: bool = False
    settings: Options = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)
    corrections: Sequence[str] = ()


@dataclass(frozen=True)
class AppliedOverrides:
    """Overrides of one study file.

    Attributes:
        quick: The file's quick table, or an empty one where it is not asked for.
        overrides: The overrides.
        own: Path or name of the study's own data.
    """

    quick: QuickTable
    overrides: Overrides
    own: str

    def options(self, options: Options) -> dict[str, Any]:
        """Return the recipe options of a row with the overrides applied; `epochs` of the quick table is a limit.

        Args:
            options: The options of the row, those of the base included.

        Returns:
            The recipe options, without data options.
        """
        quick = {name: value for name, value in self.quick.options.items() if name not in LIMITS}
        return _limit_epochs({**_recipe_options(options), **quick, **self.overrides.settings}, self.quick.epochs)

    def points(self, count: int) -> list[int]:
        """Choose the points of a grid to keep, spread evenly.

        Args:
            count: Number of points of the grid.

        Returns:
            Numbers of the points, from 0; at most `points` of the quick table.
        """
        most = min(self.quick.points or count, count)
        return [number * (count - 1) // max(most - 1, 1) for number in range(most)]

    def data(self, spec: DataSpec) -> DataSpec:
        """Return the images of a row with the overrides applied.

        Args:
            spec: The images as the file describes them.

        Returns:
            The images at their given path, no more than the quick table allows.
        """
        is_own, places = spec.data == self.own, self.overrides.places
        place = places.get(spec.data, spec.data)
        corrections = (*spec.corrections, *(self.overrides.corrections if is_own else ()))
        placed = {"data": places.get("", place) if is_own else place, "corrections": corrections}
        most = self.quick.images
        limits = {} if most is None else {"images": min(most, spec.images or most), "held_out": most}
        return spec.model_copy(update={**placed, **limits})


@dataclass(frozen=True)
class _Draft:
    """An experiment before it is checked: its own options, by the tables in which they stand."""

    label: str
    own: Mapping[Place, Options]
    published: Published | None = None
    refused: str = ""
    varied: bool = False


def load_study(path: str | Path, overrides: Overrides | None = None) -> Study:
    """Load a study from a TOML file.

    Args:
        path: The file.
        overrides: What is set for every row; None: nothing.

    Returns:
        The study.

    Raises:
        StudyError: The file cannot be read or has mistakes; the message names each with its line, table and key.
    """
    file = Path(path)
    read = read_toml(file, "study", StudyError, missing="Check the path.", malformed="see the examples in studies/.")
    return parse_study(read.table, str(file), read.text, overrides)


def parse_study(table: Options, where: str, text: str, overrides: Overrides | None = None) -> Study:
    """Parse the table of a study, which is checked first as it stands and then with the overrides.

    Args:
        table: The contents of the TOML file.
        where: The name of the file in messages.
        text: The TOML text, for the lines of mistakes; may be empty.
        overrides: What is set for every row; None: nothing.

    Returns:
        The study.

    Raises:
        StudyError: There are mistakes; the message names each.
    """
    table = {**table, "grid": [table["grid"]]} if isinstance(table.get("grid"), Mapping) else table
    file, mistakes = check_file(table)
    faulty = {mistake.place[:size] for mistake in mistakes for size in (1, 2)}
    study, more = expand_study(file, Overrides(), text, faulty)
    if not mistakes and not more and overrides not in (None, Overrides()):
        study, more = expand_study(file, overrides, text)
    if mistakes or more:
        told = tell_mistakes([*mistakes, *more], table, text)
        raise StudyError(f"{where} has {told}", "See the examples in studies/; `budwood train --help` lists options.")
    return study


def make_tuning_study(
    source: str,
    options: Options,
    *,
    trials: int = TRIALS,
    sampler: str = "tpe",
    metric: str = "accuracy",
    seed: int = 0,
) -> Study:
    """Make a study of one row, the given recipe, and of a search around it.

    Args:
        source: Path or name of the data.
        options: Recipe options of the given recipe; these are not searched.
        trials: Number of trials.
        sampler: How trials are drawn: random or tpe.
        metric: The metric that is compared.
        seed: Seed of the trials.

    Returns:
        The study; its name contains a digest of options, sampler, metric and seed.

    Raises:
        StudyError: An option or argument is wrong.
    """
    place = Path(source).name.split(".")[0]
    table = {
        "name": f"tune-{place}-{hash_json([dict(options), sampler, metric, seed])[:6]}",
        "title": f"Search on {place}",
        "data": source,
        "metric": metric,
        "base": dict(options),
        "rows": [{"label": "as given"}],
        "search": {"sampler": sampler, "trials": trials, "seed": seed, "space": default_space(options)},
    }
    return parse_study(table, "tune", write_table(table))


def with_seed(recipe: Recipe, seed: int) -> Recipe:
    """Return a recipe with another seed.

    Args:
        recipe: The recipe.
        seed: The seed.

    Returns:
        A copy; the recipe itself where nothing in it is left to chance.
    """
    return recipe if recipe.seed is None else recipe.model_copy(update={"seed": seed})


def check_file(table: Options) -> tuple[StudyFile, list[Mistake]]:
    """Check the table of a study file, all but the recipes that its options make.

    Parts with mistakes are left out and the rest is read again, so that it can be checked further.

    Args:
        table: The table, in which `grid` is a list.

    Returns:
        What could be read, and the mistakes.
    """
    mistakes: list[Mistake] = []
    while True:
        try:
            return StudyFile.model_validate(table), mistakes
        except ValidationError as error:
            found = describe_errors(error, StudyFile)
            mistakes += found
            for place in (mistake.place for mistake in found):
                depth = _KEPT_DEPTH.get(str(place[0]), 1)
                table = leave_out(table, *(place[:depth] if len(place) >= depth else place[:1]))
                table = table if "name" in table else {**table, "name": "study"}  # without which there is no study


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
    found: list[Experiment | Mistake] = [*_check_head(file, overrides)]
    for draft in (*_list_drafts(file), *_vary_drafts(file, applied, faulty)):
        found += [draft] if isinstance(draft, Mistake) else _check_draft(draft, file, applied)
    search = None
    if file.search and ("search",) not in faulty:
        search = _make_search(file.search, file, applied)
        found += _check_search(search, file.search, file, applied)
    rows = tuple(part for part in found if isinstance(part, Experiment))
    if overrides == Overrides():
        found += _find_twins([row for row in rows if row.place not in faulty])
    mistakes = list(dict.fromkeys(part for part in found if isinstance(part, Mistake)))
    if not (rows or search or mistakes or faulty):
        mistakes = [Mistake((), "contains no [[rows]], no [grid] and no [search]")]
    searched = {"data": file.data, **file.base.options, **(file.search.base.options if file.search else {})}
    study = Study(
        name=file.name,
        title=file.title or file.name,
        source=file.source,
        metric=file.metric,
        seeds=file.seeds,
        folds=file.folds,
        base=_recipe_options(file.base.options),
        rows=rows,
        search=search,
        searched=applied.data(_data_spec(searched)) if search else DataSpec(),
        edges=_find_edges(file, search),
        changed={**applied.quick.options, **overrides.settings},
        text=text,
    )
    return study, mistakes


def _limit_epochs(options: Options, most: int | None) -> dict[str, object]:
    """Options with at most so many epochs, in each phase where there are phases; a solved head has none."""
    if most is None:
        return dict(options)
    try:
        recipe = Recipe(**options)
    except RecipeError:
        return dict(options)  # told when the row is checked
    if recipe.phases:
        short = [{**phase.model_dump(), "epochs": min(most, phase.epochs)} for phase in recipe.phases]
        return {**options, "phases": short}
    return {**options, "epochs": min(most, recipe.epochs)} if recipe.epochs else dict(options)


def _list_drafts(file: StudyFile) -> Iterator[_Draft]:
    """The experiments under `[[rows]]`."""
    for number, row in enumerate(file.rows):
        own = row.options
        label = row.label or _label(own) or "base"
        yield _Draft(label, {("rows", number): own}, _figure(row.published, file), row.refused)


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
            if len(described) == 1:
                figures[described[0]] = _figure(entry, file)
            else:
                message = f"where {dict(entry.where)} describes {len(described)} rows, expected one"
                yield Mistake((*place, "published", count), message)
        varying = [name for name in points[0] if len({str(point[name]) for point in points}) > 1]
        for n in applied.points(len(points)):
            words = _label({name: points[n][name] for name in varying})
            label = ": ".join(filter(None, (grid.label, words))) or _label(points[n])
            own = {table: {name: points[n][name] for name in names} for table, names in tables.items()}
            yield _Draft(label, own, figures.get(n), varied=True)


def _check_head(file: StudyFile, overrides: Overrides) -> Iterator[Mistake]:
    """What is wrong with the repetitions and with the names of what is put over every row."""
    if len(set(file.seeds)) != len(file.seeds):
        yield Mistake(("seeds",), f"expected each once, found {list(file.seeds)}")
    if file.folds is not None and "seeds" in file.model_fields_set:
        yield Mistake(("folds",), "expected either seeds or folds, found both")
    for name in overrides.settings.keys() - Recipe.model_fields.keys():
        yield Mistake(("settings", name), f"unknown option. {suggest(name, Recipe.model_fields)}")


def _check_draft(draft: _Draft, file: StudyFile, applied: AppliedOverrides) -> Iterator[Experiment | Mistake]:
    """The experiment of a draft, or what is wrong with it."""
    place = next(iter(draft.own))
    layers = {(): {"data": file.data}, ("base",): file.base.options, **draft.own}
    given = {name: value for table in layers.values() for name, value in table.items()}
    layers[("settings",)] = applied.overrides.settings
    places = {name: (*where, name) for where, table in layers.items() for name in table}
    try:
        images = applied.data(_data_spec(given))
    except ValidationError as error:
        yield from (Mistake(places[str(one.place[0])], one.message) for one in describe_errors(error, DataSpec))
        return
    options = applied.options(given)
    recipe, faults = _make_recipe(options, places, place, draft.label)
    reason = next((one.message for one in faults if one.place[-1] == draft.refused), "")
    if "seed" in options:
        faults = [Mistake(places["seed"], "write `seeds = [0, 1, 2]` once for all rows of the study")]
    elif reason:
        faults, reason = [], f"{draft.refused}: {reason}"
    elif recipe and draft.refused:
        faults = [Mistake((*place, "refused"), f"{draft.refused} is valid here, so remove `refused` to train the row")]
    yield from faults
    if not faults:
        yield Experiment(draft.label, options, recipe, images, draft.published, reason, draft.varied, place)


def _figure(table: PublishedTable | None, file: StudyFile) -> Published | None:
    return Published(table.value, table.metric or file.metric, table.split, table.note) if table else None


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
    """The search of a table; what is put over every row is not searched."""
    space = {name: axis for name, axis in table.space.items() if name not in applied.overrides.settings}
    return Search(
        sampler=table.sampler,
        trials=min(table.trials, applied.quick.trials or table.trials),
        space=order_space(space),
        options=applied.options({**file.base.options, **table.base.options}),
        seed=table.seed,
        best=_figure(table.best, file),
        worst=_figure(table.worst, file),
    )


def _check_search(search: Search, table: SearchTable, file: StudyFile, applied: AppliedOverrides) -> list[Mistake]:
    """What is wrong with a search: every choice and end of its space, one after another, must make a recipe."""
    place: Place = ("search", "space")
    found = []
    for name, axis in table.space.items():
        if name not in Recipe.model_fields:
            found.append(Mistake((*place, name), f"unknown option. {suggest(name, Recipe.model_fields)}"))
        for other in axis.when:
            if other not in table.space or table.space[other].when:
                message = f"`when` names {other!r}, expected an option of the space that is always drawn"
                found.append(Mistake((*place, name), message))
        if table.sampler == "grid" and not axis.points:
            found.append(Mistake((*place, name), "the sampler grid needs a list of values, or a step"))
    if not search.space:
        found.append(Mistake(place, "expected at least one option to search"))
    layers = {("base",): file.base.options, ("search", "base"): table.base.options, place: table.space}
    layers[("settings",)] = applied.overrides.settings
    places = {name: (*where, name) for where, names in layers.items() for name in names}
    for chosen in () if found else corners(search.space):
        found += _make_recipe({**search.options, **chosen}, places, place, _label(chosen))[1]
    return found


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


def _find_edges(file: StudyFile, search: Search | None) -> dict[str, tuple[float, ...]]:
    """The numbers that each option of a grid or a search goes through, where they are more than two or a range."""
    space = search.space if search else {}
    tables = [part.options for grid in file.grid for part in (grid, *grid.paired)]
    tables.append({name: axis.ends for name, axis in space.items()})
    found: dict[str, set[float]] = {}
    for name, values in (item for table in tables for item in table.items()):
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            found.setdefault(name, set()).update(values)
    ranges = {name for name, axis in space.items() if isinstance(axis, RangeAxis)}
    return {name: tuple(sorted(values)) for name, values in found.items() if len(values) > 2 or name in ranges}


def _label(options: Options) -> str:
    """Options in a few words."""
    return ", ".join(f"{name.replace('_', ' ')} {_in_words(value)}" for name, value in options.items())


def _in_words(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "/".join(map(_in_words, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
