"""The tables of a study file as pydantic models: which keys each may have, and what is expected of their values."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from budwood.config.file_checks import HIDDEN, FileModel, Mistake, describe_errors, leave_out
from budwood.config.recipe import Recipe
from budwood.data.listing import ReadOptions
from budwood.studies.ensemble_table import EnsembleTable
from budwood.studies.published_tables import GridFigure, PublishedPart, check_metric
from budwood.studies.search_space import AxisTable, Sampler

TRIALS: Final = 30
LIMITS: Final = ("images", "epochs", "points", "trials")  # of the quick table
PER_CLASS: Final = ("images_per_class", "val_images_per_class", "test_images_per_class")
# Places left out when at fault.
_KEPT_DEPTH: Final[Mapping[str, int]] = {"rows": 3, "grid": 3, "base": 2, "quick": 2, "ensembles": 3}

Options = Mapping[str, object]  # of recipes and data, as given
_Listed = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)
_Text = Annotated[str, Field(description="text")]
_Source = Annotated[str, Field(description="a path or a name")]
_StandIn = Annotated[str, Field(description="text, such as 'ResNet-18 for VGG-16'")]
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
        images_per_class: Number of training images of each class, exactly; not together with `images`; None: all.
        val_images_per_class: Number of validation images of each class, exactly; None: all.
        test_images_per_class: Number of test images of each class, exactly; None: all.
        corrections: Files of tables that correct labels.
        classes: Number of classes, for when the images are not available.
        label_from: Class of images in a folder in a class folder: `top`, `parent` or `path`; None: as in `scan`.
        label_separator: What parts several labels in a cell of a table; None: as in `scan`.
        spelling: Whether spellings of one class are joined: `join` or `keep`; None: as in `scan`.
        split_folders: Whether folders called train, val or test are splits: `auto` or `never`; None: as in `scan`.
        image_column: Header of a table's column of paths or images; None: as in `scan`.
        label_column: Header of a table's column of labels; None: as in `scan`.
    """

    data: _Source = ""
    val: _Share = None
    test: _Share = None
    exclude: Annotated[tuple[str, ...], _Listed, Field(description="a list of classes")] = ()
    images: _Several = None
    images_per_class: _Count = None
    val_images_per_class: _Count = None
    test_images_per_class: _Count = None
    corrections: Annotated[tuple[str, ...], _Listed, Field(description="a list of files")] = ()
    classes: _Several = None
    label_from: Annotated[Literal["top", "parent", "path"] | None, Field(description="'top', 'parent' or 'path'")] = (
        None
    )
    label_separator: Annotated[str | None, Field(min_length=1, description="a separator, 'space' or 'none'")] = None
    spelling: Annotated[Literal["join", "keep"] | None, Field(description="'join' or 'keep'")] = None
    split_folders: Annotated[Literal["auto", "never"] | None, Field(description="'auto' or 'never'")] = None
    image_column: Annotated[str | None, Field(min_length=1, description="the header of a column")] = None
    label_column: Annotated[str | None, Field(min_length=1, description="the header of a column")] = None

    def reading(self) -> dict[str, str]:
        """Return how the data are read where that is not left to `scan`.

        Returns:
            The options that are set, by the names that `scan` has for them.
        """
        options = {option.name: getattr(self, option.name) for option in fields(ReadOptions)}
        return {name: value for name, value in options.items() if value is not None}

    def per_class(self) -> dict[str, int]:
        """Return how many images of each class are drawn.

        Returns:
            The options that are set, by the names that `select_per_class` has for them.
        """
        options = {name: getattr(self, name) for name in PER_CLASS}
        return {name: value for name, value in options.items() if value is not None}


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
        options = self.model_dump(exclude={"classes"})
        return {name: value for name, value in options.items() if value not in (None, ())}


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
    """The table `[base]`: recipe and data options of every row.

    Attributes:
        stand_in: What stands in for what the source had, where the rows cannot be run as published; empty: nothing.
    """

    collected = frozenset({*Recipe.model_fields, *DataOptions.model_fields})
    stand_in: _StandIn = ""


