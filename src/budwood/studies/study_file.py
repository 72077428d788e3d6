"""Study files: a whole table of experiments in one TOML file, read into records, every mistake told at once.

base, rows, grids, search -> the options of each row -> Row -> Study
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from budwood.comparison.rows import Published
from budwood.config.metric_registry import REPORTED, is_metric
from budwood.config.recipe import Recipe
from budwood.config.toml import read_toml, write_table
from budwood.errors import RecipeError, StudyError, did_you_mean
from budwood.networks.plan import hash_json
from budwood.studies.search_space import SAMPLERS, Axis, Search, check_space, default_space, parse_space

KEYS: Final = (
    "name",
    "title",
    "source",
    "data",
    "metric",
    "seeds",
    "folds",
    "base",
    "rows",
    "grid",
    "search",
    "quick",
)
ROW_KEYS: Final = ("label", "published", "refused")
IMAGE_OPTIONS: Final = ("data", "val", "test", "exclude", "corrections", "images", "classes")
LIMITS: Final = ("images", "points", "trials")  # of the quick table, beside `epochs` and recipe options
GRID_KEYS: Final = ("label", "paired", "published")
SEARCH_KEYS: Final = ("sampler", "trials", "seed", "space", "base", "best", "worst")
PUBLISHED_KEYS: Final = ("value", "metric", "split", "note")
TRIALS: Final = 30
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class DataSpec:
    """Which images a row is about: those of `data` (a path or a name) with the shares, exclusions and corrections of
    `scan`.

    At most `images` of them train, and at most `held_out` validate, in each class as large a share as in all; `classes`
    says how many classes there are, for when the images are not there.
    """

    data: str = ""
    val: float | None = None
    test: float | None = None
    exclude: tuple[str, ...] = ()
    images: int | None = None
    held_out: int | None = None
    corrections: tuple[str, ...] = ()
    classes: int | None = field(default=None, compare=False)

    def record(self) -> dict[str, Any]:
        """What decides the images, as plain values."""
        names = ("data", "val", "test", "exclude", "images", "held_out", "corrections")
        named = {name: getattr(self, name) for name in names}
        return {name: value for name, value in named.items() if value not in (None, ())}


@dataclass(frozen=True)
class Experiment:
    """One experiment: its `options` as the file names them, those of the base included, and the `recipe` they make.

    `recipe` is None where the row is refused, and `refused` says why. `varied`: it is a point of a grid.
    """

    label: str
    options: Mapping[str, Any]
    recipe: Recipe | None
    images: DataSpec
    published: Published | None = None
    refused: str = ""
    varied: bool = False


@dataclass(frozen=True)
class Study:
    """A table of experiments. `seeds` or `folds` say how often each row is trained; `changed` holds what was put over
    every row on the command line, `edges` the numbers of each option that a grid or a search goes through, and `text`
    is the file itself."""

    name: str
    title: str
    source: str
    metric: str
    seeds: tuple[int, ...]
    folds: int | None
    base: Mapping[str, Any]
    rows: tuple[Experiment, ...]
    search: Search | None
    searched: DataSpec
    edges: Mapping[str, tuple[float, ...]]
    changed: Mapping[str, Any]
    text: str

    @property
    def changed_options(self) -> dict[str, Any]:
        """The recipe options among what was put over every row; `epochs` of the quick table is but a limit."""
        return {name: value for name, value in self.changed.items() if name not in (*LIMITS, "epochs")}


@dataclass(frozen=True)
class Overrides:
    """What is put over every row: `quick` asks for the file's `[quick]` table, `settings` are recipe options, `places`
    say where a data set of some name lies ("" for the study's own), `corrections` are tables that correct the labels of
    the study's own."""

    quick: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)
    corrections: Sequence[str] = ()


def load_study(path: str | Path, over: Overrides | None = None) -> Study:
    """The study in a TOML file; raises `StudyError` that names every mistake with the table and row it is in."""
    file = Path(path)
    read = read_toml(file, "study", StudyError, missing="Check the path.", malformed="studies/ holds examples.")
    return parse_study(read.table, str(file), read.text, over)


def parse_study(table: Mapping[str, Any], where: str, text: str, over: Overrides | None = None) -> Study:
    """The study in a table; `where` names it in messages, `text` is the file that it was read from.

    It is checked as it stands first, and then with what is put over every row. Raises `StudyError`.
    """
    study = _checked(table, where, text, Overrides())
    return study if over is None or over == Overrides() else _checked(table, where, text, over)


