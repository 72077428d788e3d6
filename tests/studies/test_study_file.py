"""Study files: rows, grids and searches are read; every mistake is told at once, with its place."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from budwood.comparison.document import Claim
from budwood.comparison.published import Published
from budwood.config.toml_lines import Place, find_line, find_lines
from budwood.data.splits import assign_folds, stratified_sample
from budwood.errors import StudyError
from budwood.storage.context import open_context
from budwood.studies.search_space import RangeAxis, default_space, list_grid_points
from budwood.studies.study import Overrides, Study, with_seed
from budwood.studies.study_file import load_study, make_tuning_study, parse_study
from budwood.studies.training_job import DatasetCache
from conftest import fill

ROOT = Path(__file__).parents[2] / "studies"
BASE: dict[str, Any] = {"name": "small", "data": "photos", "base": {"optimizer": "adam", "epochs": 3}}
TWO = [{"label": "slow", "lr": 0.001}, {"label": "fast", "lr": 0.1}]


def _study(overrides: Overrides | None = None, **table: Any) -> Study:
    return parse_study({**BASE, **table}, "small.toml", "", overrides)


def _refused(**table: Any) -> str:
    with pytest.raises(StudyError) as refused:
        _study(**table)
    return refused.value.message


def test_rows_are_recipes_over_the_base() -> None:
    made = _study(rows=[*TWO, {"optimizer": "sgd", "val": 0.5, "exclude": ["sky"], "images": 40}])
    assert [row.label for row in made.rows] == ["slow", "fast", "optimizer sgd, val 0.5, exclude sky, images 40"]
    recipes = [row.recipe for row in made.rows]
    assert all(recipe and recipe.epochs == 3 for recipe in recipes)
    assert [recipe.optimizer for recipe in recipes if recipe] == ["adam", "adam", "sgd"]
    last = made.rows[2].images
    assert (last.data, last.val, last.exclude, last.images) == ("photos", 0.5, ("sky",), 40)
    assert (made.seeds, made.folds, made.metric, made.title) == ((0,), None, "accuracy", "small")


def test_a_published_figure_has_its_metric_and_split() -> None:
    published = {"value": 0.916, "split": "val", "note": "about"}
    made = _study(metric="macro_f1", rows=[{**TWO[0], "published": published}, TWO[1]])
    figure = made.rows[0].published
    assert figure
    assert figure == Published(val=0.916, metric="macro_f1", note="about")
    assert made.rows[1].published is None


def test_a_claim_names_two_rows() -> None:
    made = _study(rows=TWO, claims=[{"says": "faster is better", "better": "fast", "than": "slow", "margin": 0.02}])
    assert made.claims == (Claim("faster is better", "fast", "slow", 0.02),)


def test_what_a_grid_point_leaves_nothing_to_act_on_is_left_out_there() -> None:
    made = _study(grid={"fill": ["black"], "views": [2], "flip": [0.0, 0.5], "rotation": [0, 20]})
    told = {row.label: {name: row.options.get(name) for name in ("fill", "views")} for row in made.rows}
    assert told == {
        "flip 0, rotation 0": {"fill": None, "views": None},
        "flip 0, rotation 20": {"fill": "black", "views": 2},
        "flip 0.5, rotation 0": {"fill": None, "views": 2},
        "flip 0.5, rotation 20": {"fill": "black", "views": 2},
    }


def test_a_row_has_several_published_figures() -> None:
    published = {
        "train": 0.9706,
        "val": 0.8064,
        "test": [0.28, 0.30],
        "train_loss": 0.0001,
        "val_loss": 1.7,
        "test_loss": 3,
        "time": "6m4s",
        "parameters": 5_000_000,
        "note": "Table 2",
    }
    rows = [{**TWO[0], "published": published}, {**TWO[1], "published": {"time": 90, "machine": "a CPU"}}]
    made = _study(source_machine="a Colab GPU", rows=rows)
    assert made.rows[0].published == Published(
        train=0.9706,
        val=0.8064,
        test=(0.28, 0.3),
        train_loss=0.0001,
        val_loss=1.7,
        test_loss=3.0,
        seconds=364.0,
        machine="a Colab GPU",
        parameters=5_000_000,
        note="Table 2",
    )
    assert made.rows[1].published == Published(seconds=90.0, machine="a CPU")
    losses = _study(rows=[{**TWO[0], "published": {"metric": "log_loss", "test": 1.5}}, TWO[1]])
    assert losses.rows[0].published == Published(test=1.5, metric="log_loss")


def test_grids_and_searches_have_several_published_figures_too() -> None:
    grid = {"lr": [0.1, 0.01], "published": [{"where": {"lr": 0.1}, "val": 0.5, "test": 0.6}]}
    search = {
        "space": {"lr": [0.1, 0.01]},
        "best": {"val": 0.9, "train": 0.99},
        "worst": {"value": 0.2, "split": "val"},
    }
    made = _study(grid=grid, search=search)
    assert [row.published for row in made.rows] == [Published(val=0.5, test=0.6), None]
    assert made.search
    assert made.search.best == Published(train=0.99, val=0.9)
    assert made.search.worst == Published(val=0.2)


def test_what_was_assumed_what_readers_must_know_and_what_stands_in() -> None:
    rows = [TWO[0], {**TWO[1], "stand_in": "ResNet-18 for VGG-16"}, {"label": "plain", "lr": 0.5, "stand_in": ""}]
    grid = [{"label": "a", "batch": [8, 16]}, {"label": "b", "batch": [32], "stand_in": "C for D"}]
    made = _study(
        source="A report",
        assumed={"momentum": "0.9, the usual value", "step size": "20 epochs"},
        caveats=["Test images may have been used for training."],
        base={"stand_in": "A for B"},
        rows=rows,
        grid=grid,
        search={"space": {"lr": [0.1, 0.01]}},
    )
    assert list(made.assumed) == ["momentum", "step size"]
    assert made.caveats == ("Test images may have been used for training.",)
    assert [row.stand_in for row in made.rows] == [
        "A for B",
        "ResNet-18 for VGG-16",
        "",
        "A for B",
        "A for B",
        "C for D",
    ]
    assert made.search
    assert made.search.stand_in == "A for B"


def test_a_grid_is_the_product_of_its_lists_with_paired_ones_together() -> None:
    grid = {
        "lr": [0.1, 0.01, 0.001],
        "paired": [{"epochs": [10, 20], "batch": [16, 32]}],
        "published": [{"where": {"lr": 0.01, "epochs": 20}, "value": 0.9}],
    }
    made = _study(grid=grid)
    found = [(row.recipe.lr, row.recipe.epochs, row.recipe.batch) for row in made.rows if row.recipe]
    assert found == [(lr, e, b) for lr in (0.1, 0.01, 0.001) for e, b in ((10, 16), (20, 32))]
    assert made.rows[3].label == "lr 0.01, epochs 20, batch 32"
    assert [row.label for row in made.rows if row.published] == ["lr 0.01, epochs 20, batch 32"]
    assert made.edges == {"lr": (0.001, 0.01, 0.1)}
    assert {row.varied for row in made.rows if "lr" in row.label} == {True}


def test_every_mistake_is_told_at_once_with_its_place() -> None:
    message = _refused(
        name="has spaces",
        metric="acuracy",
        seeds=[0, 0],
        rows=[
            {"label": "one", "lr": -1.0},
            {"label": "two", "optimiser": "adam"},
            {"label": "two", "val": 3, "published": {"value": 91}},
            {"label": "three", "momentum": 1.2, "optimizer": "sgd", "refused": "lr"},
            {"label": "four", "seed": 3},
        ],
        grid={"lr": 0.1, "paired": [{"epochs": [1, 2], "batch": [8]}]},
        colour="blue",
    )
    assert message.startswith("small.toml has ")
    for part in (
        "colour: unknown key. Valid: assumed, base,",
        "name: expected letters, digits, '.', '_' and '-', found 'has spaces'",
        "metric: found 'acuracy'. Did you mean 'accuracy'?",
        "seeds: expected each once, found [0, 0]",
        "rows 1 (one): lr: ",
        "rows 2 (two): optimiser: unknown key. Did you mean 'optimizer'?",
        "rows 3 (two): val: expected a share between 0 and 1, found 3",
        "rows 3 (two): published.value: expected a value from 0 to 1, or [low, high], found 91",
        "rows 4 (three): momentum: expected under 1",
        "rows 5 (four): seed: write `seeds = [0, 1, 2]` once for all rows of the study",
        "grid: lr: expected a list of values, found 0.1",
        "grid: paired 1: lists that vary together must have the same length, found epochs 2, batch 1",
    ):
        assert part in message, message


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "contains no [[rows]], no [grid] and no [search]"),
        ({"rows": [*TWO, {"label": "again", "lr": 0.1}]}, "rows 3 (again): is the same experiment as 'fast'"),
        ({"rows": [*TWO, {"label": "fast", "lr": 0.2}]}, "rows 3 (fast): has the label of an earlier row, 'fast'"),
        ({"rows": TWO, "grid": {"lr": [0.1, 0.2]}}, "grid: is the same experiment as 'fast' (lr 0.1)"),
        (
            {"rows": TWO, "claims": [{"says": "faster", "better": "fats", "than": "slow"}]},
            "claims: better: there is no row 'fats'. Did you mean 'fast'?",
        ),
        (
            {"rows": TWO, "claims": [{"says": "faster", "better": "fast", "than": "fast"}]},
            "claims: than: expected another row than `better`",
        ),
        (
            {"rows": TWO, "claims": [{"says": "cheap", "better": "fast", "than": "slow", "margin": -1}]},
            "claims: margin: expected a number from 0, under 1, found -1",
        ),
        ({"grid": {"fill": ["black"], "lr": [0.1, 0.2]}}, "fill: expected one of"),
        ({"rows": TWO, "folds": 3, "seeds": [0]}, "folds: expected either seeds or folds, found both"),
        ({"rows": TWO, "folds": 1}, "folds: expected a whole number from 2, found 1"),
        ({"rows": TWO, "quick": {"images": 0}}, "quick: images: expected a whole number from 2, found 0"),
        ({"rows": {"label": "x"}}, "rows: expected tables, each under [[rows]]"),
        ({"rows": TWO, "base": 3}, "base: expected a table, found 3"),
        ({"rows": [{"lr": 0.1, "refused": "lr"}]}, "refused: lr is valid here, so remove `refused` to train the row"),
        ({"rows": [{"lr": 0.1, "published": 0.9}]}, "published: expected a table of figures, found 0.9"),
        (
            {"rows": [{"lr": 0.1, "published": {"value": 0.9, "split": "dev"}}]},
            "published.split: found 'dev'. Valid: test, train, val",
        ),
        (
            {"rows": [{"lr": 0.1, "published": {"test": [0.9, 0.8]}}]},
            "published.test: expected a value from 0 to 1, or [low, high], found [0.9, 0.8]",
        ),
        (
            {"rows": [{"lr": 0.1, "published": {"train_loss": -1}}]},
            "published.train_loss: expected a number from 0, or [low, high], found -1",
        ),
        (
            {"rows": [{"lr": 0.1, "published": {"time": "soon"}}]},
            "published.time: expected a duration such as 6m4s, found 'soon'",
        ),
        (
            {"rows": [{"lr": 0.1, "published": {"test": 0.5, "split": "val"}}]},
            "published: expected `value` beside `split`, or figures by their split: train, val, test",
        ),
        (
            {"rows": [{"lr": 0.1, "published": {"test": 0.5, "value": 0.6}}]},
            "published: tells the test figure twice, as `value` and as `test`",
        ),
        ({"rows": [{"lr": 0.1, "published": {"tset": 0.5}}]}, "published.tset: unknown key. Did you mean 'test'?"),
        ({"rows": TWO, "assumed": {"momentum": 0.9}}, "assumed: momentum: expected texts, such as"),
        ({"rows": TWO, "caveats": "none"}, "caveats: expected a list of sentences, found 'none'"),
        ({"rows": [{"lr": 0.1, "stand_in": 3}]}, "stand_in: expected text, such as 'ResNet-18 for VGG-16', found 3"),
        ({"grid": {}}, "grid: contains no list of values"),
        ({"grid": {"lr": [0.1], "published": [{"where": {"lr": 3}, "value": 0.5}]}}, "describes 0 rows, expected one"),
        (
            {"grid": {"lr": [0.1], "published": [{"value": 0.5}]}},
            "grid: published 1.where: is missing, expected a table of options of the grid",
        ),
        (
            {"grid": {"lr": [0.1, 0.2], "published": [{"where": {"lr": 0.1}, "val": 0.5}] * 2}},
            "published 2: where {'lr': 0.1} describes a row that has published figures already",
        ),
        (
            {"rows": [{"lr": 0.1, "published": {"metric": "acuracy", "val": 0.5}}]},
            "published.metric: found 'acuracy'. Did you mean 'accuracy'?",
        ),
        (
            {"rows": [{"lr": 0.1, "published": {"metric": "log_loss", "val": 0.5, "val_loss": 0.6}}]},
            "published: tells the val loss twice, as `val` and as `val_loss`",
        ),
        (
            {"rows": [{"lr": 0.1, "published": {"val_loss": float("inf")}}]},
            "1 mistake: rows: published.val_loss: expected a number from 0, or [low, high], found inf",
        ),
        (
            {"rows": [{"lr": 0.1, "published": {"time": float("nan")}}]},
            "1 mistake: rows: published.time: expected a duration such as 6m4s, found nan",
        ),
        (
            {
                "rows": [{"lr": 0.1, "label": "trial 1"}],
                "search": {"sampler": "random", "space": {"lr": [0.2, 0.3]}},
            },
            "'trial 1' is the label of a trial of the search, expected another",
        ),
        ({"search": {"space": {"lrr": [1]}}}, "search: space.lrr: unknown option. Did you mean 'lr'?"),
        (
            {"search": {"sampler": "cma", "space": {"lr": [0.1]}}},
            "search: sampler: found 'cma'. Valid: grid, random, tpe",
        ),
        ({"search": {"trials": 0, "space": {"lr": [0.1]}}}, "search: trials: expected a whole number from 1, found 0"),
        ({"search": {"space": {"lr": {"low": 1, "high": 0}}}}, "search: space.lr: expected low < high"),
        (
            {"search": {"space": {"lr": {"low": 1, "hi": 2}}}},
            "search: space.lr.hi: unknown key. Did you mean 'high'?",
        ),
        (
            {"search": {"space": {"lr": 3}}},
            "search: space.lr: expected for each option a list of values, or {low, high, log, step}",
        ),
        ({"search": {"space": {"momentum": [0.5, 0.9], "lr": [0.1]}}}, "momentum: optimizer 'adam' does not use it"),
        (
            {"search": {"space": {"lr": [0.1], "batch": {"low": 8, "high": 64, "when": {"seed": [1]}}}}},
            "`when` names 'seed'",
        ),
        ({"search": {"sampler": "grid", "space": {"lr": {"low": 0.1, "high": 0.2}}}}, "the sampler grid needs a list"),
        ({"search": {"space": {}}}, "search: space: expected at least one option"),
        ({"search": {"seed": -1, "space": {"lr": [0.1]}}}, "search: seed: expected a whole number from 0, found -1"),
        ({"search": {"space": {"lr": []}}}, "search: space.lr.values: expected a list of values, found []"),
        ({"search": {"space": {"lr": {"low": 0.1, "high": float("inf")}}}}, "lr.high: expected a number, found inf"),
        (
            {"search": {"space": {"lr": [0.1]}, "best": {}}},
            "search: best: tells nothing, expected one or more of",
        ),
        ({"grid": [{"lr": [0.1]}, {"colour": [1]}]}, "grid 2: colour: unknown key"),
        ({"grid": {"lr": [0.1], "images": [1, 40]}}, "grid: images: expected a whole number from 2, found 1"),
        ({"rows": TWO, "options": {"lr": 0.1}}, "options: unknown key. Valid: assumed, base,"),
        ({"rows": TWO, "base": {"optimizer": "adam", "momentum": 0.9}}, "base: momentum: optimizer 'adam' does not"),
        ({"rows": TWO, "name": ""}, "name: expected letters, digits, '.', '_' and '-', found ''"),
    ],
)
def test_a_mistake_has_its_message(table: dict[str, Any], message: str) -> None:
    assert message in _refused(**table)


FAULTY = """\
name = "faulty"  # line 1
metric = "acuracy"
seeds = [
  0,
  -1,
]
folds = 1