class ExperimentTable(BaseTable):
    """One of the tables `[[rows]]`.

    Attributes:
        label: The row's label; empty: made from its options.
        published: What the source reports; None where there is nothing.
        refused: The option for which the row must be refused; empty: the row is trained.
    """

    label: _Text = ""
    published: PublishedPart = None
    refused: Annotated[str, Field(description="the name of the option that is refused")] = ""


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
            lengths = ", ".join(f"{name} {len(values)}" for name, values in self.options.items())
            raise ValueError(f"lists that vary together must have the same length, found {lengths}")
        return self


class GridTable(GridLists):
    """The table `[grid]`: every combination of its lists is a row.

    Attributes:
        label: Text before the label of every row.
        paired: Lists whose values vary together.
        published: What the source reports for single rows.
        stand_in: What stands in for what the source had; empty: as in the base.
    """

    label: _Text = ""
    paired: Annotated[tuple[PairedLists, ...], _Listed, Field(description="tables, each under [[grid.paired]]")] = ()
    published: Annotated[
        tuple[GridFigure, ...], _Listed, Field(description="tables, each under [[grid.published]]")
    ] = ()
    stand_in: _StandIn = ""

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
    best: PublishedPart = None
    worst: PublishedPart = None


class ClaimTable(FileModel):
    """One of the tables `[[claims]]`: what the source says of two rows.

    Attributes:
        says: The statement in words.
        better: Label of the row that is said to be better.
        than: Label of the other row.
        margin: By how much `better` may be worse all the same; above 0 the statement is that it costs little.
    """

    says: Annotated[str, Field(min_length=1, description="a statement")]
    better: Annotated[str, Field(description="the label of a row")]
    than: Annotated[str, Field(description="the label of a row")]
    margin: Annotated[float, Field(ge=0, lt=1, description="a number from 0, under 1")] = 0.0


class QuickTable(OptionTable):
    """The table `[quick]`: limits and recipe options that `--quick` sets for every row.

    Attributes:
        images: Number of training images, and of validation images, at most; 2 or more, as there are classes.
        epochs: Number of epochs at most, in each phase where there are phases.
        points: Number of rows of each grid at most.
        trials: Number of trials at most.
    """

    collected = frozenset({*Recipe.model_fields, *LIMITS})

    images: _Several = None
    epochs: _Count = None
    points: _Count = None
    trials: _Count = None


class StudyFile(FileModel):
    """A study file as written; a single `[grid]` is a list of one.

    Attributes:
        name: Name of the study, and of its folder.
        title: Title; empty: the name.
        source: Where the experiments were published.
        source_machine: The machine of the published times; empty: not told.
        assumed: What the source does not tell: what was chosen and why, by what it is about.
        caveats: What readers of the table must know.
        data: Path or name of the study's own data.
        metric: The metric that rows are compared by.
        seeds: Seeds with which each row is trained; not together with `folds`.
        folds: Number of folds for cross-validation, 2 or more; None: no folds.
        base: Options of every row.
        rows: Single rows.
        grid: Grids of rows.
        search: The search; None where there is none.
        claims: What the source says of its rows, to be confirmed or denied.
        quick: What `--quick` changes.
        ensembles: Rows that are ensembles of others.
    """

    name: Annotated[
        str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="letters, digits, '.', '_' and '-'")
    ]
    title: _Text = ""
    source: _Text = ""
    source_machine: _Text = ""
    assumed: Annotated[
        Mapping[str, Annotated[str, Field(min_length=1)]],
        Field(description="texts, such as momentum = '0.9, the usual value'"),
    ] = {}
    caveats: Annotated[
        tuple[Annotated[str, Field(min_length=1)], ...], _Listed, Field(description="a list of sentences")
    ] = ()
    data: _Source = ""
    metric: Annotated[str, AfterValidator(check_metric)] = "accuracy"
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
    claims: Annotated[tuple[ClaimTable, ...], _Listed, Field(description="tables, each under [[claims]]")] = ()
    quick: Annotated[QuickTable, Field(description="a table")] = QuickTable()
    ensembles: Annotated[tuple[EnsembleTable, ...], _Listed, Field(description="tables, each under [[ensembles]]")] = ()


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
            errors = describe_errors(error, StudyFile)
            mistakes += errors
            for place in (mistake.place for mistake in errors):
                depth = _KEPT_DEPTH.get(str(place[0]), 1)
                table = leave_out(table, *(place[:depth] if len(place) >= depth else place[:1]))
                table = table if "name" in table else {**table, "name": "study"}  # without which there is no study
