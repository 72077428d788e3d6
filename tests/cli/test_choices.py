"""Yes and no as flags, and choices without regard to case."""

from __future__ import annotations

import click
import pytest

from budwood.cli.main import app, run
from budwood.cli.options import make_recipe_flags, read_settings
from budwood.config.recipe import Recipe

SWITCHES = ["batch_norm", "nesterov", "decay_norms", "norm_affine", "probe", "class_weights", "balanced_sampling"]


def _values(*words: str) -> dict[str, object]:
    """The values that `train` gets."""
    return app.commands["train"].make_context("train", ["photos", *words]).params


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ([], None),
        (["--nesterov"], True),
        (["--no-nesterov"], False),
        (["--nesterov", "true"], True),
        (["--nesterov", "False"], False),
        (["--nesterov=no"], False),
        (["--nesterov=1"], True),
        (["--Nesterov", "OFF"], False),
        (["--nesterov", "--epochs", "3"], True),
    ],
)
def test_a_switch_is_a_flag_and_may_have_a_word(words: list[str], value: bool | None) -> None:
    assert _values(*words)["nesterov"] is value


def test_a_switch_leaves_the_argument_after_it_alone() -> None:
    values = app.commands["train"].make_context("train", ["--nesterov", "photos"]).params
    assert (values["data"], values["nesterov"]) == ("photos", True)


def test_a_switch_with_another_word_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "photos", "--nesterov=maybe"]) == 2
    assert "--nesterov: expected --nesterov or --no-nesterov, found 'maybe'." in capsys.readouterr().err


@pytest.mark.parametrize("name", SWITCHES)
def test_every_option_for_yes_or_no_is_a_switch(name: str) -> None:
    flag = next(each for each in make_recipe_flags() if each.name == name)
    words = name.replace("_", "-")
    assert (flag.opts, flag.secondary_opts) == ([f"--{words}"], [f"--no-{words}"])


def test_a_switch_reaches_the_recipe() -> None:
    given = {name: value for name, value in _values("--optimizer", "SGD", "--nesterov").items() if value is not None}
    chosen = Recipe(optimizer=str(given["optimizer"]), nesterov=given["nesterov"])
    assert (chosen.optimizer, chosen.nesterov) == ("sgd", True)


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--optimizer", "AdamW"], "optimizer", "adamw"),
        (["--resize", "PAD"], "resize", "pad"),
        (["--select", "Accuracy"], "select", "accuracy"),
        (["--freeze", "None"], "freeze", "none"),
        (["--freeze", "upto:Layer1"], "freeze", "upto:Layer1"),
        (["--weights", "ImageNet"], "weights", "imagenet"),
        (["--lr", "AUTO"], "lr", "auto"),
        (["--lr", "1e-3"], "lr", "1e-3"),
        (["--model", "ResNet18"], "model", "resnet18"),
        (["--model", "My.Package:Net"], "model", "My.Package:Net"),
        (["--conv-norm", "Between"], "conv_norm", "between"),
        (["--leaks", "Refuse"], "leaks", "refuse"),
        (["--optimizer", "SDG"], "optimizer", "SDG"),
    ],
)
def test_a_choice_may_have_any_case(words: list[str], name: str, value: str) -> None:
    assert _values(*words)[name] == value


def test_a_setting_may_have_any_case() -> None:
    given = ["optimizer=SGD", "resize=Pad", "epochs=3", "nesterov=true", "other=THIS"]
    assert read_settings(given) == {"optimizer": "sgd", "resize": "pad", "epochs": 3, "nesterov": True, "other": "THIS"}


def test_a_word_that_is_none_is_still_told_with_all_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "elpv", "--optimizer", "SDG", "--epochs", "1"]) == 2
    assert "found 'SDG'" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(app.commands))
def test_no_choice_of_any_command_regards_case(name: str) -> None:
    for parameter in app.commands[name].params:
        if isinstance(parameter.type, click.Choice):
            assert not parameter.type.case_sensitive, parameter.name
