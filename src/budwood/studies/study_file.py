"""Study files: a whole table of experiments in one TOML file, read and checked as it is written.

TOML -> StudyFile (`study_tables.py`) -> Study (`expansion.py`); mistakes are told at once, with their lines
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from budwood.config.file_checks import tell_mistakes
from budwood.config.toml import read_toml, write_table
from budwood.errors import StudyError
from budwood.networks.plan import hash_json
from budwood.studies.expansion import expand_study
from budwood.studies.search_space import default_space
from budwood.studies.study import Overrides, Study
from budwood.studies.study_tables import TRIALS, Options, check_file


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
    study, recipe_mistakes = expand_study(file, Overrides(), text, faulty)
    if not mistakes and not recipe_mistakes and overrides not in (None, Overrides()):
        study, recipe_mistakes = expand_study(file, overrides, text)
    if mistakes or recipe_mistakes:
        messages = tell_mistakes([*mistakes, *recipe_mistakes], table, text)
        raise StudyError(
            f"{where} has {messages}", "See the examples in studies/; `budwood train --help-all` lists options."
        )
    return study


def make_tuning_study(
    source: str,
    options: Options,
    *,
    trials: int = TRIALS,
    sampler: str = "tpe",
    metric: str | None = None,
    seed: int = 0,
) -> Study:
    """Make a study of one row, the given recipe, and of a search around it.

    Args:
        source: Path or name of the data.
        options: Recipe options of the given recipe; these are not searched.
        trials: Number of trials.
        sampler: How trials are drawn: random or tpe.
        metric: The metric that is compared; None: accuracy, or mean average precision of multi-label data.
        seed: Seed of the trials.

    Returns:
        The study; its name contains a digest of options, sampler, metric and seed.

    Raises:
        StudyError: An option or argument is wrong.
    """
    if sampler == "grid":
        raise StudyError(
            "sampler: 'grid' goes through lists of values, but a default search has ranges. Valid: random, tpe.",
            'For a grid write a study file: [search] with sampler = "grid", and lists of values in its space.',
        )
    place = Path(source).name.split(".")[0]
    table = {
        "name": f"tune-{place}-{hash_json([dict(options), sampler, metric or 'accuracy', seed])[:6]}",
        "title": f"Search on {place}",
        "data": source,
        **({"metric": metric} if metric else {}),
        "base": dict(options),
        "rows": [{"label": "as given"}],
        "search": {"sampler": sampler, "trials": trials, "seed": seed, "space": default_space(options)},
    }
    return replace(parse_study(table, "tune", ""), text=write_table(table))  # nobody has seen the lines of this text