def make_tuning_study(
    source: str,
    options: Mapping[str, Any],
    *,
    trials: int = TRIALS,
    sampler: str = "tpe",
    metric: str = "accuracy",
    seed: int = 0,
) -> Study:
    """A study of one row, the recipe of `options`, and of a search around it; what is given is not searched."""
    place = Path(source).name.split(".")[0]
    search = {"sampler": sampler, "trials": trials, "seed": seed, "space": default_space(options)}
    table = {
        "name": f"tune-{place}-{hash_json([dict(options), sampler, metric, seed])[:6]}",
        "title": f"Search on {place}",
        "data": source,
        "metric": metric,
        "base": dict(options),
        "rows": [{"label": "as given"}],
        "search": search,
    }
    return parse_study(table, "tune", write_table(table))


def with_seed(recipe: Recipe, seed: int) -> Recipe:
    """A recipe with another seed; the same one where nothing in it is left to chance."""
    return recipe if recipe.seed is None else recipe.model_copy(update={"seed": seed})


def _checked(table: Mapping[str, Any], where: str, text: str, over: Overrides) -> Study:
    wrong: list[str] = []
    _refuse_unknown(table, KEYS, "", wrong)
    head = {key: _text(table, key, wrong) for key in ("name", "title", "source", "data")}
    if not _NAME.fullmatch(head["name"]):
        wrong.append(f"name: expected letters, digits, '.', '_' and '-', found {head['name']!r}")
    metric = _text(table, "metric", wrong) or "accuracy"
    if not is_metric(metric, REPORTED):
        wrong.append(f"metric: found {metric!r}. {did_you_mean(metric, REPORTED)}")
    quick = _table(table, "quick", wrong)
    base = {"data": head["data"], **_table(table, "base", wrong)}
    _refuse_unknown(base, (*Recipe.model_fields, *IMAGE_OPTIONS), "base", wrong)
    _refuse_unknown(quick, (*Recipe.model_fields, *LIMITS), "quick", wrong)
    wrong += [
        f"quick: {name}: expected a whole number from 1, found {quick[name]!r}"
        for name in (*LIMITS, "epochs")
        if name in quick and not _is_count(quick[name], 1)
    ]
    seeds, folds = _repeats(table, wrong)
    own = over.places.get("")
    places = {**over.places, **({head["data"]: own} if own is not None else {})}
    over = replace(over, places=places)
    put = AppliedOverrides(quick if over.quick else {}, over, head["data"])
    rows = [*_listed_rows(table, base, put, metric, wrong), *_grid_rows(table, base, put, metric, wrong)]
    search, searched = _search(table, base, put, metric, wrong)
    if not rows and search is None and not wrong:
        wrong.append("holds no [[rows]], no [grid] and no [search]")
    _refuse_twins(rows, not (over.quick or over.settings or over.places), wrong)
    if wrong:
        raise _mistakes(where, wrong)
    return Study(
        name=head["name"],
        title=head["title"] or head["name"],
        source=head["source"],
        metric=metric,
        seeds=seeds,
        folds=folds,
        base={name: value for name, value in base.items() if name not in IMAGE_OPTIONS},
        rows=tuple(rows),
        search=search,
        searched=searched,
        edges=_edges(table, search),
        changed={**put.quick, **over.settings},
        text=text,
    )


