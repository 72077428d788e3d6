"""Every public function tells a value of a wrong type in one sentence, and takes one value for a list of one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import FunctionType
from typing import Any, Literal

import numpy as np
import pytest

import budwood as bw
from budwood.arguments import check_arguments, describe_type, fits, read_hints
from budwood.progress import Progress, Silent

FUNCTIONS = {
    **{name: getattr(bw, name) for name in bw.__all__ if isinstance(getattr(bw, name), FunctionType)},
    **{f"explain.{name}": getattr(bw.explain, name) for name in bw.explain.__all__},
}
READING = ("estimate_cost", "findings", "select_per_class", "study", "train", "tune")  # take what `scan` takes
LEFT_TO_THE_FUNCTION = {
    ("predict", "files"),
    ("scan", "source"),
    ("scan", "labels"),
    *((name, "data") for name in READING),
}
PRIVATE = {"spent", "findings", "api", "hooks", "context"}


class Wrong:
    """A value that no function takes."""


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_wrong_value_is_told_with_what_was_expected_and_found(name: str) -> None:
    function = FUNCTIONS[name]
    parameters = inspect.signature(function).parameters.values()
    needed = [one.name for one in parameters if one.default is one.empty] or [next(iter(parameters)).name]
    with pytest.raises(bw.BudwoodError, match=r"expected .*, found .*Wrong\.?") as told:
        function(*[Wrong() for _ in needed])
    assert "\n" not in told.value.message
    if (name, needed[0]) not in LEFT_TO_THE_FUNCTION:
        assert isinstance(told.value, bw.ArgumentError)
        assert told.value.message.startswith(f"{function.__name__}: {needed[0]}: expected ")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_parameter_takes_anything(name: str) -> None:
    hints = read_hints(inspect.unwrap(FUNCTIONS[name]))
    assert hints.keys() == inspect.signature(FUNCTIONS[name]).parameters.keys()
    taken = {parameter for parameter, hint in hints.items() if fits(Wrong(), hint)}
    assert {(name, parameter) for parameter in taken} <= LEFT_TO_THE_FUNCTION
    assert all(describe_type(hint) for hint in hints.values())


@pytest.mark.parametrize("name", FUNCTIONS)
def test_help_shows_no_private_parameter_and_documents_each(name: str) -> None:
    parameters = inspect.signature(FUNCTIONS[name]).parameters
    assert not PRIVATE & parameters.keys()
    documented = inspect.getdoc(FUNCTIONS[name]) or ""
    assert [one for one in parameters if f"    {one}: " not in documented] == []


def test_dir_shows_the_public_names_and_nothing_else() -> None:
    assert dir(bw) == sorted(bw.__all__)
    assert dir(bw.explain) == sorted(bw.explain.__all__)
    assert bw.train is bw.train


def test_the_sentence_says_where_what_and_what_to_do(tiny: Path) -> None:
    with pytest.raises(
        bw.DataError, match=r"^the images: expected what a data set is made from, found float\.$"
    ) as told:
        bw.train(3.5)
    assert told.value.hint.startswith("Give paths; images and labels;")
    with pytest.raises(bw.ArgumentError, match=r"^train: recipe: expected a recipe, found a value of type dict\.$"):
        bw.train(bw.scan(tiny / "photos"), {"epochs": 3})  # type: ignore[arg-type]
    with pytest.raises(bw.ArgumentError, match=r"^scan: val: expected a number, found '0\.2' \(str\)\.$"):
        bw.scan(tiny / "photos", val="0.2")  # type: ignore[arg-type]
    with pytest.raises(bw.ArgumentError, match=r"^neighbours: images: .* found 3 \(int\)\.$"):
        bw.explain.neighbours(bw.open_run(tiny / "runs" / "one"), [tiny / "a.png", 3])  # type: ignore[list-item]
    with pytest.raises(bw.ArgumentError, match=r"^open_run: path: expected .*path, found None\.$"):
        bw.open_run(None)  # type: ignore[arg-type]


def test_python_says_what_is_missing_or_unknown() -> None:
    with pytest.raises(TypeError, match=r"scan\(\) got an unexpected keyword argument 'shuffle'"):
        bw.scan("photos", shuffle=True)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"scan\(\) missing 1 required positional argument: 'source'"):
        bw.scan()  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda run: run.predictions(3), "has predictions for val and test; there is no split 3"),
        (lambda run: run.predictions("train"), "those for training images are not kept"),
        (lambda run: run.predictions("test"), "the test split is sealed"),
        (lambda run: run.show_mistakes("all"), "n: expected a whole number from 1 to 200, found 'all'"),
        (lambda run: run.history["loss"], "history: there is no column 'loss'"),
        (lambda run: run.dataset().samples("validation"), "split: there is no split 'validation'"),
        (lambda run: run.dataset().column("size"), "column: there is no column 'size'"),
        (lambda run: run.dataset().show(per_class=0), "per_class: expected a whole number from 1 to 200, found 0"),
        (lambda run: run.plot().save("plot.png"), r"plot.png: expected a name that ends in .html, found '.png'"),
        (lambda run: bw.Predictor.open(3), "run: expected a run, its path or its name, found int"),  # type: ignore[arg-type]
        (lambda run: bw.Recipe(epochs="ten"), "The recipe has 1 mistake: epochs: .*, found 'ten'"),
    ],
)
def test_methods_tell_wrong_values_too(tiny: Path, ask: Callable[[bw.Run], Any], sentence: str) -> None:
    with pytest.raises(bw.BudwoodError, match=sentence):
        ask(bw.open_run(tiny / "runs" / "one"))


def test_a_bare_path_is_one_file_and_not_its_letters(tiny: Path) -> None:
    run, file = bw.open_run(tiny / "runs" / "one"), tiny / "photos" / "leaf" / "000.png"
    for one in (file, str(file)):
        assert len(bw.predict(run, one)) == len(bw.features(run, one)) == 1
        assert len(bw.explain.pixels(run, one)) == 1
        assert len(bw.explain.neighbours(run, one, 2)) == 1
        assert len(bw.explain.attribution(run, one, "occlusion", classes="sky").maps) == 1


def test_one_value_is_a_list_of_one() -> None:
    @check_arguments
    def collect(names: Sequence[str], numbers: Sequence[int] = (), files: str | Sequence[str] = ()) -> tuple[Any, ...]:
        return names, numbers, files

    assert collect("cat") == (("cat",), (), ())
    assert collect(["cat"], 3, "one.png") == (["cat"], (3,), "one.png")  # type: ignore[arg-type]
    with pytest.raises(bw.ArgumentError, match=r"numbers: expected a list, each a whole number, found 'x' \(str\)"):
        collect([], [1, "x"])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("value", "hint", "fitting"),
    [
        (3, int, True),
        (np.int64(3), int, True),
        (True, int, False),
        (3, float, True),
        (np.float32(0.5), float, True),
        ("3", float, False),
        (None, int | None, True),
        ("a", Literal["a", "b"], True),
        ("c", Literal["a", "b"], True),  # the function lists the words
        (3, Literal["a", "b"], False),
        (["a"], Sequence[str], True),
        ("a", Sequence[str], False),
        ({"a": 1}, Sequence[str], False),
        ({"a": 1}, Mapping[str, Any], True),
        (len, Callable[[], None], True),
        (3, Callable[[], None], False),
        (np.zeros(2), np.ndarray, True),
        (Silent(), Progress, True),
        (3, Progress, False),
        (3, Iterable[str], True),  # left to the function
    ],
)
def test_what_fits(value: Any, hint: Any, fitting: bool) -> None:
    assert fits(value, hint) is fitting


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (bw.Run | str | Path, "a run or its path"),
        (str | Path | Sequence[str | Path], "a path or a list of these"),
        (Sequence[int], "a list, each a whole number"),
        (float | str | None, "a number or a text"),
        (Literal["a", "b"], "one of a, b"),
        (Mapping[str, int], "a dict"),
        (Callable[[], None], "a function"),
    ],
)
def test_types_in_words(hint: Any, words: str) -> None:
    assert describe_type(hint) == words
