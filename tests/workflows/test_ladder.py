"""A search for the best network leaves a usable run, whatever the data, the time and what goes wrong on its way."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from PIL import Image

import budwood as bw
from budwood.config.recipe import Recipe
from budwood.data.dataset import Dataset
from budwood.data.shapes import ResizeChoice
from budwood.errors import StorageError, WeightsError
from budwood.evaluation.ensembles import Selection
from budwood.inference.bundle import make_prefix
from budwood.inference.feature_cache import find_missing_features, keep_features
from budwood.networks.local_trunks import OWN_COST, LocalTrunk
from budwood.networks.registry import TRUNK
from budwood.runs.ladder_record import LadderRecord
from budwood.runs.look_ledger import LEDGER
from budwood.runs.preflight import check_and_plan
from budwood.runs.run import Run, open_run
from budwood.storage.context import open_context
from budwood.storage.eviction import measure_cache
from budwood.training import head_selection
from budwood.training.candidate_choice import CandidateChoice, choose_candidate
from budwood.workflows import flips, frozen_rung, joint_rung, ladder, ladder_rules, ladder_state, tuned_rung
from budwood.workflows.ladder import search
from budwood.workflows.ladder_verdict import is_mean_better
from conftest import Notes, fill, picture, run_command

NAME: Final = "tf_efficientnet_lite0"
LITE0: Final = LocalTrunk(NAME, "timm", OWN_COST[NAME][0], 0.751, OWN_COST[NAME][1])
OTHER: Final = LocalTrunk("tf_efficientnet_lite1", "timm", 240, 0.766, OWN_COST["tf_efficientnet_lite1"][1])
SMALL: Final[dict[str, Any]] = {"size": 64}


@pytest.fixture(autouse=True)
def one_trunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """One network is at hand."""
    monkeypatch.setattr(frozen_rung, "list_local_trunks", lambda _: (LITE0,))


def shorten_tuning(patch: pytest.MonkeyPatch) -> None:
    """Fine-tuning takes an epoch or two, and is tried however short the time."""
    patch.setattr(ladder_rules, "MEASURING", 0.0)
    patch.setattr(tuned_rung, "SURE", 1.0)
    patch.setattr(ladder_rules, "WRITING", 0.0)
    patch.setattr(ladder_rules, "WORTHWHILE", 0.0)
    patch.setattr(ladder_rules, "EPOCHS", (1, 1))
    patch.setattr(ladder_rules, "VIEWS", (1, 1, 1))


def climb(data: Dataset, out: Path, quick: bool = True, notes: Notes | None = None, **given: Any) -> Run:
    """The best run of a search that is called `x`."""
    options = {**SMALL, "time": 60.0, **given}
    return search(data, options, quick, out, "drop", open_context(None, notes), id="x", novelty=False)


def read_record(run: Run) -> LadderRecord:
    record = run.record.ladder
    assert record is not None
    return record


def make_photos(folder: Path, each: int, classes: int = 2, side: int = 40) -> Path:
    """Classes of pictures with a bright mark at a place of their own, and noise that hides it somewhat."""
    for label in range(classes):
        place = folder / f"class{label:02}"
        place.mkdir(parents=True, exist_ok=True)
        for number in range(each):
            random = np.random.default_rng(1000 * label + number)
            pixels = random.integers(0, 150, (side, side, 3), dtype=np.uint8)
            start = 2 + (label * 7) % (side - 14)
            pixels[start : start + 12, 10:30, label % 3] += 80
            Image.fromarray(pixels).save(place / f"{number:03}.png")
    return folder


def fill_two(folder: Path) -> Path:
    """Two classes that every network tells apart."""
    for hue, name in enumerate(("leaf", "sky")):
        fill(folder / name, 30, hue=hue)
    return folder


def make_twenty(folder: Path) -> Path:
    return make_photos(folder, 10)


def make_imbalanced(folder: Path) -> Path:
    """Of one class a single image outside of the test split."""
    fill(folder / "train" / "often", 100, hue=1)
    fill(folder / "train" / "rare", 1, hue=2)
    fill(folder / "test" / "often", 10, first=200, hue=1)
    fill(folder / "test" / "rare", 2, first=200, hue=2)
    return folder


def make_many_classes(folder: Path) -> Path:
    for label in range(60):
        fill(folder / f"class{label:02}", 3, first=10 * label, hue=label % 3)
    return folder


def make_grey(folder: Path) -> Path:
    for hue, name in enumerate(("leaf", "sky")):
        for file in fill(folder / name, 20, hue=hue):
            Image.open(file).convert("L").save(file)
    return folder


def make_sizes(folder: Path) -> Path:
    for hue, name in enumerate(("leaf", "sky")):
        for number, file in enumerate(fill(folder / name, 20, hue=hue)):
            picture(100 * hue + number, hue, 28).save(file)
    picture(999, 0, 3000).save(folder / "leaf" / "large.png")
    return folder


def make_table(folder: Path) -> Path:
    """A table of images with several labels, or none."""
    rows = ["path,labels"]
    for hue, labels in enumerate(("cat", "dog", "cat; dog")):
        rows += [f"{file},{labels}" for file in fill(folder / f"{hue}", 14, hue=hue)]
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
    return folder / "table.csv"


def make_without_val(folder: Path) -> Path:
    for split, first in (("train", 0), ("test", 50)):
        for hue, name in enumerate(("leaf", "sky")):
            fill(folder / split / name, 20, first=first, hue=hue)
    return folder


def make_leaking(folder: Path) -> Path:
    """Copies of training images in the test split."""
    make_without_val(folder)
    for number in range(5):
        picture(number, 0).save(folder / "test" / "leaf" / f"copy{number}.png")
    return folder


KINDS: Final[dict[str, Callable[[Path], Path]]] = {
    "twenty images": make_twenty,
    "one image of a class": make_imbalanced,
    "60 classes of 3": make_many_classes,
    "grey": make_grey,
    "28 and 3,000 pixels": make_sizes,
    "several labels": make_table,
    "no val split": make_without_val,
    "copies in the test split": make_leaking,
}


OFTEN: Final = ("several labels",)  # the others are slow tests


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[] if kind in OFTEN else [pytest.mark.slow]) for kind in KINDS]
)
def test_every_kind_of_data_gets_a_run_that_its_recipe_makes_again(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(frozen_rung, "COMPARING", 0.002)  # so that folds are drawn once or twice
    source = KINDS[kind](tmp_path / "photos")
    data = bw.scan(source)
    best = climb(data, tmp_path / "runs")
    record = read_record(best)
    assert best.record.state == "done"
    assert (record.best, record.budget) == (best.record.id, 60.0)
    assert record.seconds < 60
    assert record.images == record.of == len(best.dataset().samples("train"))
    assert {rung.name for rung in record.rungs} == {"frozen"}
    rung = record.find_best()
    assert rung is not None
    assert rung.chosen is not None
    assert rung.kept
    chosen, made = Recipe(**rung.candidates[rung.chosen].recipe).table(), best.recipe.table()
    assert all(made[name] == chosen[name] for name in rung.candidates[rung.chosen].recipe)
    assert record.longer == 60.0
    assert "Without --quick the network would be fine-tuned, too." in record.advice
    assert (
        "No option said how to train, so Budwood searched for the best network"
        in (best.path / "report.html").read_text()
    )
    assert best.record.test is None
    assert not (tmp_path / "runs" / LEDGER).exists(), "the test split is sealed"

    recipe = best.path / "recipe.toml"
    run_command(capsys, "train", source, "--recipe", recipe, "--out", tmp_path / "again")
    again = bw.open_run(next((tmp_path / "again").glob("*/run.json")).parent)
    assert again.record.ladder is None
    assert np.array_equal(again.predictions("val").logits, best.predictions("val").logits)


@pytest.fixture(scope="module")
def photos200(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 100 pictures."""
    return make_photos(tmp_path_factory.mktemp("pictures") / "photos", 100)


