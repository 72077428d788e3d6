"""Objects of the user's own: their names in recipes, what tells them apart, what other programs are told."""

from __future__ import annotations

import copy
import functools
import pickle
import tomllib
from typing import Any

import numpy as np
import pytest
import torch

from budwood.config.own_calls import find_moments, takes_batch, takes_generator, takes_keyword
from budwood.config.own_objects import (
    ObjectName,
    describe_state,
    explain_unportable,
    is_portable,
    make_failure,
    name_object,
)
from budwood.config.recipe import Recipe
from budwood.config.registry import entry_digest, import_entry
from budwood.config.resolved_recipe import own_parts, resolve
from budwood.errors import RecipeError


class Loss:
    """A loss with an option."""

    def __init__(self, gamma: float = 2.0) -> None:
        self.gamma = gamma

    def __call__(self, logits: Any, targets: Any) -> Any:
        return (logits * targets).sum(1) * self.gamma


HELD = Loss(3.0)


def scaled(by: float) -> Any:
    return lambda logits, targets: (logits * targets).sum(1) * by


def test_what_a_module_holds_is_named_and_all_else_travels_with_its_name() -> None:
    assert name_object(Loss) == f"{__name__}:Loss"
    assert name_object(HELD) == f"{__name__}:HELD"
    assert name_object("focal") == "focal"
    for made, name in ((scaled(2), "lambda"), (Loss(), "Loss"), (functools.partial(scaled, 2), "partial")):
        named = name_object(made)
        assert isinstance(named, ObjectName)
        assert named.endswith(f":<{name}>")
        assert import_entry(named, "loss") is made
        assert not is_portable(named)
    assert is_portable(f"{__name__}:Loss")
    assert not is_portable("__main__:Loss")


def test_a_recipe_keeps_objects_and_is_read_back_without_them() -> None:
    made = scaled(2)
    given = Recipe(
        freeze="none", loss=made, transform=[lambda image: image, {"name": made, "by": 3}], callbacks=made, metrics=made
    )
    again = Recipe(**given.table())
    assert again == given
    assert resolve(again, False, 16).loss.name.entry is made  # type: ignore[attr-defined]
    assert import_entry(resolve(again, False, 16).augmentation.own[1].name, "transform") is made
    for other in (pickle.loads(pickle.dumps(given)), Recipe(**tomllib.loads(given.toml()))):
        assert other == given
        with pytest.raises(RecipeError, match=r"loss: .*:<lambda> was defined in the script, the notebook or") as said:
            own_parts(other)
        assert "Write it into a module" in said.value.hint
    assert copy.deepcopy(given).loss.entry is made  # type: ignore[union-attr]


def test_a_name_of_main_that_is_not_there_is_lost() -> None:
    with pytest.raises(RecipeError, match="loss: __main__:Nothing was defined in the script"):
        import_entry("__main__:Nothing", "loss")


def test_objects_are_told_apart_by_what_they_hold() -> None:
    digests = [entry_digest(str_name(made), "loss") for made in (scaled(2), scaled(3), scaled(2), Loss(1), Loss(2))]
    assert digests[0] == digests[2]
    assert len(set(digests)) == 4
    assert describe_state(np.zeros(3)) != describe_state(np.zeros(4))
    assert describe_state([1, {"a": (2,)}]) == describe_state([1, {"a": (2,)}])
    assert describe_state(lambda: 1) != describe_state(lambda: 2)
    assert describe_state(torch.zeros(2, dtype=torch.bfloat16)) != describe_state(torch.zeros(2))
    assert describe_state(torch.ones(2)) == describe_state(torch.ones(2)) != describe_state(torch.zeros(2))
    circle: list[Any] = []
    circle.append(circle)
    assert describe_state(circle) == describe_state(circle)
    assert describe_state(object()) != describe_state(object()), "nothing tells them apart, so they are never the same"


def str_name(made: object) -> str:
    named = name_object(made)
    assert isinstance(named, str)
    return named


