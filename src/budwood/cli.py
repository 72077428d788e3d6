"""The command line: one thin command a stage.

Results go to stdout, everything that is said on the way to stderr. Exit code 0: done; 2: the user's input is at fault;
1: Budwood is; 130: interrupted.
"""

from __future__ import annotations

import datetime
import json
import sys
import time
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import click

from budwood.errors import BudwoodError

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from budwood.dataset import Dataset
    from budwood.hygiene import Finding
    from budwood.plan import Plan
    from budwood.progress import Progress
    from budwood.recipe import Recipe
    from budwood.rehearsal import Rehearsal
    from budwood.runs import Run

Command = TypeVar("Command", bound=Callable[..., Any])


class RecipeCommand(click.Command):
    """A command with one flag per recipe option; they are generated when it is called, not when Budwood starts."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The command's own parameters, then the recipe's."""
        return [*super().get_params(ctx), *_recipe_flags()]


class SurgeryCommand(click.Command):
    """A command with one flag per recipe option that decides how a network is built."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The command's own parameters, then those of surgery."""
        return [*super().get_params(ctx), *_recipe_flags(of_surgery=True)]


class TuneCommand(RecipeCommand):
    """A command with the recipe's flags, whose --time is its own."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The command's own parameters, then the recipe's but for those that it has itself."""
        own = {parameter.name for parameter in self.params}
        return [p for p in super().get_params(ctx) if p in self.params or p.name not in own]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="budwood")
def app() -> None:
    """Turn a folder of labelled images into a classifier, and into the evidence that it is the right one."""


def _common(command: Command) -> Command:
    command = click.option("--debug", is_flag=True, help="Show the traceback of an error.")(command)
    return click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")(command)


def _out(command: Command) -> Command:
    option = click.option("--out", type=click.Path(path_type=Path), default="runs", show_default=True)
    return option(command)


def _data(command: Command) -> Command:
    share = click.FloatRange(0, 1, min_open=True, max_open=True)
    command = click.option("--exclude", multiple=True, metavar="CLASS", help="Leave a class out; may be repeated.")(
        command
    )
    command = click.option("--test", type=share, help="Share that is sealed, if no split is given. [0.2]")(command)
    command = click.option("--val", type=share, help="Share of the rest that validates, if none is given. [0.2]")(
        command
    )
    return click.argument("data", metavar="DATA")(command)


def _recipe_sources(command: Command) -> Command:
    settings = click.option(
        "-s", "settings", multiple=True, metavar="KEY=VALUE", help="Set a recipe option; may be repeated."
    )
    file = click.option("--recipe", "file", type=click.Path(path_type=Path), help="TOML file with recipe options.")
    return file(settings(command))


def main() -> None:
    """Run the command line and exit with its code."""
    arguments = sys.argv[1:] or ["--help"]
    sys.exit(run(arguments, as_json="--json" in arguments, debug="--debug" in arguments))


