"""Functions and files stay small enough to be read at one sitting."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import budwood

SOURCE = Path(budwood.__file__).parent
LINES_OF_A_FUNCTION = 60  # docstring and signature included
LINES_OF_A_FILE = 550
TOO_LONG = {"data/scanning.py:scan"}  # its docstring names all that a data set is made from


def _functions(path: Path) -> Iterator[tuple[str, int]]:
    """The name and the number of lines of every function of a file, methods and inner ones included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - node.lineno + 1


def test_no_function_is_longer_than_a_screen() -> None:
    found = {
        f"{path.relative_to(SOURCE).as_posix()}:{name}"
        for path in SOURCE.rglob("*.py")
        for name, lines in _functions(path)
        if lines > LINES_OF_A_FUNCTION
    }
    assert found <= TOO_LONG


def test_the_lines_of_a_function_are_counted() -> None:
    assert dict(_functions(Path(__file__)))["test_the_lines_of_a_function_are_counted"] == 2


def test_no_file_outgrows_its_idea() -> None:
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCE.rglob("*.py")}
    assert {path.name: count for path, count in lines.items() if count > LINES_OF_A_FILE} == {}