@dataclass(frozen=True)
class AppliedOverrides:
    """What is put over a row's options: the quick table that was asked for, settings, places, and corrections of the
    study's own data."""

    quick: Mapping[str, Any]
    over: Overrides
    own: str

    def options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """A row's recipe options with those of the command line; `epochs` of the quick table is a limit."""
        quick = {name: value for name, value in self.quick.items() if name not in (*LIMITS, "epochs")}
        return _shortened({**options, **quick, **self.over.settings}, self.quick.get("epochs"))

    def places(self, count: int) -> list[int]:
        """The rows of a grid that are kept: at most `points` of the quick table, spread evenly."""
        most = min(self.quick.get("points", count), count)
        return [number * (count - 1) // max(most - 1, 1) for number in range(most)]

    def images(self, images: DataSpec) -> DataSpec:
        """A row's images in the place that was given, no more than the quick table says."""
        most = self.quick.get("images")
        place = self.over.places.get(images.data, images.data)
        more = self.over.corrections if images.data == self.own else ()
        held = replace(images, data=place, corrections=(*images.corrections, *more))
        if most is None:
            return held
        return replace(held, images=min(most, images.images or most), held_out=most)


def _shortened(options: Mapping[str, Any], epochs: int | None) -> dict[str, Any]:
    """Options with at most so many epochs, in each phase where there are phases; a solved head has none."""
    if epochs is None:
        return dict(options)
    if phases := options.get("phases"):
        short = [{**phase, "epochs": min(epochs, phase["epochs"])} for phase in phases]
        return {**options, "phases": short}
    try:
        planned = Recipe(**options).epochs
    except RecipeError:
        return dict(options)  # told when the row is read
    return {**options, "epochs": min(epochs, planned)} if planned else dict(options)


def _listed_rows(
    table: Mapping[str, Any], base: Mapping[str, Any], put: AppliedOverrides, metric: str, wrong: list[str]
) -> Iterator[Experiment]:
    for number, given in enumerate(_tables(table, "rows", wrong), 1):
        own = {name: value for name, value in given.items() if name not in ROW_KEYS}
        label = str(given.get("label") or _label(own) or "base")
        where = f"rows {number} ({label})"
        refused = given.get("refused", "")
        if not isinstance(refused, str):
            wrong.append(f"{where}: refused: expected the name of the option that is refused, found {refused!r}")
            continue
        published = _published(given.get("published"), metric, where, wrong)
        row = _row(label, own, base, put, where, refused, wrong)
        if row is not None:
            yield replace(row, published=published)


def _grid_rows(
    table: Mapping[str, Any], base: Mapping[str, Any], put: AppliedOverrides, metric: str, wrong: list[str]
) -> Iterator[Experiment]:
    found = table.get("grid", [])
    grids = found if isinstance(found, list) else [found]
    for number, grid in enumerate(grids, 1):
        where = f"grid {number}" if len(grids) > 1 else "grid"
        if not isinstance(grid, Mapping):
            wrong.append(f"{where}: expected a table of lists, found {grid!r}")
            continue
        points = _points(grid, where, wrong)
        published = _published_points(grid, points, metric, where, wrong)
        told_label = grid.get("label", "")
        varying = {name for name in _union(points) if len({str(point.get(name)) for point in points}) > 1}
        told: list[str] = []
        for place in put.places(len(points)):
            point = points[place]
            words = _label({name: value for name, value in point.items() if name in varying})
            label = ": ".join(filter(None, (str(told_label), words))) or _label(point)
            row = _row(label, point, base, put, f"{where} ({label})", "", told)
            if row is not None:
                yield replace(row, published=published.get(place), varied=True)
        wrong += told[:5]
        if len(told) > 5:
            wrong.append(f"{where}: {len(told) - 5} more rows with mistakes")


def _union(points: Sequence[Mapping[str, Any]]) -> list[str]:
    """The options that any row of a grid has."""
    return list(dict.fromkeys(name for point in points for name in point))


def _points(grid: Mapping[str, Any], where: str, wrong: list[str]) -> list[dict[str, Any]]:
    """The options of every row of a grid: all combinations of its lists, paired ones together."""
    axes = [_axis({name: values}, where, wrong) for name, values in grid.items() if name not in GRID_KEYS]
    axes += [_axis(part, f"{where}.paired", wrong) for part in _tables(grid, "paired", wrong)]
    if not axes:
        wrong.append(f"{where}: holds no list of values")
        return []
    return [{name: value for part in parts for name, value in part.items()} for parts in itertools.product(*axes)]


def _axis(lists: Mapping[str, Any], where: str, wrong: list[str]) -> list[dict[str, Any]]:
    """The values of lists of one length, taken together."""
    for name, values in lists.items():
        if not isinstance(values, list) or not values:
            wrong.append(f"{where}.{name}: expected a list of values, found {values!r}")
            return []
    lengths = {len(values) for values in lists.values()}
    if len(lengths) > 1:
        told = ", ".join(f"{name} {len(values)}" for name, values in lists.items())
        wrong.append(f"{where}: lists that vary together have one length, found {told}")
        return []
    return [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]


def _published_points(
    grid: Mapping[str, Any], points: Sequence[Mapping[str, Any]], metric: str, where: str, wrong: list[str]
) -> dict[int, Published]:
    """The published figures of a grid, by the place of the row that `where` describes."""
    found = {}
    for entry in _tables(grid, "published", wrong):
        wanted = entry.get("where", {})
        published = _published(
            {key: value for key, value in entry.items() if key != "where"}, metric, f"{where}.published", wrong
        )
        places = [place for place, point in enumerate(points) if wanted.items() <= point.items()]
        if len(places) != 1:
            wrong.append(f"{where}.published: where {wanted} describes {len(places)} rows, expected one")
        elif published is not None:
            found[places[0]] = published
    return found


def _row(
    label: str,
    own: Mapping[str, Any],
    base: Mapping[str, Any],
    put: AppliedOverrides,
    where: str,
    refused: str,
    wrong: list[str],
) -> Experiment | None:
    """The row of some options over the base; what is wrong with them is told."""
    given = {**base, **own}
    images = _images(given, where, wrong)
    options = put.options({name: value for name, value in given.items() if name not in IMAGE_OPTIONS})
    if "seed" in options:
        wrong.append(f"{where}: seed: a study says `seeds = [0, 1, 2]` once for all rows")
        return None
    try:
        recipe = Recipe(**options)
    except RecipeError as error:
        lines = error.message.partition(": ")[2].rstrip(".")
        reasons = [line for line in lines.split("; ") if line.startswith(f"{refused}:")]
        if refused and reasons:
            return Experiment(label, options, None, put.images(images), refused=reasons[0])
        hint = f". {error.hint}" if "there is no such option" in lines else ""
        wrong.append(f"{where}: {lines}{hint}")
        return None
    if refused:
        wrong.append(f"{where}: refused: {refused} is valid here, so the row would be trained")
        return None
    return Experiment(label, options, recipe, put.images(images))


def _images(given: Mapping[str, Any], where: str, wrong: list[str]) -> DataSpec:
    """The data options of a row."""
    chosen: dict[str, Any] = {name: given[name] for name in IMAGE_OPTIONS if name in given}
    expected = {
        "data": lambda value: isinstance(value, str),
        "val": lambda value: isinstance(value, float) and 0 < value < 1,
        "test": lambda value: isinstance(value, float) and 0 < value < 1,
        "exclude": lambda value: isinstance(value, list) and all(isinstance(name, str) for name in value),
        "corrections": lambda value: isinstance(value, list) and all(isinstance(name, str) for name in value),
        "images": lambda value: _is_count(value, 2),
        "classes": lambda value: _is_count(value, 2),
    }
    words = {
        "data": "a path or a name",
        "val": "a share between 0 and 1",
        "test": "a share between 0 and 1",
        "exclude": "a list of classes",
        "corrections": "a list of files",
        "images": "a whole number from 2",
        "classes": "a whole number from 2",
    }
    for name, value in list(chosen.items()):
        if not expected[name](value):
            wrong.append(f"{where}: {name}: expected {words[name]}, found {value!r}")
            del chosen[name]
    lists = {name: tuple(chosen.get(name, ())) for name in ("exclude", "corrections")}
    return DataSpec(**{**chosen, **lists})


def _search(
    table: Mapping[str, Any], base: Mapping[str, Any], put: AppliedOverrides, metric: str, wrong: list[str]
) -> tuple[Search | None, DataSpec]:
    given = _table(table, "search", wrong)
    if not given:
        return None, DataSpec()
    told: list[str] = []
    _refuse_unknown(given, SEARCH_KEYS, "", told)
    whole = {**base, **_table(given, "base", told)}
    images = _images(whole, "base", told)
    options = put.options({name: value for name, value in whole.items() if name not in IMAGE_OPTIONS})
    sampler, trials, seed = given.get("sampler", "tpe"), given.get("trials", TRIALS), given.get("seed", 0)
    if sampler not in SAMPLERS:
        told.append(f"sampler: found {sampler!r}. {did_you_mean(str(sampler), SAMPLERS)}")
    if not _is_count(trials, 1) or not _is_count(seed, 0):
        told.append(f"expected whole numbers for trials (from 1) and seed (from 0), found {trials!r} and {seed!r}")
    space = parse_space(_table(given, "space", told), told)
    space = {name: axis for name, axis in space.items() if name not in put.over.settings}
    best, worst = (_published(given.get(name), metric, name, told) for name in ("best", "worst"))
    if not told:
        made = Search(sampler, min(trials, put.quick.get("trials", trials)), space, options, seed, best, worst)
        if not space:
            told.append("space: expected at least one option to search")
        check_space(made, told)
        if not told:
            return made, put.images(images)
    wrong += [f"search: {line}" for line in told]
    return None, DataSpec()


def _repeats(table: Mapping[str, Any], wrong: list[str]) -> tuple[tuple[int, ...], int | None]:
    """The seeds and the number of folds."""
    seeds, folds = table.get("seeds", [0]), table.get("folds")
    if not isinstance(seeds, list) or not seeds or not all(_is_count(seed, 0) for seed in seeds):
        wrong.append(f"seeds: expected a list of whole numbers from 0, found {seeds!r}")
        seeds = [0]
    elif len(set(seeds)) != len(seeds):
        wrong.append(f"seeds: expected each once, found {seeds!r}")
    if folds is not None and not _is_count(folds, 2):
        wrong.append(f"folds: expected a whole number from 2, found {folds!r}")
        folds = None
    if folds is not None and "seeds" in table:
        wrong.append("folds: expected either seeds or folds, found both")
    return tuple(seeds), folds


def _published(given: Any, metric: str, where: str, wrong: list[str]) -> Published | None:
    """A published figure; its metric is the study's unless it names another."""
    if given is None:
        return None
    if not isinstance(given, Mapping):
        wrong.append(f"{where}: published: expected a table with a value, found {given!r}")
        return None
    _refuse_unknown(given, PUBLISHED_KEYS, f"{where}: published", wrong)
    value, split = given.get("value"), given.get("split", "test")
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
        wrong.append(f"{where}: published: expected a value from 0 to 1, found {value!r}")
        return None
    if split not in ("train", "val", "test"):
        wrong.append(f"{where}: published: expected a split of train, val and test, found {split!r}")
        return None
    return Published(float(value), str(given.get("metric", metric)), split, str(given.get("note", "")))


def _refuse_twins(rows: Sequence[Experiment], with_recipes: bool, wrong: list[str]) -> None:
    """Rows of one label are refused, and, as the file stands, rows that would be trained alike."""
    labels: dict[str, int] = {}
    same: dict[str, str] = {}
    for number, row in enumerate(rows, 1):
        if row.label in labels:
            wrong.append(f"row {number}: has the label of row {labels[row.label]}, {row.label!r}")
        labels.setdefault(row.label, number)
        what = row.recipe.table() if row.recipe else dict(row.options)
        key = hash_json([sorted(what.items()), row.images.record()])
        if with_recipes and key in same:
            wrong.append(f"row {number} ({row.label}): is the same experiment as {same[key]!r}")
        same.setdefault(key, row.label)


def _edges(table: Mapping[str, Any], search: Search | None) -> dict[str, tuple[float, ...]]:
    """The numbers that each option of a grid or a search goes through, where they are more than two."""
    found: dict[str, set[float]] = {}
    grids = table.get("grid", [])
    for grid in grids if isinstance(grids, list) else [grids]:
        for part in (grid, *grid.get("paired", [])):
            for name, values in part.items():
                if name not in GRID_KEYS and all(_is_plain_number(value) for value in values):
                    found.setdefault(name, set()).update(values)
    for name, axis in (search.space if search else {}).items():
        if all(_is_plain_number(value) for value in axis.ends):
            found.setdefault(name, set()).update(axis.ends)
    ranges = {name for name, axis in (search.space if search else dict[str, Axis]()).items() if not axis.values}
    return {name: tuple(sorted(values)) for name, values in found.items() if len(values) > 2 or name in ranges}


def _label(options: Mapping[str, Any]) -> str:
    """Options in a few words."""
    return ", ".join(f"{name.replace('_', ' ')} {_shown(value)}" for name, value in options.items())


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "/".join(map(_shown, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _refuse_unknown(table: Mapping[str, Any], known: Sequence[str], where: str, wrong: list[str]) -> None:
    lead = f"{where}: " if where else ""
    wrong += [f"{lead}there is no {key!r}. {did_you_mean(key, known)}" for key in table if key not in known]


def _text(table: Mapping[str, Any], key: str, wrong: list[str]) -> str:
    value = table.get(key, "")
    if not isinstance(value, str):
        wrong.append(f"{key}: expected text, found {value!r}")
        return ""
    return value


def _table(table: Mapping[str, Any], key: str, wrong: list[str]) -> Mapping[str, Any]:
    value = table.get(key, {})
    if not isinstance(value, Mapping):
        wrong.append(f"{key}: expected a table, found {value!r}")
        return {}
    return value


def _tables(table: Mapping[str, Any], key: str, wrong: list[str]) -> list[Mapping[str, Any]]:
    value = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(part, Mapping) for part in value):
        wrong.append(f"{key}: expected tables, each under [[{key}]], found {value!r}")
        return []
    return value


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_plain_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _mistakes(where: str, lines: Sequence[str]) -> StudyError:
    count = "1 mistake" if len(lines) == 1 else f"{len(lines)} mistakes"
    told = "; ".join(line.rstrip(".") for line in lines)
    return StudyError(f"{where} has {count}: {told}.", "studies/ holds examples; `budwood train --help` lists options.")