def run(arguments: Sequence[str], *, as_json: bool = False, debug: bool = False) -> int:
    """Carry out one command line and return its exit code; no exception but a debugged one leaves."""
    try:
        code = app(list(arguments), prog_name="budwood", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except BudwoodError as error:
        if debug:
            raise
        return _fail(error.code, error.message, error.hint, 2, as_json)
    except click.UsageError as error:
        hint = f"`{error.ctx.command_path} --help` lists what there is." if error.ctx else ""
        return _fail("usage", error.format_message(), hint, 2, as_json)
    except (KeyboardInterrupt, click.Abort):
        return _fail("interrupted", "Interrupted. Nothing half-written was left behind.", "", 130, as_json)
    except Exception as error:
        if debug:
            raise
        hint = "This is a mistake of Budwood's, not yours. Repeat the command with --debug and report what it prints."
        return _fail("internal", f"{type(error).__name__}: {error}", hint, 1, as_json)


def _fail(code: str, message: str, hint: str, exit_code: int, as_json: bool) -> int:
    if as_json:
        _print_json({"error": {"code": code, "message": message, "hint": hint}})
    else:
        print(f"budwood: {message}" + (f"\n  {hint}" if hint else ""), file=sys.stderr)
    return exit_code


def _recipe_flags(of_surgery: bool = False) -> list[click.Parameter]:
    from budwood.recipe import DURATION, SURGERY, Recipe

    return [
        click.Option(
            [f"--{name.replace('_', '-')}", name],
            type=str if name == DURATION else _flag_type(field.annotation),
            help=_help(field),
        )
        for name, field in Recipe.model_fields.items()
        if not of_surgery or name in SURGERY
    ]


def _flag_type(annotation: Any) -> type:
    """The type that the command line parses: a number, or str, so that the recipe names every mistake at once."""
    kinds = {kind for part in _parts(annotation) for kind in _kinds(part)}
    return int if kinds == {int} else float if kinds and kinds <= {int, float} else str


def _help(field: FieldInfo) -> str:
    words = [str(word) for part in _parts(field.annotation) if get_origin(part) is Literal for word in get_args(part)]
    default = f" [{_shown_default(field.default)}]" if field.default is not None else ""
    return f"{field.description}{': ' + ', '.join(words) if len(words) > 1 else ''}.{default}"


def _shown_default(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _parts(annotation: Any) -> list[Any]:
    """The alternatives of a type, without None."""
    if get_origin(annotation) is Annotated:
        return _parts(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [part for alternative in get_args(annotation) for part in _parts(alternative)]
    return [] if annotation is type(None) else [annotation]


def _kinds(part: Any) -> set[type]:
    """The types of the values that a part of a type takes."""
    return {type(word) for word in get_args(part)} if get_origin(part) is Literal else {part}


@app.command()
@_out
@_common
def demo(out: Path, as_json: bool, debug: bool) -> None:
    """The whole job on the bundled solar cells, offline."""
    from budwood.demo import run_demo

    result = run_demo(out, _progress(), say=_quiet if as_json else print)
    if as_json:
        _print_json(result)


@app.command("inspect")
@_data
@click.option("--html", type=click.Path(path_type=Path), help="Also write the findings, with pictures, to a file.")
@click.option(
    "--augment",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Show an augmentation in the file; may be repeated.",
)
@_common
def inspect_data(
    data: str,
    val: float | None,
    test: float | None,
    exclude: tuple[str, ...],
    html: Path | None,
    settings: tuple[str, ...],
    as_json: bool,
    debug: bool,
) -> None:
    """Findings about a data set; nothing is trained, no file of yours is changed."""
    from budwood import hygiene
    from budwood.dataset import scan
    from budwood.jobs import report_findings
    from budwood.recipe import Recipe, parse_settings

    if settings and html is None:
        raise click.UsageError("--augment: the augmented images are shown in a file: name it with --html.")
    recipe = Recipe(**parse_settings(settings)) if settings else None
    dataset = scan(data, val=val, test=test, exclude=exclude, progress=_progress())
    found = hygiene.findings(dataset)
    if html:
        report_findings(dataset, found, html, recipe)
    if as_json:
        _print_json(
            {
                "fingerprint": dataset.fingerprint,
                "classes": list(dataset.classes),
                "n": len(dataset),
                "split": dataset.split_source,
                "counts": dataset.counts(),
                "findings": [finding.record() for finding in found],
            }
        )
        return
    _show_dataset(dataset, found)
    if html:
        print(f"\nFindings with pictures: {html}")


@app.command(cls=RecipeCommand)
@_data
@click.option("--allow-leaks", is_flag=True, help="Train although the given split leaks; every report says so.")
@click.option(
    "--track", multiple=True, metavar="TOOL", help="Tell tensorboard or mlflow of every epoch; may be repeated."
)
@click.option("--dry-run", is_flag=True, help="Show the whole recipe and what it will cost, measured; train nothing.")
@_recipe_sources
@_out
@_common
def train(
    data: str,
    val: float | None,
    test: float | None,
    exclude: tuple[str, ...],
    allow_leaks: bool,
    track: tuple[str, ...],
    dry_run: bool,
    file: Path | None,
    settings: tuple[str, ...],
    out: Path,
    as_json: bool,
    debug: bool,
    **options: Any,
) -> None:
    """Train a classifier and keep it with its evidence."""
    from budwood import jobs
    from budwood.dataset import scan
    from budwood.early import load_early
    from budwood.files import cache_folder
    from budwood.listing import is_there

    started = time.perf_counter()
    made = _recipe(file, settings, _given(options))
    progress = _progress()
    if is_there(data, cache_folder()):
        load_early(made, cache_folder())
    dataset = scan(data, val=val, test=test, exclude=exclude, progress=progress)
    if dry_run:
        _tell_cost(*jobs.rehearse(dataset, made, out=out, allow_leaks=allow_leaks, progress=progress), as_json)
        return
    spent = time.perf_counter() - started
    finished = jobs.train(dataset, made, out=out, allow_leaks=allow_leaks, progress=progress, track=track, spent=spent)
    _tell_run(finished, as_json)


def _carrying_out(command: Command) -> Command:
    for option in (
        click.option("--allow-leaks", is_flag=True, help="Train although a given split leaks; every report says so."),
        click.option(
            "--test", "opens", is_flag=True, help="Open the sealed test split of every row; counts as a look."
        ),
        click.option("--time", "limit", metavar="TIME", help="Begin no row or trial after so long, as 90s, 10m, 1.5h."),
        click.option("--storage", metavar="URL", help="Where a search keeps its trials (Optuna's URL). [its folder]"),
        click.option("--ray", metavar="ADDRESS", help="Train on a Ray cluster; local starts one here."),
        click.option("--jobs", "count", type=click.IntRange(1), default=1, help="Train in so many processes. [1]"),
    ):
        command = option(command)
    return command


@app.command()
@click.argument("given", metavar="FILE [DATA | NAME=DATA]...", nargs=-1, required=True)
@click.option("--dry-run", is_flag=True, help="Every row's network, cost and what is shared, measured; train nothing.")
@click.option("--quick", is_flag=True, help="Put the file's [quick] table over every row, to run in minutes.")
@click.option(
    "-s",
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Put a recipe option over every row; repeatable.",
)
@_carrying_out
@_out
@_common
def study(
    given: tuple[str, ...],
    dry_run: bool,
    quick: bool,
    settings: tuple[str, ...],
    count: int,
    ray: str | None,
    storage: str | None,
    limit: str | None,
    opens: bool,
    allow_leaks: bool,
    out: Path,
    as_json: bool,
    debug: bool,
) -> None:
    """Carry out a whole table of experiments and compare its rows; what is finished is not repeated."""
    from budwood import study_text
    from budwood.board import Board
    from budwood.files import cache_folder
    from budwood.forecasts import forecasts
    from budwood.recipe import parse_settings
    from budwood.studies import Over, load_study
    from budwood.studying import Ways
    from budwood.studying import study as carry_out

    files = [Path(argument) for argument in given if argument.endswith(".toml")]
    places = dict(_place(argument) for argument in given if not argument.endswith(".toml"))
    if not files:
        raise click.UsageError("Missing argument 'FILE': expected a study file (.toml).")
    over = Over(quick, parse_settings(settings), places)
    studies = [load_study(file, over) for file in files]
    if dry_run:
        found = [(made, forecasts(made, cache_folder(), _progress())) for made in studies]
        if as_json:
            _print_json([study_text.forecast_record(*one) for one in found])
            return
        print("\n\n".join(study_text.forecast_text(*one) for one in found))
        return
    ways = Ways(count, ray, storage, _limit(limit), opens)
    made = [carry_out(one, ways=ways, out=out, allow_leaks=allow_leaks, watcher=Board()) for one in studies]
    if as_json:
        _print_json([study_text.record(*one, out) for one in zip(studies, made, strict=True)])
        return
    print("\n\n".join(study_text.in_text(*one, out) for one in zip(studies, made, strict=True)))


@app.command(cls=TuneCommand)
@click.argument("data", metavar="DATA")
@click.option("--trials", type=click.IntRange(1), default=30, show_default=True, help="How many recipes are tried.")
@click.option("--sampler", type=click.Choice(("random", "tpe")), default="tpe", show_default=True)
@click.option("--metric", default="accuracy", show_default=True, help="What is compared, on validation.")
@_carrying_out
@_recipe_sources
@_out
@_common
def tune(
    data: str,
    trials: int,
    sampler: str,
    metric: str,
    count: int,
    ray: str | None,
    storage: str | None,
    limit: str | None,
    opens: bool,
    allow_leaks: bool,
    file: Path | None,
    settings: tuple[str, ...],
    out: Path,
    as_json: bool,
    debug: bool,
    **options: Any,
) -> None:
    """Search for a better recipe; what is given is not searched. Goes on where it was interrupted."""
    from budwood import study_text
    from budwood.board import Board
    from budwood.studies import tuning_study
    from budwood.studying import Ways
    from budwood.studying import study as carry_out

    made = tuning_study(data, _options(file, settings, _given(options)), trials=trials, sampler=sampler, metric=metric)
    found = carry_out(
        made,
        ways=Ways(count, ray, storage, _limit(limit), opens),
        out=out,
        allow_leaks=allow_leaks,
        watcher=Board(),
    )
    if as_json:
        _print_json(study_text.record(made, found, out))
        return
    print(study_text.in_text(made, found, out))


def _place(argument: str) -> tuple[str, str]:
    """DATA, or NAME=DATA, as a pair of the name ("" for the study's own) and the place."""
    name, separator, place = argument.partition("=")
    return (name, place) if separator and not Path(argument).exists() else ("", argument)


def _limit(text: str | None) -> float | None:
    """A duration in seconds, as the recipe reads it."""
    from budwood.recipe import Recipe

    return Recipe(optimizer="adam", time=text).time if text else None


@app.command()
@click.argument("run", metavar="RUN")
@click.option("--epochs", type=click.IntRange(1), help="Train for so many epochs, those that are done included.")
@click.option("--patience", type=click.IntRange(1), help="Epochs without a better one after which training stops.")
@click.option("--lr", type=click.FloatRange(0, min_open=True), help="Another learning rate from here on.")
@_out
@_common
def resume(
    run: str, epochs: int | None, patience: int | None, lr: float | None, out: Path, as_json: bool, debug: bool
) -> None:
    """Go on with an interrupted training, or train a finished run for more epochs."""
    from budwood import jobs
    from budwood.runs import found_run

    finished = jobs.resume(found_run(run, out), epochs=epochs, patience=patience, lr=lr, progress=_progress())
    _tell_run(finished, as_json)


@app.command()
@click.argument("run", metavar="RUN")
@_out
@_common
def test(run: str, out: Path, as_json: bool, debug: bool) -> None:
    """Open the sealed test split, score the run on it and count the look."""
    from budwood import jobs
    from budwood.runs import open_run

    tested = jobs.test(open_run(run, out), progress=_progress())
    opened = tested.record["test"]
    if as_json:
        _print_json({"run": str(tested.path), "split": "test", "looks": opened["looks"], "metrics": opened["metrics"]})
        return
    _show_metrics("Test", opened["metrics"])
    print(look_text(opened["looks"]))
    print(f"Report: {tested.path / 'report.html'}")


@app.command()
@click.argument("run", metavar="RUN")
@click.argument("images", metavar="IMAGES...", nargs=-1, required=True)
@click.option("--csv", type=click.Path(path_type=Path), help="Also write the answers to a CSV file.")
@click.option("--int8", is_flag=True, help="Compute in 8 bits, unless that calls fewer validation images rightly.")
@_out
@_common
def predict(
    run: str, images: tuple[str, ...], csv: Path | None, int8: bool, out: Path, as_json: bool, debug: bool
) -> None:
    """What a run's network says of images: class, probability and the three likeliest."""
    from budwood import jobs
    from budwood.answers import save_csv
    from budwood.runs import open_run

    answers = jobs.predict(open_run(run, out), images, int8=int8, progress=_progress())
    if csv:
        save_csv(csv, answers)
    if as_json:
        _print_json(
            [
                {
                    "path": answer.path,
                    "top": [{"class": name, "probability": share} for name, share in answer.top],
                    "problem": answer.problem or None,
                }
                for answer in answers
            ]
        )
        return
    for answer in answers:
        told = ", ".join(f"{name} {share:.1%}" for name, share in answer.top) or f"not read ({answer.problem})"
        print(f"{_shown(answer.path)}: {told}")


@app.command()
@click.argument("run", metavar="RUN")
@_out
@_common
def report(run: str, out: Path, as_json: bool, debug: bool) -> None:
    """Write a run's report again and say where it is."""
    from budwood import jobs
    from budwood.runs import open_run

    path = jobs.report(open_run(run, out)).path / "report.html"
    if as_json:
        _print_json({"report": str(path)})
    else:
        print(path)


@app.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@click.option(
    "--metric", default="accuracy", show_default=True, help="What rows are ranked by; macro_f1, log_loss, ..."
)
@click.option("--split", type=click.Choice(["val", "test"]), default="val", show_default=True)
@click.option("--allow-looks", is_flag=True, help="Compare test splits that were opened at different looks.")
@click.option("--csv", type=click.Path(path_type=Path), help="Also write the table to a CSV file.")
@click.option("--html", type=click.Path(path_type=Path), help="Also write a page with figures to a file.")
@_out
@_common
def compare(
    runs: tuple[str, ...],
    metric: str,
    split: str,
    allow_looks: bool,
    csv: Path | None,
    html: Path | None,
    out: Path,
    as_json: bool,
    debug: bool,
) -> None:
    """One table of runs, or of all in a folder: intervals, paired tests, and which cannot be told from the best."""
    from budwood import comparison
    from budwood.comparison_page import render_comparison
    from budwood.comparison_text import table_text
    from budwood.files import guarded, write_text

    found = [comparison.runs_in(run, out) for run in runs]
    progress = _progress()
    for left_out in (name for _, others in found for name in others):
        progress.note(f"Left out, as it is not finished: {left_out}.")
    finished = [run for group, _ in found for run in group]
    made = comparison.compare(finished, metric=metric, split=split, allow_looks=allow_looks)
    record = made.record()
    for path, text in ((csv, made.csv()), (html, render_comparison(record))):
        if path:
            with guarded(path):
                write_text(path, text)
    if as_json:
        _print_json(record)
        return
    print(table_text(record))
    for finding in made.findings:
        print(f"\n{finding.code} {finding.severity}: {finding.message}\n  {finding.advice}")
    if html:
        print(f"\nPage: {html}")


@app.command("lr-find", cls=RecipeCommand)
@_data
@_recipe_sources
@click.option("--html", type=click.Path(path_type=Path), help="Also draw the curve into a file.")
@_common
def lr_find(
    data: str,
    val: float | None,
    test: float | None,
    exclude: tuple[str, ...],
    file: Path | None,
    settings: tuple[str, ...],
    html: Path | None,
    as_json: bool,
    debug: bool,
    **options: Any,
) -> None:
    """Try growing learning rates for a hundred steps and suggest one; nothing is kept of what is learned."""
    from budwood import jobs
    from budwood.dataset import scan
    from budwood.files import guarded, write_text
    from budwood.page import render_rates
    from budwood.recipe import Recipe

    named = _options(file, settings, _given(options))
    made = Recipe(**named)
    if made.optimizer == "lbfgs" and "optimizer" not in named:
        made = Recipe(**{**named, "optimizer": "adam"})
    if made.optimizer == "lbfgs":
        raise click.UsageError("optimizer: lbfgs has no learning rate; choose another to look for one.")
    progress = _progress()
    dataset = scan(data, val=val, test=test, exclude=exclude, progress=progress)
    curve = jobs.find_rate(dataset, made, progress=progress)
    if html:
        with guarded(html):
            page = render_rates(dataset.name, made.model, curve.rates, curve.losses, curve.suggestion)
            write_text(html, page)
    if as_json:
        _print_json({"suggestion": curve.suggestion, "rates": curve.rates, "losses": curve.losses})
        return
    print("rate      training loss")
    for rate, loss in list(zip(curve.rates, curve.losses, strict=True))[::6]:
        print(f"{rate:<9.1e} {loss:.3f}")
    told = f"{curve.suggestion:.2g}" if curve.suggestion else "none: the loss fell at no rate"
    print(f"Suggested: {told} (where the loss falls most steeply)")
    if html:
        print(f"Curve: {html}")


@app.command(cls=SurgeryCommand)
@click.argument("name", metavar="[NAME | PATTERN]", required=False)
@click.option("--classes", type=click.IntRange(2), default=1000, show_default=True, help="Outputs of the new head.")
@_common
def models(name: str | None, classes: int, as_json: bool, debug: bool, **options: Any) -> None:
    """List the networks, or show one before and after surgery; a pattern such as '*vit*' searches."""
    given = _given(options)
    if name is None or set(name) & set("*?["):
        if given:
            raise click.UsageError(f"{', '.join(sorted(given))}: surgery needs the name of one network.")
        _list_networks(name, as_json)
        return
    from budwood.files import cache_folder
    from budwood.plan import plan_of
    from budwood.recipe import Recipe

    plan = plan_of(Recipe(model=name, **given), classes, cache_folder())
    if as_json:
        _print_json({key: value for key, value in plan.items() if key != "origins"})
    else:
        _show_plan(plan, given)


@app.command()
@click.option("--clear", is_flag=True, help="Remove all that can be computed again; downloaded weights stay.")
@_common
def cache(clear: bool, as_json: bool, debug: bool) -> None:
    """What is kept to be used again: how much, where, and how to clear it."""
    from budwood import space
    from budwood.catalogue import table
    from budwood.files import cache_folder

    folder = cache_folder()
    removed = space.clear(folder) if clear else None
    found, limit = space.held(folder), space.limit()
    if as_json:
        kinds = {one.kind: {"bytes": one.bytes, "files": one.files, "used": one.used or None} for one in found}
        _print_json({"folder": str(folder), "limit_bytes": limit, "removed_bytes": removed, "kinds": kinds})
        return
    if removed is not None:
        print(f"Removed {removed / 2**20:,.1f} MiB.")
    rows = [("kind", "MiB", "files", "last used", "what")]
    rows += [
        (one.kind, f"{one.bytes / 2**20:,.1f}", f"{one.files:,}", _day(one.used), space.KINDS[one.kind])
        for one in found
    ]
    print(table(rows, right=(1, 2)))
    print(f"Folder: {folder} (BUDWOOD_CACHE names another)")
    sharded = sum(one.bytes for one in found if one.kind in space.SHARDED)
    print(f"Pixels and outputs take {sharded / 2**30:.2f} of {limit / 2**30:.1f} GiB (BUDWOOD_CACHE_LIMIT, as 50GB).")


def _day(seconds: float) -> str:
    """A moment as a date and time of here."""
    return f"{datetime.datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M}" if seconds else "–"


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _recipe(file: Path | None, settings: Sequence[str], flags: Mapping[str, Any]) -> Recipe:
    """The recipe of a file, of settings over it, and of flags over both."""
    from budwood.recipe import Recipe

    return Recipe(**_options(file, settings, flags))


def _options(file: Path | None, settings: Sequence[str], flags: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a recipe is made of: of a file, of settings over it, and of flags over both."""
    from budwood.recipe import load_recipe, parse_settings

    return {**(load_recipe(file) if file else {}), **parse_settings(settings), **flags}


def metric_text(metric: dict[str, Any]) -> str:
    """A metric between 0 and 1 in words: value, 95 % interval and n."""
    if metric["value"] is None:
        return f"undefined (n = {metric['n']:,})"
    value, low, high = (100 * metric[key] for key in ("value", "low", "high"))
    return f"{value:.1f} % (95 % interval {low:.1f} to {high:.1f}), n = {metric['n']:,}"


def _show_metrics(split: str, scores: Mapping[str, Any]) -> None:
    """The metrics of a split, one a line."""
    several = "mean_average_precision" in scores
    print(f"{split} accuracy  {metric_text(scores['accuracy'])}{'; every label right' if several else ''}")
    print(f"{split} macro F1  {metric_text(scores['macro_f1'])}")
    if several:
        print(f"{split} mean average precision  {metric_text(scores['mean_average_precision'])}")


def look_text(looks: int) -> str:
    """What the number of looks at a test split means."""
    if looks == 1:
        return "This was the first look at this test split."
    return f"This was look {looks} at this test split: choosing between runs by it makes the score too good."


def _list_networks(pattern: str | None, as_json: bool) -> None:
    from dataclasses import asdict

    from budwood.catalogue import entries, table
    from budwood.files import cache_folder

    found, others = entries(pattern, cache_folder())
    if as_json:
        _print_json([asdict(entry) for entry in found])
        return
    rows = [("network", "source", "pixels", "parameters", "ImageNet top-1", "weights")]
    rows += [
        (
            entry.name,
            entry.source,
            str(entry.size),
            f"{entry.parameters:,}" if entry.parameters else "–",
            f"{100 * entry.accuracy:.1f} %" if entry.accuracy else "–",
            "here" if entry.local else "none" if entry.source == "budwood" else "to be fetched",
        )
        for entry in found
    ]
    print(table(rows, right=(2, 3, 4)))
    print("Top-1 as published with the weights, n = 50,000 (so within about 0.4 points).")
    if others:
        print(f"And {others:,} of timm: `budwood models '*vit*'` searches by name.")


def _show_plan(plan: Plan, given: Mapping[str, Any]) -> None:
    """The stages of a network before and after surgery."""
    from budwood.catalogue import table

    right = (1, 2, 3, 4, 5)
    head = ("stage", "output", "parameters", "multiply-adds")
    before = [
        (row["name"], _shape(row["shape"]), f"{row['parameters']:,}", f"{row['macs']:,}") for row in plan["before"]
    ]
    total = sum(row["parameters"] for row in plan["before"]), sum(row["macs"] for row in plan["before"])
    image = _shape([plan["channels"], plan["size"], plan["size"]])
    print(f"{plan['name']} ({plan['source']}) for images of {image}, as its source makes it")
    print(table([head, *before, ("all", "", f"{total[0]:,}", f"{total[1]:,}")], right))
    asked = ", ".join(f"{name} {value}" for name, value in given.items()) or "a new head on the frozen trunk"
    after = [
        (
            row["name"],
            _shape(row["shape"]),
            f"{row['parameters']:,}",
            f"{row['trainable']:,}",
            f"{row['parameters'] - row['trainable']:,}",
            f"{row['macs']:,}",
        )
        for row in plan["stages"]
    ]
    counts = plan["parameters"]
    both = counts["trainable"] + counts["frozen"]
    last = ("all", "", f"{both:,}", f"{counts['trainable']:,}", f"{counts['frozen']:,}", f"{plan['macs']:,}")
    print(f"\nAfter surgery: {asked}")
    print(table([("stage", "output", "parameters", "trainable", "frozen", "multiply-adds"), *after, last], right))
    print(f"Computed once per image: {'up to ' + plan['prefix'] if plan['prefix'] else 'nothing'}.")


def _shape(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _show_dataset(dataset: Dataset, found: Sequence[Finding]) -> None:
    print(f"{dataset.name}: {len(dataset):,} images in {len(dataset.classes)} classes; split {dataset.split_source}:")
    train, val = (len(dataset.samples(name)) for name in ("train", "val"))
    print(f"  train {train:,}, val {val:,}, test {dataset.counts()['test']:,} (sealed)")
    for finding in found:
        print(f"\n{finding.code} {finding.severity}: {finding.message}\n  {finding.advice}")
        groups = finding.groups or [(file,) for file in finding.files]
        for group in groups[:10]:
            print("    " + "  =  ".join(map(_shown, group)))
        if len(groups) > 10:
            print(f"    and {len(groups) - 10:,} more (--json lists all)")
    if not found:
        print("\nNo findings.")


def _tell_cost(recipe: Recipe, cost: Rehearsal, as_json: bool) -> None:
    """A recipe and what it will cost, on stdout."""
    if as_json:
        _print_json({"recipe": recipe.table(), "estimate": cost.record()})
        return
    print(recipe.toml())
    steps = f"{cost.steps:,} optimizer steps in {cost.epochs:,.3g} epochs" if cost.steps else "one head, no network"
    parts = ", ".join(f"{name} {_duration(seconds)}" for name, seconds in cost.seconds.items())
    print(f"Training    {steps}")
    print(f"Time        about {_duration(cost.total)} ({parts})")
    print(f"Memory      about {cost.memory / 2**30:.1f} GiB at the peak")
    cache, run = (cost.disk[place] / 2**20 for place in ("cache", "run"))
    print(f"Disk        about {cache:,.0f} MiB more in the cache, {run:,.0f} in the run")
    print(f"Measured on {cost.measured}. Nothing was trained.")


def _duration(seconds: float) -> str:
    """Seconds in the unit that suits them."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _tell_run(run: Run, as_json: bool) -> None:
    """A trained run on stdout."""
    record = run.record
    if as_json:
        kept = {name: record[name] for name in ("state", "recipe", "timings")}
        _print_json({"run": str(run.path), **kept, "metrics": run.metrics})
        return
    _show_metrics("Validation", record["metrics"]["val"])
    choices = record["choices"]
    made = record["prefix"]
    frozen = f"Frozen up to {made['stage']}: {made['computed']:,} outputs computed, {made['reused']:,} reused; "
    print(
        f"{frozen if made['stage'] else ''}engine {choices['engine']}; {choices['threads']} threads; "
        f"{record['timings']['total']:.1f} s in all"
    )
    loud = [finding for finding in record["findings"] if finding["severity"] != "note"]
    if loud:
        print("Findings: " + " ".join(f"{finding['code']}: {finding['message']}" for finding in loud))
    print(f"Run: {run.path}\nReport: {run.path / 'report.html'}")
    if record["dataset"]["counts"]["test"]:
        print(f"The test split is sealed. When you have chosen your run: budwood test {run.path}")


def _shown(path: str) -> str:
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in path)


def _progress() -> Progress:
    from budwood.progress import Terminal

    return Terminal()


def _quiet(sentence: str = "") -> None:
    """Says nothing."""


def _print_json(document: Any) -> None:
    print(json.dumps(document, ensure_ascii=False, indent=1))