[base]
optimizer = "adam"
epochs = 3
corrections = 3

# a comment
[[rows]]
label = "one"
note = \'\'\'
lr = 0.1
\'\'\'
dropout = 2

[[rows]]
label = "two"
val = 3
optimiser = "sgd"
[rows.published]
value = 91

[grid]
lr = 0.1
[[grid.paired]]
epochs = [1, 2]
batch = [8]

[search.space]
batch = { low = 8, hi = 64 }

[quick]
images = true
"""


def test_mistakes_of_every_kind_have_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "faulty.toml"
    file.write_text(FAULTY)
    with pytest.raises(StudyError) as refused:
        load_study(file)
    head, *lines = refused.value.message.splitlines()
    assert head == f"{file} has 14 mistakes:"
    expected = (
        "  line 2: metric: found 'acuracy'. Did you mean 'accuracy'? Valid:",
        "  line 3: seeds 2: expected a list of whole numbers from 0, found -1",
        "  line 7: folds: expected a whole number from 2, found 1",
        "  line 12: base: corrections: expected a list of files, found 3",
        "  line 17: rows 1 (one): note: unknown key.",
        "  line 20: rows 1 (one): dropout: ",
        "  line 24: rows 2 (two): val: expected a share between 0 and 1, found 3",
        "  line 25: rows 2 (two): optimiser: unknown key. Did you mean 'optimizer'?",
        "  line 27: rows 2 (two): published.value: expected a value from 0 to 1, or [low, high], found 91",
        "  line 30: grid: lr: expected a list of values, found 0.1",
        "  line 31: grid: paired 1: lists that vary together must have the same length, found epochs 2, batch 1",
        "  line 36: search: space.batch.high: is missing, expected a number",
        "  line 36: search: space.batch.hi: unknown key. Did you mean 'high'?",
        "  line 39: quick: images: expected a whole number from 2, found True",
    )
    for line, start in zip(lines, expected, strict=True):
        assert line.startswith(start), line


def test_what_a_base_or_a_setting_makes_wrong_is_told_once(tmp_path: Path) -> None:
    file = tmp_path / "base.toml"
    rows = "".join(f'[[rows]]\nlabel = "{n}"\nbatch = {n}\n' for n in range(1, 9))
    file.write_text(f'name = "base"\n[base]\noptimizer = "adam"\nmomentum = 0.9\n{rows}')
    with pytest.raises(StudyError, match=r"has 1 mistake: line 4: base: momentum: optimizer 'adam' .* \(1\)\.$"):
        load_study(file)
    file.write_text(f'name = "base"\n[base]\noptimizer = "adam"\n{rows}')
    with pytest.raises(StudyError, match=r"has 1 mistake: settings: momentum: optimizer 'adam' does not use it"):
        load_study(file, Overrides(settings={"momentum": 0.9}))
    with pytest.raises(StudyError, match=r"settings: optimiser: unknown option\. Did you mean 'optimizer'\?"):
        load_study(file, Overrides(settings={"optimiser": "sgd"}))


def test_the_lines_of_a_toml_text() -> None:
    text = '# c\na = 1\n"b c" = [\n 1, # ]\n]\n[t]\nx.y = """\nz = 1\n"""\n[[r]]\n[[r]]\nk = {m = 2}\n[r.s]\nn = 1\n'
    lines = find_lines(text)
    places: dict[Place, int] = {
        ("a",): 2,
        ("b c", 0): 3,
        ("t", "x", "y"): 7,
        ("r", 0, "k"): 10,
        ("r", 1, "k", "m"): 12,
        ("r", 1, "s", "n"): 14,
        ("r", 1, "nowhere"): 11,
        ("t", 0, "x"): 7,
    }
    assert {place: find_line(place, lines) for place in places} == places
    assert find_line(("z",), lines) is None
    assert find_lines("") == {}


def test_quick_shortens_phases_that_are_written_as_text() -> None:
    phases = "[{freeze='trunk', epochs=5, lr=1e-3}, {freeze='none', epochs=9, lr=1e-4}]"
    made = _study(Overrides(quick=True), base={"optimizer": "adam"}, quick={"epochs": 2}, rows=[{"phases": phases}])
    recipe = made.rows[0].recipe
    assert recipe
    assert [phase.epochs for phase in recipe.phases or ()] == [2, 2]


def test_the_text_of_a_tuning_study_makes_the_same_study() -> None:
    made = make_tuning_study("photos", {"fc": [16], "model": "mlp", "decay_norms": False}, trials=5)
    again = parse_study(tomllib.loads(made.text), "study.toml", made.text)
    assert again == made


def test_mistakes_of_a_tuning_study_have_no_lines() -> None:
    with pytest.raises(StudyError, match="tune has 1 mistake: base: decay: optimizer 'sgd' does not use it"):
        make_tuning_study("photos", {"model": "mlp", "optimizer": "sgd", "decay": "decoupled"})


def test_a_file_that_is_missing_or_no_toml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"nowhere\.toml: no such study file"):
        load_study(tmp_path / "nowhere.toml")
    (tmp_path / "bad.toml").write_text("name = ")
    with pytest.raises(StudyError, match=r"bad\.toml: cannot be read as TOML"):
        load_study(tmp_path / "bad.toml")


def test_a_refused_row_has_no_recipe_but_its_reason() -> None:
    rows = [*TWO, {"label": "wild", "optimizer": "sgd", "momentum": 1.2, "refused": "momentum"}]
    wild = _study(rows=rows).rows[2]
    assert wild.recipe is None
    assert wild.refused == "momentum: expected under 1, or the steps grow without bound, found 1.2"


def test_quick_limits_and_settings_go_over_every_row() -> None:
    phases = [{"freeze": "trunk", "epochs": 5, "lr": 0.001}, {"freeze": "none", "epochs": 1, "lr": 0.0001}]
    table = {
        "base": {"optimizer": "adam"},
        "quick": {"epochs": 2, "images": 40, "size": 32, "points": 2},
        "rows": [{"label": "long", "epochs": 9}, {"label": "phases", "phases": phases}, {"label": "own", "images": 10}],
        "grid": {"lr": [0.1, 0.2, 0.3, 0.4, 0.5]},
    }
    made = _study(Overrides(quick=True, settings={"batch": 8}, places={"": "elsewhere"}), **table)
    long, in_phases, own = (row.recipe for row in made.rows[:3])
    assert long
    assert in_phases
    assert own
    assert (long.epochs, long.size, long.batch) == (2, 32, 8)
    assert [phase.epochs for phase in in_phases.phases or ()] == [2, 1]
    assert own.epochs == 2
    assert [row.images.images for row in made.rows[:3]] == [40, 40, 10]
    assert {(row.images.held_out, row.images.data) for row in made.rows} == {(40, "elsewhere")}
    assert [row.label for row in made.rows[3:]] == ["lr 0.1", "lr 0.5"]
    assert made.changed == {"epochs": 2, "images": 40, "size": 32, "points": 2, "batch": 8}
    with pytest.raises(StudyError, match="batch: input should be greater"):
        _study(Overrides(settings={"batch": 0}), **table)


def test_rows_that_become_alike_are_allowed_once_something_is_put_over_them() -> None:
    made = _study(Overrides(settings={"lr": 0.5}), rows=TWO)
    assert made.rows[0].recipe == made.rows[1].recipe


def test_a_seed_matters_only_where_something_is_left_to_chance() -> None:
    made = _study(base={}, rows=[{"label": "solved", "regularisation": 0.1}, {"label": "steps", "optimizer": "adam"}])
    solved, steps = (row.recipe for row in made.rows)
    assert solved
    assert steps
    assert with_seed(solved, 3) == solved
    assert with_seed(steps, 3).seed == 3


def test_a_space_draws_options_only_where_they_apply() -> None:
    space = {
        "momentum": {"low": 0.5, "high": 0.9, "step": 0.2, "when": {"optimizer": ["sgd"]}},
        "optimizer": ["adam", "sgd"],
    }
    search = _study(search={"sampler": "grid", "space": space}).search
    assert search
    assert list(search.space) == ["optimizer", "momentum"]
    points = list_grid_points(search.space)
    assert points[0] == {"optimizer": "adam"}
    assert [round(point["momentum"], 3) for point in points[1:]] == [0.5, 0.7, 0.9]


@pytest.mark.parametrize(
    "options",
    [{}, {"optimizer": "sgd"}, {"freeze": "none"}, {"weights": "none", "model": "resnet18"}, {"lr": 0.1, "batch": 8}],
)
def test_the_default_space_makes_recipes_and_leaves_out_what_is_given(options: dict[str, Any]) -> None:
    assert not set(default_space(options)) & set(options)
    made = make_tuning_study("photos", options, trials=5)
    assert made.search
    assert made.search.trials == 5
    assert [row.label for row in made.rows] == ["as given"]
    again = make_tuning_study("photos", options, trials=50)
    assert again.name == made.name, "more trials go on with the same study"


# Rows, and rows and trials of which the source tells something, of each of the five studies; test_sources.py has more.
COMPLETE = {
    "study1_caltech101": (29, 25),
    "study2_cifar10_vgg": (24, 10),
    "study3_cifar100": (16, 16),
    "study4_cifar10_resnet18": (8, 5),
    "study5_scenes": (148, 20),
}


@pytest.mark.parametrize("name", sorted(path.stem for path in ROOT.glob("*.toml")))
def test_the_studies_are_complete(name: str) -> None:
    made = load_study(ROOT / f"{name}.toml")
    figures = [row.published for row in made.rows]
    figures += [made.search.best, made.search.worst] if made.search else []
    if name in COMPLETE:
        assert (len(made.rows), sum(figure is not None for figure in figures)) == COMPLETE[name]
    assert made.name == name
    assert all((made.source, made.assumed, made.caveats, made.claims))
    quick = load_study(ROOT / f"{name}.toml", Overrides(quick=True))
    assert all(row.images.images and row.images.images <= 2000 for row in quick.rows)
    assert all((row.recipe.epochs or 0) <= 4 for row in quick.rows if row.recipe)
    published = {row.label for row in made.rows if row.published}
    assert published == {row.label for row in quick.rows if row.published}, "what is published stays"


def test_a_momentum_of_1_or_more_is_refused_and_the_search_spans_what_the_source_tells() -> None:
    made = load_study(ROOT / "study2_cifar10_vgg.toml")
    assert [row.label.split()[-1] for row in made.rows if row.refused] == ["1.0", "1.1", "1.2"]
    search = load_study(ROOT / "study5_scenes.toml").search
    assert search
    assert search.trials == 30
    space = search.space
    assert isinstance(space["weight_decay"], RangeAxis)
    assert (space["weight_decay"].low, space["weight_decay"].high) == (1e-5, 0.3)
    assert {"adamax", "sgd"} <= {*space["optimizer"].ends}
    assert space["batch"].ends == (10, 64, 128)


def test_folds_keep_clusters_together_and_classes_even() -> None:
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(3, dtype=np.int32), [120, 60, 25])
    ids = [f"{number:032x}" for number in random.permutation(len(labels))]
    cluster = np.arange(len(labels))
    cluster[1::10] = cluster[0::10][: len(cluster[1::10])]  # every tenth image has a copy
    folds = assign_folds(ids, labels, [""] * len(ids), cluster, 5)
    for name in np.unique(cluster):
        assert len(set(folds[cluster == name].tolist())) == 1
    for label in range(3):
        counts = np.bincount(folds[labels == label], minlength=5)
        assert counts.max() - counts.min() <= 2, counts
    order = random.permutation(len(ids))
    again = assign_folds([ids[row] for row in order], labels[order], [""] * len(ids), cluster[order], 5)
    together = {tuple(sorted(np.flatnonzero(folds == fold).tolist())) for fold in range(5)}
    assert {tuple(sorted(order[again == fold].tolist())) for fold in range(5)} == together


def test_a_sample_is_stratified_and_grows_by_content() -> None:
    labels = np.repeat(np.arange(3, dtype=np.int32), [80, 16, 4])
    ids = [f"{number * 7919 % 100003:032x}" for number in range(100)]
    half = stratified_sample(ids, labels, 50)
    assert np.bincount(labels[half]).tolist() == [40, 8, 2]
    assert np.bincount(labels[stratified_sample(ids, labels, 10)]).tolist() == [8, 1, 1]
    assert np.bincount(labels[stratified_sample(ids, labels, 3)]).tolist() == [1, 1, 1]
    assert stratified_sample(ids, labels, 2).sum() == 2
    assert stratified_sample(ids, labels, 1000).all()
    assert not (stratified_sample(ids, labels, 25) & ~half).any()
    turned = np.arange(100)[::-1]
    assert (stratified_sample([ids[row] for row in turned], labels[turned], 50) == half[turned]).all()


@pytest.mark.parametrize(
    ("base", "told"),
    [
        ("momentum = 0.9", "base: momentum: optimizer 'adam' does not use it; it is an option of sgd and rmsprop (1)"),
        ("optimzer = 3", "base: optimzer: unknown key. Did you mean 'optimizer'?"),
    ],
)
def test_a_wrong_option_of_the_base_is_said_once(base: str, told: str, tmp_path: Path) -> None:
    rows = [f'[[rows]]\nlabel = "{n}"\noptimizer = "{name}"\n' for n, name in enumerate(("adam", "adamw", "nadam"), 1)]
    file = tmp_path / "s.toml"
    file.write_text(f'name = "s"\ndata = "photos"\n[base]\n{base}\n' + "".join(rows))
    with pytest.raises(StudyError) as caught:
        load_study(file)
    assert caught.value.message.startswith(f"{file} has 1 mistake: line 4: {told}")
    assert len(caught.value.message) < len(str(file)) + 150


def test_data_are_read_as_the_base_or_a_row_says(tmp_path: Path) -> None:
    for name in ("plant/daisy", "plant/rose", "tree/oak"):
        fill(tmp_path / "photos" / name, 6, first=len(name) * 10)
    data = str(tmp_path / "photos")
    made = _study(
        data=data, base={**BASE["base"], "label_from": "path"}, rows=[*TWO, {"label": "top", "label_from": "top"}]
    )
    datasets = DatasetCache(open_context(tmp_path / "cache"))
    classes = [datasets.load(row.images).data.classes for row in made.rows]
    assert classes == [("plant/daisy", "plant/rose", "tree/oak")] * 2 + [("plant", "tree")]
    assert made.rows[0].images.record() == {"data": data, "label_from": "path"}
    told = _refused(base={"label_from": "deep", "spelling": "loose", "split_folders": "on", "label_separator": ""})
    for expected in (
        "label_from: found 'deep'. Valid: parent, path, top",
        "spelling: found 'loose'",
        "split_folders: found 'on'",
    ):
        assert expected in told
    assert "label_separator: expected a separator, 'space' or 'none', found ''" in told