@pytest.fixture
def known_flips(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Mirroring left to right is harmless; how often that was measured is counted."""
    measured: list[str] = []

    def measure(search: ladder_state.Ladder) -> ladder_state.FlipFindings:
        measured.append(search.id)
        return ladder_state.FlipFindings(("h",), "Mirroring left to right: classes stay.")

    monkeypatch.setattr(flips, "_measure_flips", measure)
    return measured


@pytest.fixture(scope="module")
def whole(photos200: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The best run of a search on all rungs, with two networks at hand."""
    with pytest.MonkeyPatch.context() as patch:
        shorten_tuning(patch)
        patch.setattr(frozen_rung, "list_local_trunks", lambda _: (OTHER, LITE0))
        patch.setattr(tuned_rung, "choose_freeze_stage", lambda _: "blocks.4")
        out = tmp_path_factory.mktemp("whole") / "runs"
        patch.setattr(frozen_rung, "COMPARING", 0.0005)  # so that folds are drawn a few times
        return climb(bw.scan(photos200), out, quick=False, time=3000.0)


class TestWholeLadder:
    def test_every_rung_leaves_a_run_and_the_best_says_so(self, whole: Run) -> None:
        record = read_record(whole)
        names = [rung.name for rung in record.rungs]
        assert names[0] == "frozen"
        assert names.count("fine-tuned") == 2, "the last stages, then all"
        assert names[-1] == "together"
        assert record.best == whole.record.id
        left = {rung.run for rung in record.rungs if rung.run}
        assert left <= {file.parent.name for file in whole.path.parent.glob("*/run.json")}
        for rung in record.rungs[1:]:
            if rung.run:
                assert rung.gain is not None
                assert rung.p is not None
        assert [rung.ended for rung in record.rungs] == sorted(rung.ended for rung in record.rungs)
        assert record.seconds < record.budget
        assert whole.record.test is None

    def test_the_other_network_was_compared(self, whole: Run) -> None:
        frozen = [rung for rung in read_record(whole).rungs if rung.name == "frozen"][-1]
        tried = {one.name for one in frozen.candidates if one.state == "tried"}
        assert {"tf_efficientnet_lite0, 64 pixels", "tf_efficientnet_lite1, 64 pixels"} <= tried
        assert all(one.accuracy is not None and one.loss is not None for one in frozen.candidates)
        assert [place for place, one in enumerate(frozen.candidates) if one.difference is None] == [frozen.chosen]

    def test_other_runs_of_the_search_have_no_record_of_it(self, whole: Run) -> None:
        others = [open_run(file.parent) for file in whole.path.parent.glob("*/run.json")]
        assert [one.record.ladder is None for one in others].count(False) == 1

    def test_the_recipe_of_a_fine_tuned_run_makes_it_again(self, whole: Run, photos200: Path, tmp_path: Path) -> None:
        id = next(rung.run for rung in read_record(whole).rungs if rung.name == "fine-tuned" and rung.run)
        tuned = open_run(whole.path.parent / str(id))
        assert tuned.recipe.freeze == "upto:blocks.4"
        assert tuned.recipe.probe
        assert tuned.recipe.trained_norm == "eval", "the head was solved on features of these statistics"
        assert tuned.recipe.size == 64
        again = bw.train(bw.scan(photos200), tuned.recipe, out=tmp_path, novelty=False)
        assert again.record.metrics["val"] == tuned.record.metrics["val"]

    def test_the_report_shows_the_rungs(self, whole: Run) -> None:
        page = (whole.path / "report.html").read_text()
        assert "loss minus chosen, nats" in page
        assert "Together: several networks of the rungs above answer as one" in page


class TestPlan:
    @pytest.mark.parametrize(("time", "fits"), [(10.0, False), (300.0, True)])
    def test_networks_are_joined_only_where_there_is_time_for_several(
        self, photos200: Path, tmp_path: Path, time: float, fits: bool
    ) -> None:
        given = {**SMALL, "time": time}
        rows, _, _ = ladder.plan_search(bw.scan(photos200), given, False, tmp_path, "drop", open_context(None, None))
        assert [row.fits for row in rows if row.rung == "together"] == [fits]


class TestAnytime:
    def test_a_short_time_is_enough_for_the_first_network(
        self, photos200: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(frozen_rung, "list_local_trunks", lambda _: (OTHER, LITE0))
        best = climb(bw.scan(photos200), tmp_path, quick=False, time=1.0)
        record = read_record(best)
        assert record.best == best.record.id == "x-1"
        states = {one.name: one.state for rung in record.rungs for one in rung.candidates}
        assert states["tf_efficientnet_lite0, 64 pixels"] == "tried"
        assert states["tf_efficientnet_lite1, 64 pixels"] == states["the last stages"] == "no time"
        assert record.longer == ladder.LONGER
        assert "More time would let 2 candidates more be tried" in record.advice

    def test_ctrl_c_in_fine_tuning_keeps_the_frozen_network(
        self, photos200: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shorten_tuning(monkeypatch)

        def interrupt(_: object) -> None:
            raise KeyboardInterrupt

        options, notes = {**SMALL, "time": 120.0}, Notes()
        context = open_context(None, notes)
        data = bw.scan(photos200)
        best = search(data, options, False, tmp_path, "drop", context, id="x", novelty=False, on_epoch_end=interrupt)
        record = read_record(best)
        assert best.record.id == "x-1"
        assert record.interrupted
        assert record.longer == 120.0
        assert record.advice.startswith("The same command goes on faster another time")
        assert {rung.name for rung in record.rungs} == {"frozen"}
        assert (
            "It was interrupted (Ctrl-C), and the best network so far was kept."
            in (best.path / "report.html").read_text()
        )
        assert "Interrupted: the best network so far is kept." in notes.kept

    @pytest.mark.parametrize("step", ["add_novelty", "write_reports"])
    def test_ctrl_c_while_the_search_ends_keeps_the_network(
        self, step: str, photos200: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        usual, calls = getattr(ladder, step), []

        def interrupt_once(*given: object) -> object:
            calls.append(given)
            if len(calls) == 1:
                raise KeyboardInterrupt
            return usual(*given)

        monkeypatch.setattr(ladder, step, interrupt_once)
        notes = Notes()
        options = {**SMALL, "time": 60.0}
        best = search(bw.scan(photos200), options, True, tmp_path, "drop", open_context(None, notes), id="x")
        assert read_record(best).interrupted
        assert read_record(open_run(best.path)).interrupted
        assert "How this network was found" in (best.path / "report.html").read_text()
        assert "Interrupted: the best network so far is kept." in notes.kept

    def test_ctrl_c_before_there_is_a_network_ends_it(
        self, photos200: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(frozen_rung, "choose_candidate", interrupt)
        with pytest.raises(KeyboardInterrupt):
            climb(bw.scan(photos200), tmp_path)
        assert not list(tmp_path.glob("*/run.json"))

    @pytest.mark.parametrize("as_json", [False, True])
    def test_the_command_prints_what_it_has_and_says_that_it_was_interrupted(
        self,
        as_json: bool,
        photos200: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        def interrupt(_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(ladder, "STEPS", (("fine-tuned", interrupt),))
        flags = ["--json"] if as_json else []
        out, err = run_command(capsys, "train", photos200, "--size", "64", "--out", tmp_path / "runs", *flags, code=130)
        assert "Interrupted: the best network so far is kept." in err
        if as_json:
            document = json.loads(out)
            assert document["ladder"]["interrupted"]
            assert document["state"] == "done"
        else:
            assert "until it was interrupted: 2 candidates were tried." in " ".join(out.split())
            assert "Time of this run alone: " in out, "beside the time of the search"
            assert "Total time" not in out

    def test_a_rung_that_fails_costs_only_that_rung(
        self, photos200: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise WeightsError("The weights went away.", "Put them back.")

        shorten_tuning(monkeypatch)
        monkeypatch.setattr(tuned_rung, "_measure", fail)
        notes = Notes()
        best = climb(bw.scan(photos200), tmp_path, quick=False, notes=notes)
        failed = next(rung for rung in read_record(best).rungs if rung.name == "fine-tuned")
        assert [one.state for one in failed.candidates] == ["failed"]
        assert failed.note == "The weights went away."
        assert "This step failed, and the best network so far is kept: The weights went away." in notes.kept
        assert best.record.state == "done"

    def test_a_disk_that_is_full_when_another_network_is_better_keeps_the_first(
        self, photos200: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known_flips: list[str]
    ) -> None:
        def fill_up(*_: object, **__: object) -> None:
            raise StorageError(f"{tmp_path}: the disk is full.", "Make room.")

        first = frozen_rung._train_head

        def train(search: ladder_state.Ladder, head: ladder_state.TriedHead) -> None:
            if search.runs:
                fill_up()
            first(search, head)

        monkeypatch.setattr(frozen_rung, "_train_head", train)
        monkeypatch.setattr(frozen_rung._Comparison, "find_best", lambda self: self._ladder.heads[0])  # not chosen
        best = climb(bw.scan(photos200), tmp_path)
        record = read_record(best)
        assert record.best == "x-1"
        assert record.rungs[-1].name == "frozen"
        assert record.rungs[-1].note == f"{tmp_path}: the disk is full."
        assert [one.state for one in record.rungs[-1].candidates] == ["failed"]

    def test_a_second_network_without_its_weights_is_told(
        self, photos200: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        known = frozen_rung._plan_heads

        def plan(search: ladder_state.Ladder, candidate: ladder_rules.FrozenCandidate) -> Any:
            if candidate.trunk is OTHER:
                raise WeightsError("lite1: its weights cannot be read.", "Fetch them again.")
            return known(search, candidate)

        monkeypatch.setattr(frozen_rung, "list_local_trunks", lambda _: (OTHER, LITE0))
        monkeypatch.setattr(frozen_rung, "_plan_heads", plan)
        best = climb(bw.scan(photos200), tmp_path)
        states = {one.name: (one.state, one.note) for rung in read_record(best).rungs for one in rung.candidates}
        assert states["tf_efficientnet_lite1, 64 pixels"] == ("failed", "lite1: its weights cannot be read.")
        assert best.recipe.model == NAME


class TestFrozenTeam:
    """Frozen networks are joined by what they say of all images that they have not seen."""

    @pytest.fixture
    def two_shapes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Cropped and squashed images are compared."""
        both = ResizeChoice(("crop", "squash"), "Neither is known to be better.")
        monkeypatch.setattr(frozen_rung, "choose_resize", lambda _: both)

    @pytest.mark.usefixtures("two_shapes")
    def test_they_are_joined_where_their_mean_is_better(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        picks = Selection(np.array([2, 1]), 0.1, (0.1,))
        monkeypatch.setattr(joint_rung, "is_mean_better", lambda true, best: len(true) == 2 and best == 0)
        monkeypatch.setattr(joint_rung, "select_greedily", lambda true: picks)
        best = climb(bw.scan(make_photos(tmp_path / "photos", 30)), tmp_path / "runs", quick=False)
        made, rung = best.record.ensemble, read_record(best).rungs[-1]
        assert made is not None
        assert (made.rule, [member.weight for member in made.members]) == ("equal", [0.5, 0.5])
        assert {one.recipe.resize for one in best.members()} == {"crop", "squash"}
        assert (rung.name, rung.kept, rung.run) == ("together", True, best.record.id)
        assert rung.note.startswith("Kept: on held-out images the mean of them is better")

    @pytest.mark.usefixtures("two_shapes")
    def test_they_are_not_where_it_is_no_better(self, tmp_path: Path) -> None:
        best = climb(bw.scan(fill_two(tmp_path / "photos")), tmp_path / "runs", quick=False)
        assert best.record.ensemble is None

    def test_the_mean_of_networks_that_err_apart_is_better_and_that_of_copies_is_not(self) -> None:
        random = np.random.default_rng(0)
        one, other = (np.where(random.random(400) < 0.2, 0.05, 0.9) for _ in range(2))
        assert is_mean_better([one, other], 0)
        assert not is_mean_better([one, one], 0)
        assert not is_mean_better([one], 0)


class TestVariants:
    def test_the_mirror_image_is_tried_where_it_is_harmless(
        self, photos200: Path, tmp_path: Path, known_flips: list[str]
    ) -> None:
        best = climb(bw.scan(photos200), tmp_path)
        rung = [rung for rung in read_record(best).rungs if rung.name == "frozen"][-1]
        mirrored = [one for one in rung.candidates if one.name.endswith(", with mirror image")]
        assert len(mirrored) == 1
        assert mirrored[0].recipe["tta"] == "flip"
        assert mirrored[0].accuracy is not None
        assert known_flips == ["x"], "measured once"
        assert best.recipe.tta == ("flip" if rung.candidates[rung.chosen or 0] is mirrored[0] else "none")

    @pytest.mark.parametrize(("given", "time"), [({"tta": "flips"}, 60.0), ({"tta": "none"}, 60.0), ({}, 1.0)])
    def test_not_where_the_user_has_decided_or_time_is_short(
        self, given: dict[str, Any], time: float, photos200: Path, tmp_path: Path, known_flips: list[str]
    ) -> None:
        best = climb(bw.scan(photos200), tmp_path, **given, time=time)
        assert not any("mirror" in one.name for rung in read_record(best).rungs for one in rung.candidates)
        assert best.recipe.tta == given.get("tta", "none")
        assert not known_flips

    def test_not_where_it_changes_classes(
        self, photos200: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(flips, "_measure_flips", lambda _: ladder_state.FlipFindings(("v",), ""))
        best = climb(bw.scan(photos200), tmp_path)
        assert not any("mirror" in one.name for rung in read_record(best).rungs for one in rung.candidates)

    def test_a_metric_of_classes_compares_by_itself_and_raises_rare_ones(self, tmp_path: Path) -> None:
        folder = tmp_path / "photos"
        make_photos(folder, 16)
        make_photos(tmp_path / "more", 120)
        (tmp_path / "more" / "class00").rename(folder / "often")
        best = climb(bw.scan(folder), tmp_path / "runs", select="macro_f1")
        record = read_record(best)
        rung = [rung for rung in record.rungs if rung.name == "frozen"][-1]
        raised = next(one for one in rung.candidates if one.name.endswith(", rare classes raised"))
        assert raised.recipe["logit_adjustment"] == 1.0
        assert record.metric == "macro_f1"
        assert best.recipe.select == "macro_f1"
        page = (best.path / "report.html").read_text()
        assert "macro F1 minus chosen, points" in page
        assert "nats" not in page[page.index("macro F1 minus chosen") : page.index("macro F1 minus chosen") + 3000]

    @pytest.mark.parametrize("given", [{"class_weights": True}, {"logit_adjustment": 0.5}, {"select": "accuracy"}])
    def test_rare_classes_are_not_raised_twice_or_unasked(
        self, given: dict[str, Any], photos200: Path, tmp_path: Path
    ) -> None:
        best = climb(bw.scan(photos200), tmp_path, **{"select": "macro_f1", **given}, taps=("blocks.5",))
        assert not any("raised" in one.name for rung in read_record(best).rungs for one in rung.candidates)
        assert all(getattr(best.recipe, name) == value for name, value in given.items())


def test_fine_tuning_raises_rare_classes_where_the_frozen_network_does(
    photos200: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, tuned = choose_candidate, []

    def choose(scores: Any, *rest: Any) -> CandidateChoice:
        choice = known(scores, *rest)
        return replace(choice, chosen=2) if len(scores) == 3 else choice

    def tune(_: ladder_state.Ladder, base: dict[str, Any], *__: Any) -> None:
        tuned.append(base)

    shorten_tuning(monkeypatch)
    monkeypatch.setattr(frozen_rung, "choose_candidate", choose)
    monkeypatch.setattr(tuned_rung, "_tune", tune)
    best = climb(bw.scan(photos200), tmp_path, quick=False, select="balanced_accuracy")
    assert best.recipe.logit_adjustment == 1.0
    assert tuned
    assert all(base["logit_adjustment"] == 1.0 for base in tuned)


class TestUncompared:
    def test_the_head_on_most_stages_is_taken_and_that_is_said(
        self, photos200: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(frozen_rung, "TOO_LONG", 0.0)
        monkeypatch.setattr(head_selection, "RATE", 1.0)
        monkeypatch.setattr(frozen_rung, "list_local_trunks", lambda _: (OTHER, LITE0))
        notes = Notes()
        best = climb(bw.scan(photos200), tmp_path, notes=notes)
        record = read_record(best)
        assert record.compared.startswith("Heads were not compared: with 2 classes that takes about ")
        assert record.compared in notes.kept
        assert best.recipe.taps
        (rung,) = record.rungs
        assert [one.state for one in rung.candidates] == ["tried", "no time"]
        assert rung.chosen == 0
        assert record.compared.rstrip(".") in (best.path / "report.html").read_text()


class TestCache:
    def test_a_small_limit_of_the_cache_holds(
        self, photos200: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        limit = 2**20
        monkeypatch.setenv("BUDWOOD_CACHE_LIMIT", f"{limit}b")
        cache = tmp_path / "cache"
        notes = Notes()
        best = search(
            bw.scan(photos200),
            {**SMALL, "time": 60.0},
            True,
            tmp_path / "runs",
            "drop",
            open_context(cache, notes),
            id="x",
            novelty=False,
        )
        assert best.record.state == "done"
        kept = sum(one.bytes for one in measure_cache(cache) if one.kind in ("outputs", "pixels"))
        assert kept <= limit
        assert any("are not kept in the cache" in note or "The cache was full" in note for note in notes.kept)

    def test_features_that_are_kept_for_fewer_stages_obey_it(
        self, photos200: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        notes = Notes()
        context = open_context(tmp_path / "cache", notes)
        flight = check_and_plan(bw.scan(photos200), Recipe(model=NAME, size=64), tmp_path, "drop", context)
        prefix, samples = make_prefix(flight.spec, TRUNK, context.cache), flight.training
        values = np.zeros((len(samples), *prefix.shape), np.float32)
        monkeypatch.setenv("BUDWOOD_CACHE_LIMIT", "100kb")
        keep_features(prefix, samples, values, notes)
        assert len(find_missing_features(prefix, samples)) == len(samples)
        assert "are not kept in the cache" in notes.kept[-1]
        monkeypatch.delenv("BUDWOOD_CACHE_LIMIT")
        keep_features(prefix, samples, values, notes)
        assert not find_missing_features(prefix, samples)
