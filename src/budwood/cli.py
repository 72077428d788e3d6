"""The command line: one thin command a stage.

Results go to stdout, everything that is said on the way to stderr. Exit code 0: done; 2: the user's input is at fault;
1: Budwood is; 130: interrupted.
"""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin

import click

from budwood.errors import BudwoodError

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from budwood.dataset import Dataset
    from budwood.hygiene import Finding
    from budwood.progress import Progress
    from budwood.runs import Run

Command = TypeVar("Command", bound=Callable[..., Any])


class RecipeCommand(click.Command):
    """A command with one flag per recipe option; they are generated when it is called, not when Budwood starts."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The command's own parameters, then the recipe's."""
        return [*super().get_params(ctx), *_recipe_flags()]


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


def _recipe_flags() -> list[click.Parameter]:
    from budwood.recipe import Recipe

    return [
        click.Option([f"--{name.replace('_', '-')}", name], type=_flag_type(field.annotation), help=_help(field))
        for name, field in Recipe.model_fields.items()
    ]


def _flag_type(annotation: Any) -> type:
    """The type that the command line parses: str for words, so that the recipe names every mistake at once."""
    parts = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    plain = [part for part in parts if part in (int, float)]
    words = any(get_origin(part) is Literal or part is str for part in parts)
    return str if words or not plain else plain[0]


def _help(field: FieldInfo) -> str:
    parts = get_args(field.annotation) if get_origin(field.annotation) is not Literal else (field.annotation,)
    words = [word for part in parts if get_origin(part) is Literal for word in get_args(part)]
    default = f" [{field.default}]" if field.default is not None else ""
    return f"{field.description}{': ' + ', '.join(words) if len(words) > 1 else ''}.{default}"


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
@_common
def inspect_data(
    data: str,
    val: float | None,
    test: float | None,
    exclude: tuple[str, ...],
    html: Path | None,
    as_json: bool,
    debug: bool,
) -> None:
    """Findings about a data set; nothing is trained, no file of yours is changed."""
    from budwood import hygiene
    from budwood.dataset import scan
    from budwood.jobs import report_findings

    dataset = scan(data, val=val, test=test, exclude=exclude, progress=_progress())
    found = hygiene.findings(dataset)
    if html:
        report_findings(dataset, found, html)
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
@click.option("--recipe", "file", type=click.Path(path_type=Path), help="TOML file with recipe options.")
@click.option("-s", "settings", multiple=True, metavar="KEY=VALUE", help="Set a recipe option; may be repeated.")
@_out
@_common
def train(
    data: str,
    val: float | None,
    test: float | None,
    exclude: tuple[str, ...],
    allow_leaks: bool,
    file: Path | None,
    settings: tuple[str, ...],
    out: Path,
    as_json: bool,
    debug: bool,
    **options: Any,
) -> None:
    """Train a classifier on a frozen trunk and keep it with its evidence."""
    from budwood import jobs
    from budwood.dataset import scan
    from budwood.recipe import Recipe, load_recipe, parse_settings

    flags = {name: value for name, value in options.items() if value is not None}
    made = Recipe(**{**(load_recipe(file) if file else {}), **parse_settings(settings), **flags})
    progress = _progress()
    dataset = scan(data, val=val, test=test, exclude=exclude, progress=progress)
    finished = jobs.train(dataset, made, out=out, allow_leaks=allow_leaks, progress=progress)
    if as_json:
        _print_json(
            {
                "run": str(finished.path),
                "state": finished.record["state"],
                "recipe": finished.record["recipe"],
                "metrics": finished.metrics,
                "timings": finished.record["timings"],
            }
        )
        return
    _show_run(finished)


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
    print(f"Test accuracy  {metric_text(opened['metrics']['accuracy'])}")
    print(f"Test macro F1  {metric_text(opened['metrics']['macro_f1'])}")
    print(look_text(opened["looks"]))
    print(f"Report: {tested.path / 'report.html'}")


@app.command()
@click.argument("run", metavar="RUN")
@click.argument("images", metavar="IMAGES...", nargs=-1, required=True)
@click.option("--csv", type=click.Path(path_type=Path), help="Also write the answers to a CSV file.")
@_out
@_common
def predict(run: str, images: tuple[str, ...], csv: Path | None, out: Path, as_json: bool, debug: bool) -> None:
    """What a run's network says of images: class, probability and the three likeliest."""
    from budwood import jobs
    from budwood.answers import save_csv
    from budwood.runs import open_run

    answers = jobs.predict(open_run(run, out), images, progress=_progress())
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


def metric_text(metric: dict[str, Any]) -> str:
    """A metric between 0 and 1 in words: value, 95 % interval and n."""
    if metric["value"] is None:
        return f"undefined (n = {metric['n']:,})"
    value, low, high = (100 * metric[key] for key in ("value", "low", "high"))
    return f"{value:.1f} % (95 % interval {low:.1f} to {high:.1f}), n = {metric['n']:,}"


def look_text(looks: int) -> str:
    """What the number of looks at a test split means."""
    if looks == 1:
        return "This was the first look at this test split."
    return f"This was look {looks} at this test split: choosing between runs by it makes the score too good."


def _show_dataset(dataset: Dataset, found: Sequence[Finding]) -> None:
    counts = dataset.counts()
    print(f"{dataset.name}: {len(dataset):,} images in {len(dataset.classes)} classes; split {dataset.split_source}:")
    print(
        f"  train {sum(counts['train'].values()):,}, val {sum(counts['val'].values()):,}, "
        f"test {counts['test']:,} (sealed)"
    )
    for finding in found:
        print(f"\n{finding.code} {finding.severity}: {finding.message}\n  {finding.advice}")
        groups = finding.groups or [(file,) for file in finding.files]
        for group in groups[:10]:
            print("    " + "  =  ".join(map(_shown, group)))
        if len(groups) > 10:
            print(f"    and {len(groups) - 10:,} more (--json lists all)")
    if not found:
        print("\nNo findings.")


def _show_run(run: Run) -> None:
    record = run.record
    print(f"Validation accuracy  {metric_text(record['metrics']['val']['accuracy'])}")
    print(f"Validation macro F1  {metric_text(record['metrics']['val']['macro_f1'])}")
    choices = record["choices"]
    made = record["prefix"]
    print(
        f"Frozen outputs: {made['computed']:,} computed, {made['reused']:,} reused; engine {choices['engine']}; "
        f"{choices['threads']} threads; {record['timings']['total']:.1f} s in all"
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