def test_what_cannot_be_found_elsewhere_is_said_in_one_sentence() -> None:
    assert explain_unportable({"loss": "mine:Focal"}) == ""
    assert explain_unportable({"loss": "mine:<lambda>", "optimizer": "mine:slow"}) == (
        "loss mine:<lambda> was defined in a script, a notebook or a session, where no other program finds it: "
        "write it into a module if this run is to be resumed later or elsewhere"
    )
    told = explain_unportable({"model": "__main__:Net", "loss": "mine:<Focal>"})
    assert "model __main__:Net, loss mine:<Focal> were defined" in told
    assert "resumed and predicted with later" in told


def test_a_failure_names_the_last_line_of_the_user() -> None:
    code = compile("import json\ndef f():\n    json.loads('{')\n", "/somewhere/mine.py", "exec")
    names: dict[str, Any] = {}
    exec(code, names)
    with pytest.raises(ValueError, match="Expecting") as raised:
        names["f"]()
    assert "loss: mine:f failed (JSONDecodeError" in make_failure(raised.value, "mine:f", "loss").message
    assert make_failure(raised.value, "mine:f", "loss").message.endswith(" in /somewhere/mine.py, line 3.")


def test_how_a_transform_is_called_follows_from_its_arguments() -> None:
    def two(images: Any, generator: Any, strength: float = 1) -> None: ...

    def batch(images: Any) -> None: ...

    def one(image: Any, strength: Any) -> None: ...

    def named(*, image: Any) -> None: ...

    def optional(images: Any, generator: Any = None) -> None: ...

    def any_number(*arguments: Any) -> None: ...

    transforms = (two, optional, any_number, batch, one, named)
    assert [takes_generator(each, {}) for each in transforms] == [True, True, True, False, True, False]
    assert not takes_generator(one, {"strength": 1})
    assert [takes_batch(each) for each in (batch, one, named)] == [True, False, False]
    assert [takes_keyword(each) for each in (batch, one, named)] == [False, False, True]
    assert takes_keyword(type("Blur", (), {"__module__": "albumentations.blur", "__call__": one})())


class Silent:
    """A callback that wants nothing."""


class Other:
    """A callback of another library."""

    def on_batch_end(self, moment: Any) -> None: ...


class Narrow:
    """A callback without an argument."""

    def on_epoch_end(self) -> None: ...


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (Silent, "callbacks: .*Silent has neither on_epoch_end nor on_step_end, found a Silent"),
        (Other, "callbacks: .*Other has on_batch_end, which is never called; there are on_epoch_end and on_step_end"),
        (Narrow, r"callbacks: .*Narrow.on_epoch_end cannot be called as Narrow\.on_epoch_end\(moment\)"),
    ],
)
def test_a_callback_that_nothing_would_call_is_refused(callback: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        own_parts(Recipe(freeze="none", callbacks=callback))


def test_a_function_is_called_after_every_epoch() -> None:
    assert find_moments(print, "builtins:print") == {"on_epoch_end": print}


def test_new_options_change_no_recipe_that_does_not_use_them() -> None:
    assert not {"metrics", "callbacks"} & Recipe(freeze="none").table().keys()
    with pytest.raises(RecipeError, match=r"callbacks: expected your own as package\.module:name, found 'early'"):
        Recipe(freeze="none", callbacks="early")
    with pytest.raises(RecipeError, match="callbacks: optimizer 'lbfgs' does not use it"):
        Recipe(optimizer="lbfgs", callbacks="mine:early")
    assert Recipe(metrics="a:b, c:d").metrics == ("a:b", "c:d")


def test_code_that_was_typed_is_told_apart_without_its_source() -> None:
    names: dict[str, Any] = {"__name__": "typed"}
    exec("first, second = lambda x: x + 1, lambda x: x + 2\nclass Made: ...\nmade = Made()", names)
    digests = [entry_digest(str_name(names[name]), "loss") for name in ("first", "second")]
    assert len({*digests}) == 2
    with pytest.raises(RecipeError, match=r"typed:Made has no source that can be read"):
        entry_digest(str_name(names["made"]), "loss")
