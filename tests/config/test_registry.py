"""A registry finds what a recipe names, imports what users bring, and tells versions of their code apart."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from budwood.config.registry import (
    Registry,
    check_call,
    entry_digest,
    find_source,
    import_entry,
    is_entry_point,
    make_entry,
    part_digest,
    source_digest,
)
from budwood.errors import RecipeError

SOUNDS: Registry[Callable[[], str]] = Registry("sound", {"meow": lambda: "meow", "cwd": "os:getcwd"})


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that is worked in, whose modules are forgotten again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def imported(name: str) -> Callable[[], object]:
    """What a path names, imported anew."""
    for module in [module for module in sys.modules if module.startswith("mine")]:
        del sys.modules[module]
    importlib.invalidate_caches()
    entry: Callable[[], object] = import_entry(name, "sound")
    return entry


def test_names_are_sorted_and_an_entry_may_be_a_path() -> None:
    assert SOUNDS.names() == ("cwd", "meow")
    assert SOUNDS.get("meow")() == "meow"
    assert SOUNDS.get("cwd")() == str(Path.cwd())
    assert "meow" in SOUNDS
    assert "os:getcwd" not in SOUNDS


def test_registering_gives_another_registry_and_refuses_a_taken_name() -> None:
    more = SOUNDS.register("woof", lambda: "woof")
    assert more.names() == ("cwd", "meow", "woof")
    assert "woof" not in SOUNDS
    with pytest.raises(ValueError, match="taken"):
        more.register("woof", lambda: "")
    with pytest.raises(ValueError, match="no plain name"):
        more.register("a:b", lambda: "")


def test_an_unknown_name_is_told_with_the_closest_and_all_valid_ones() -> None:
    with pytest.raises(RecipeError, match="sound: there is no 'meowww'") as caught:
        SOUNDS.get("meowww")
    assert caught.value.hint.startswith("Did you mean 'meow'? Valid: cwd, meow.")
    assert "package.module:name" in caught.value.hint


def test_a_path_is_imported_from_the_working_directory(written: Path) -> None:
    (written / "mine").mkdir()
    (written / "mine" / "sounds.py").write_text("def moo():\n    return 'moo'\n")
    assert SOUNDS.get("mine.sounds:moo")() == "moo"


def test_the_working_directory_comes_before_installed_packages(written: Path) -> None:
    (written / "pyflakes_of_mine.py").write_text("def moo():\n    return 'mine'\n")
    elsewhere = written / "site"
    elsewhere.mkdir()
    (elsewhere / "pyflakes_of_mine.py").write_text("def moo():\n    return 'installed'\n")
    sys.path.insert(0, str(elsewhere))
    assert find_source("pyflakes_of_mine:moo", "sound") == written / "pyflakes_of_mine.py"
    assert SOUNDS.get("pyflakes_of_mine:moo")() == "mine"


def test_a_name_that_python_has_given_to_another_module_is_refused(written: Path) -> None:
    (written / "json.py").write_text("def moo():\n    return 'mine'\n")
    for ask in (import_entry, entry_digest):
        with pytest.raises(
            RecipeError, match=r"sound: 'json:moo' names the module json, which is .* here, not "
        ) as told:
            ask("json:moo", "sound")
        assert "Rename json.py" in told.value.hint


def test_what_is_built_in_is_found_without_the_working_directory(written: Path) -> None:
    before = [*sys.path]
    assert SOUNDS.get("cwd")() == str(written)
    assert sys.path == before


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "def moo(logits): ...",
            r"sound: mine_calls:moo cannot be called as moo\(logits, size=\.\.\.\) \(.*unexpected keyword",
        ),
        ("def moo(logits, more, *, size): ...", r"cannot be called as .*missing a required argument: 'more'"),
        ("moo = 3", "sound: mine_calls:moo is a value of type int, expected a function"),
    ],
)
def test_what_cannot_be_called_as_it_will_be_is_said(written: Path, source: str, message: str) -> None:
    (written / "mine_calls.py").write_text(f"{source}\n")
    with pytest.raises(RecipeError, match=message):
        check_call(import_entry("mine_calls:moo", "sound"), "mine_calls:moo", "sound", ("logits",), ("size",))


def test_what_can_be_called_or_tells_no_signature_passes() -> None:
    check_call(lambda *logits, **options: None, "a:b", "sound", ("logits",), ("size",))
    check_call(dict.fromkeys, "a:b", "sound", ("logits",))


@pytest.mark.parametrize(
    ("path", "message", "hint"),
    [
        ("mine_absent:moo", "sound: there is no module 'mine_absent', which 'mine_absent:moo' names", "mine_absent.py"),
        ("mine_sounds:mo", "sound: the module mine_sounds has no 'mo'", "Did you mean 'moo'"),
        ("mine_broken:moo", r"mine_broken.*cannot be imported \(ZeroDivisionError", "python -c 'import mine_broken'"),
        ("mine_needs:moo", r"mine_needs.*cannot be imported \(ModuleNotFoundError: .*absent_too", "python -c"),
    ],
)
def test_what_cannot_be_imported_is_said(written: Path, path: str, message: str, hint: str) -> None:
    (written / "mine_sounds.py").write_text("def moo():\n    return 'moo'\n")
    (written / "mine_broken.py").write_text("1 / 0\n")
    (written / "mine_needs.py").write_text("import absent_too\n")
    with pytest.raises(RecipeError, match=message) as caught:
        SOUNDS.get(path)
    assert hint in caught.value.hint


def test_what_is_an_entry_point() -> None:
    assert is_entry_point("package.module:name")
    assert is_entry_point("module:Class.method")
    assert not any(is_entry_point(name) for name in ("resnet18", ":name", "module:", "a b:c", "run:2026-1", "/a/b:c"))
    with pytest.raises(RecipeError, match=r"not of the form package\.module:name"):
        import_entry("nothing", "loss")


def test_the_digest_follows_the_source_and_what_lies_beside_it(written: Path) -> None:
    (written / "mine").mkdir()
    (written / "mine" / "parts.py").write_text("def part():\n    return 'moo'\n")
    whole = "from mine.parts import part\n\n\ndef moo():\n    return part()\n"
    (written / "mine" / "sounds.py").write_text(whole)
    first = source_digest(imported("mine.sounds:moo"))
    assert source_digest(imported("mine.sounds:moo")) == first

    (written / "mine" / "sounds.py").write_text(whole + "# changed\n")
    second = source_digest(imported("mine.sounds:moo"))
    (written / "mine" / "parts.py").write_text("def part():\n    return 'moooo'\n")
    third = source_digest(imported("mine.sounds:moo"))
    assert len({first, second, third}) == 3
    assert len(first) == 24


@pytest.mark.parametrize("line", ["from mine.parts import part", "from .parts import part", "import mine.parts"])
def test_a_digest_without_importing_follows_the_same_files(line: str, written: Path) -> None:
    (written / "mine").mkdir()
    (written / "mine" / "__init__.py").write_text("")
    (written / "mine" / "unused.py").write_text("")
    (written / "mine" / "parts.py").write_text("def part():\n    return 'moo'\n")
    (written / "mine" / "sounds.py").write_text(f"import absent_too\n\n\ndef moo():\n    {line}\n")
    first = entry_digest("mine.sounds:moo", "sound")
    assert "mine.sounds" not in sys.modules
    (written / "mine" / "unused.py").write_text("# changed\n")
    assert entry_digest("mine.sounds:moo", "sound") == first
    (written / "mine" / "parts.py").write_text("def part():\n    return 'moooo'\n")
    assert entry_digest("mine.sounds:moo", "sound") != first
    assert entry_digest("mine.sounds:other", "sound") != entry_digest("mine.sounds:moo", "sound")


@pytest.mark.parametrize("path", ["mine_absent:moo", "mine_absent.part:moo"])
def test_there_is_no_digest_of_an_absent_module(path: str, written: Path) -> None:
    with pytest.raises(RecipeError, match="there is no module 'mine_absent'"):
        entry_digest(path, "sound")


def test_an_installed_package_stands_for_itself() -> None:
    assert entry_digest("pytest:fixture", "sound") == entry_digest("pytest:fixture", "sound")
    assert len(entry_digest("json:dumps", "sound")) == 24


def test_the_digest_of_partials_and_instances_is_that_of_what_they_are_made_of(written: Path) -> None:
    (written / "mine_sounds.py").write_text("def moo(times):\n    return times * 'moo'\n\n\nclass Cow:\n    pass\n")
    moo: Callable[..., object] = imported("mine_sounds:moo")
    cow = sys.modules["mine_sounds"].Cow
    assert source_digest(functools.partial(moo, 1)) == source_digest(moo)
    assert source_digest(cow()) == source_digest(cow)
    assert source_digest(cow) != source_digest(moo)


def test_what_has_no_source_has_no_digest() -> None:
    namespace: dict[str, object] = {"__name__": "typed_in"}
    exec("def moo():\n    return 'moo'\n", namespace)
    with pytest.raises(RecipeError, match="typed_in:moo has no source"):
        source_digest(namespace["moo"])
    assert source_digest(len) == source_digest(len)


def test_a_value_of_a_module_is_told_apart_by_the_module_that_says_what_it_is(written: Path) -> None:
    (written / "mine_value.py").write_text("from fractions import Fraction\nhalf = Fraction(1, 2)\n")
    entry = import_entry("mine_value:half", "sound")
    before = part_digest(entry, "mine_value:half", "sound")
    assert part_digest(entry, "mine_value:half", "sound") == before != source_digest(entry)
    (written / "mine_value.py").write_text("from fractions import Fraction\nhalf = Fraction(1, 3)\n")
    assert part_digest(entry, "mine_value:half", "sound") != before


def test_a_class_is_made_with_options_and_a_failure_names_its_line(written: Path) -> None:
    (written / "mine_class.py").write_text(
        "class Box:\n    def __init__(self, side=1):\n        self.area = 1 / side\n\ndef plain(): ...\n"
    )
    assert make_entry("mine_class:Box", "sound", side=4).area == 0.25
    assert make_entry("mine_class:plain", "sound") is import_entry("mine_class:plain", "sound")
    with pytest.raises(
        RecipeError, match=r"sound: mine_class:Box failed \(ZeroDivisionError: .*\) in mine_class.py, l"
    ):
        make_entry("mine_class:Box", "sound", side=0)


def test_a_module_that_fails_is_told_with_its_line(written: Path) -> None:
    (written / "mine_fails.py").write_text("import os\n\nos.nothing\n")
    with pytest.raises(RecipeError, match=r"cannot be imported \(AttributeError: .*\) in mine_fails.py, line 3\."):
        import_entry("mine_fails:x", "sound")
    (written / "mine_syntax.py").write_text("x = 1\ndef (\n")
    with pytest.raises(RecipeError, match=r"cannot be imported \(SyntaxError: .*\) in mine_syntax.py, line 2\."):
        import_entry("mine_syntax:x", "sound")
