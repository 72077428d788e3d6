"""A study: a table of experiments, and the search, that a study file expands into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from budwood.comparison.document import Claim
from budwood.comparison.published import Published
from budwood.comparison.text import Order
from budwood.config.recipe import Recipe
from budwood.config.toml_lines import Place
from budwood.studies.ensemble_table import EnsembleRow
from budwood.studies.search_space import Search
from budwood.studies.study_tables import LIMITS, DataSpec, Options


@dataclass(frozen=True)
class Experiment:
    """One row of a study.

    Attributes:
        label: The row's label.
        options: Its options as the file names them, those of the base included.
        recipe: Its recipe; None where the row is refused.
        images: Its images.
        published: What the source reports; None where there is nothing.
        refused: Why the row is refused; empty where it is not.
        varied: Whether it is a point of a grid.
        place: The table of the file from which it comes.
        stand_in: What stands in for what the source had, where the row cannot be run as published; empty: nothing.
    """

    label: str
    options: Options
    recipe: Recipe | None
    images: DataSpec
    published: Published | None = None
    refused: str = ""
    varied: bool = False
    place: Place = ()
    stand_in: str = ""


@dataclass(frozen=True)
class Study:
    """A table of experiments.

    Attributes:
        name: Name of the study, and of its folder.
        title: Its title.
        source: Where the experiments were published.
        assumed: What the source does not tell: what was chosen and why, by what it is about.
        caveats: What readers of the table must know.
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
        claims: What the source says of the rows.
        left_out: What the limits of `[quick]`, or options that are set for every row, leave out of the study.
        ensembles: The rows that are ensembles of the others.
        metric_given: Whether the file names the metric; else it is accuracy until the labels are known.
    """

    name: str
    title: str
    source: str
    assumed: Mapping[str, str]
    caveats: tuple[str, ...]
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
    claims: tuple[Claim, ...] = ()
    left_out: tuple[str, ...] = ()
    ensembles: tuple[EnsembleRow, ...] = ()
    metric_given: bool = True

    @property
    def order(self) -> Order:
        """Return the order in which the rows are shown: that of the file, or the best first where it is a search."""
        return "metric" if self.search and len(self.rows) < 2 else "given"

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
        seeds: Seeds in place of the file's; empty: those of the file.
    """

    quick: bool = False
    settings: Options = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)
    corrections: Sequence[str] = ()
    seeds: tuple[int, ...] = ()


def with_seed(recipe: Recipe, seed: int) -> Recipe:
    """Return a recipe with another seed.

    Args:
        recipe: The recipe.
        seed: The seed.

    Returns:
        A copy; the recipe itself where nothing in it is left to chance.
    """
    return recipe if recipe.seed is None else recipe.model_copy(update={"seed": seed})
