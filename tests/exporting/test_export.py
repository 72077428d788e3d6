"""An exported file answers as its run does, in any process, or there is no file."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from PIL import Image
from test_stages import NETWORKS

import budwood as bw
from budwood.config.recipe import Recipe
from budwood.errors import RunError, StorageError
from budwood.evaluation.novelty import NoveltyScorer, normalise
from budwood.exporting import onnx_file, parity
from budwood.exporting.destination import MARK
from budwood.exporting.formats import ExportFormat, ExportRequest
from budwood.runs.export_record import METADATA_KEY, ExportRecord, parse_export_record
from budwood.runs.predictor import make_predictor
from budwood.storage.context import Context, open_context
from budwood.workflows import export as export_workflow
from conftest import TINY, Notes, fill, picture, run_command

QUICK = ("squeezenet1_1",)
UNEVEN = ("alexnet", "vgg11")  # pool to 6 x 6 or 7 x 7, which the exporter can write at their own size only
FAMILIES = {name: 224 if name in UNEVEN else size for name, size in NETWORKS.items()}
SHAPES = [(1, 1), (1, 400), (400, 30), (2, 3), (16, 16), (17, 16), (40, 40), (75, 93), (300, 200), (640, 480)]


def open_session(file: Path) -> Any:
    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])


def ask(session: Any, image: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"image": image[None]}), strict=True))


def noise(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "photos"
    for hue, name in ((1, "leaf"), (2, "sky")):
        fill(folder / name, 15, hue=hue)
    return folder


@pytest.fixture(scope="module")
def run(photos: Path) -> bw.Run:
    return bw.train(bw.scan(photos), Recipe(**TINY), out=photos.parent / "runs", id="one")


@pytest.fixture(scope="module")
def exported(run: bw.Run) -> Path:
    return bw.export(run, run.path.parent / "model.onnx").path


class TestAnswers:
    @pytest.mark.parametrize("shape", SHAPES)
    def test_are_those_of_the_run_for_any_shape(self, run: bw.Run, exported: Path, shape: tuple[int, int]) -> None:
        image = noise(*shape)
        expected = bw.Predictor.open(run).predict(image, features=True)[0]
        found = ask(open_session(exported), image)
        assert expected.probabilities is not None
        assert expected.features is not None
        np.testing.assert_allclose(found["probabilities"][0], expected.probabilities, atol=1e-6)
        np.testing.assert_allclose(found["features"][0], expected.features, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize(
        "model", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in FAMILIES]
    )
    def test_are_those_of_the_run_for_every_family(self, photos: Path, model: str, tmp_path: Path) -> None:
        recipe = Recipe(model=model, weights="none", size=FAMILIES[model], epochs=1, optimizer="adam", batch=8)
        trained = bw.train(bw.scan(photos), recipe, out=tmp_path / "runs")
        made = bw.export(trained, tmp_path / "model.onnx")
        assert made.record.parity is not None
        assert made.record.parity.largest_difference < 1e-3
        assert made.record.parity.agreement.value == 1

    @pytest.mark.parametrize(
        "changes",
        [
            {"tta": "flips"},
            {"resize": "pad", "interpolation": "bilinear", "channels": 1},
            pytest.param({"resize": "squash", "interpolation": "area", "tta": "flip"}, marks=pytest.mark.slow),
            pytest.param({"interpolation": "nearest"}, marks=pytest.mark.slow),
            pytest.param({"batch_norm": True, "dropout": 0.5}, marks=pytest.mark.slow),
        ],
    )
    def test_are_those_of_the_run_for_other_recipes(
        self, photos: Path, changes: dict[str, Any], tmp_path: Path
    ) -> None:
        trained = bw.train(bw.scan(photos), Recipe(**{**TINY, **changes}), out=tmp_path / "runs")
        record = bw.export(trained, tmp_path / "model.onnx").record
        assert record.parity is not None
        assert record.parity.largest_difference < 1e-5

    def test_of_several_labels_are_sigmoids(self, tmp_path: Path) -> None:
        fill(tmp_path, 40, hue=1)
        rows = [f"{n:03}.png,{'a;b' if n % 3 == 0 else 'a' if n % 2 else 'b'}" for n in range(40)]
        (tmp_path / "labels.csv").write_text("path,labels\n" + "\n".join(rows) + "\n", encoding="utf-8")
        data = bw.scan(tmp_path / "labels.csv")
        trained = bw.train(data, Recipe(**TINY), out=tmp_path / "runs")
        made = bw.export(trained, tmp_path / "model.onnx")
        found = ask(open_session(made.path), noise(30, 50))
        assert made.record.task == "multi-label"
        temperature = np.array(made.record.temperature)
        np.testing.assert_allclose(found["probabilities"], 1 / (1 + np.exp(-found["logits"] / temperature)), rtol=1e-5)
        assert made.record.parity is not None
        assert made.record.parity.agreement.value == 1

    def test_of_an_ensemble_are_the_mean(self, run: bw.Run, photos: Path, tmp_path: Path) -> None:
        other = bw.train(
            bw.scan(photos), Recipe(**{**TINY, "size": 24, "resize": "pad", "seed": 3}), out=tmp_path / "runs"
        )
        both = bw.ensemble([run, other], out=tmp_path / "runs")
        made = bw.export(both, tmp_path / "model.onnx")
        image = noise(33, 71)
        expected = bw.Predictor.open(both).compute_probabilities(image)
        np.testing.assert_allclose(ask(open_session(made.path), image)["probabilities"], expected, atol=1e-6)

    def test_of_two_images_at_once_are_refused_by_its_shape(self, exported: Path) -> None:
        with pytest.raises(Exception, match="image"):
            open_session(exported).run(None, {"image": np.zeros((2, 5, 5, 3), np.uint8)})


@pytest.mark.slow
def test_a_network_without_a_graph_is_refused(photos: Path, tmp_path: Path) -> None:
    recipe = Recipe(model="alexnet", weights="none", size=64, epochs=1, optimizer="adam", batch=8)
    trained = bw.train(bw.scan(photos), recipe, out=tmp_path / "runs")
    with pytest.raises(RunError, match="alexnet cannot be written as an ONNX graph"):
        bw.export(trained, tmp_path / "model.onnx")


class TestRejectScore:
    @pytest.mark.parametrize("method", ["energy", "knn", "mahalanobis"])
    def test_is_that_of_the_run(self, run: bw.Run, method: Any) -> None:
        random = np.random.default_rng(0)
        width = run.record.network.features
        arrays = {
            "energy": {},
            "knn": {"bank": normalise(random.normal(size=(20, width)).astype(np.float32))},
            "mahalanobis": {
                "means": random.normal(size=(2, width)).astype(np.float32),
                "whitening": random.normal(size=(width, width)).astype(np.float32),
            },
        }[method]
        scorer = NoveltyScorer(method, arrays, 0.5)
        context = open_context()
        members = [onnx_file.read_network_graph(run, context, False)]
        record = export_workflow.describe_export(run, members, run.novelty_scorer())
        content = onnx_file.build_model(members, [1.0], run.decision_rule, scorer, record)
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        outputs = bw.Predictor.open(run).compute_outputs(noise(16, 16)[None])
        expected = scorer.score(outputs.features, outputs.logits)
        np.testing.assert_allclose(ask(session, noise(16, 16))["reject_score"], expected, rtol=1e-4)

    def test_is_checked_and_used_by_the_predictor_of_the_file(
        self, run: bw.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        images = [noise(20, 30), noise(50, 10)]
        logits = np.concatenate([bw.Predictor.open(run).compute_outputs(noise(16, 16)[None]).logits])
        middle = float(NoveltyScorer("energy", {}, 0).score(logits[:, :0], logits)[0])
        monkeypatch.setattr(bw.Run, "novelty_scorer", lambda _: NoveltyScorer("energy", {}, middle))
        made = bw.export(run, tmp_path / "model.onnx")
        assert made.record.parity is not None
        assert made.record.parity.same_refusals == made.record.parity.n
        assert made.record.parity.reject_difference is not None
        assert made.record.parity.reject_difference < 1e-3
        one, other = (bw.Predictor.open(place).predict(images) for place in (run, made.path))
        assert [answer.refused for answer in one] == [answer.refused for answer in other]
        assert other[0].strangeness == pytest.approx(one[0].strangeness, rel=1e-4)


def test_images_of_16_bits_are_checked_as_the_run_scales_them(tmp_path: Path) -> None:
    for hue, name in ((1, "leaf"), (2, "sky")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(15):
            grey = np.asarray(picture(1000 * hue + number, hue).convert("L"), np.uint16) * 12 + 40 * hue
            Image.fromarray(grey).save(tmp_path / "photos" / name / f"{number}.png")
    trained = bw.train(bw.scan(tmp_path / "photos"), Recipe(**TINY), out=tmp_path / "runs")
    assert trained.value_range is not None
    made = bw.export(trained, tmp_path / "model.onnx")
    assert made.record.value_range == trained.value_range
    assert made.record.parity is not None
    assert made.record.parity.largest_difference < 1e-5
    file = tmp_path / "photos" / "sky" / "0.png"
    one, other = (bw.Predictor.open(place).predict(file)[0] for place in (trained, made.path))
    assert other.top[0][1] == pytest.approx(one.top[0][1], abs=1e-6)


class TestTheFile:
    def test_tells_how_its_answers_are_read(self, run: bw.Run, exported: Path) -> None:
        metadata = {entry.key: entry.value for entry in onnx.load(exported).metadata_props}
        assert json.loads(metadata["classes"]) == ["leaf", "sky"]
        assert json.loads(metadata["names"]) == {"0": "leaf", "1": "sky"}
        record = parse_export_record(metadata[METADATA_KEY], "it")
        assert record.run == "one"
        assert record.classes == run.classes
        assert record.data == run.record.dataset.fingerprint
        assert record.weights == {"weights.safetensors": run.record.files["weights.safetensors"]}
        assert record.parity is not None
        assert record.parity.images == 30
        assert record.parity.made == 10
        assert record.parity.accuracy.n == record.parity.run_accuracy.n > 0

    def test_is_of_the_standard_and_opset_18_or_later(self, exported: Path) -> None:
        model = onnx.load(exported)
        onnx.checker.check_model(model)
        assert [entry.domain for entry in model.opset_import] == [""]
        assert model.opset_import[0].version >= 18

    def test_has_a_model_card_beside_it(self, exported: Path) -> None:
        assert "The exported file" in exported.with_suffix(".md").read_text(encoding="utf-8")

    def test_of_a_later_version_is_refused(self) -> None:
        with pytest.raises(RunError, match="later version of Budwood"):
            parse_export_record('{"schema_version": 99}', "it")

    def test_with_damaged_metadata_is_refused(self) -> None:
        with pytest.raises(RunError, match="its metadata cannot be read"):
            parse_export_record("{", "it")
        with pytest.raises(RunError, match="its metadata cannot be read"):
            parse_export_record("[" * 100_000, "it")


Change = Callable[[onnx.ModelProto], None]


def shift_bias(model: onnx.ModelProto) -> None:
    tensor = next(t for t in model.graph.initializer if t.name.endswith("head.bias"))
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + np.array([3, 0], np.float32), tensor.name))


def swap_temperature(model: onnx.ModelProto) -> None:
    node = next(node for node in model.graph.node if "probabilities" in node.output)
    node.op_type = "Identity"
    del node.attribute[:]


def darken_image(model: onnx.ModelProto) -> None:
    tensor = next(t for t in model.graph.initializer if t.data_type == 11 and numpy_helper.to_array(t).tolist() == 255)
    tensor.CopyFrom(numpy_helper.from_array(np.array(90.0), tensor.name))


class TestATamperedFileIsRefused:
    @pytest.mark.parametrize(
        ("change", "place"),
        [
            (shift_bias, "the logits"),
            (swap_temperature, "the probabilities, as the logits agree"),
            (darken_image, "the pixels that the network receives"),
        ],
    )
    def test_with_the_place_where_it_differs(
        self, run: bw.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Change, place: str
    ) -> None:
        build = onnx_file.build_model

        def tampered(*arguments: Any) -> bytes:
            model = onnx.load_from_string(build(*arguments))
            change(model)
            return bytes(model.SerializeToString())

        monkeypatch.setattr(export_workflow, "build_model", tampered)
        with pytest.raises(RunError, match="answers otherwise than the run, and was not kept") as refusal:
            bw.export(run, tmp_path / "model.onnx")
        assert f"It begins with {place}" in refusal.value.message
        assert "Furthest apart: " in refusal.value.message
        assert list(tmp_path.iterdir()) == []

    def test_that_cannot_be_run(self, run: bw.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(export_workflow, "build_model", lambda *_: onnx.ModelProto().SerializeToString())
        with pytest.raises(RunError, match="cannot be run by ONNX Runtime"):
            bw.export(run, tmp_path / "model.onnx")
        assert list(tmp_path.iterdir()) == []

    def test_that_only_refuses_otherwise(self) -> None:
        one = parity.Answers(np.full((2, 2), 0.5), np.zeros((2, 2), np.float32), np.array([1.0, 2.0]))
        other = replace(one, reject=np.array([1.0, 3.0]))
        assert parity.list_differing(one, other, 0.005, False) == [1]
        assert parity.list_differing(one, one, 0.005, False) == []

    def test_whose_answers_are_not_finite(self) -> None:
        one = parity.Answers(np.full((1, 2), 0.5), np.zeros((1, 2), np.float32), None)
        assert parity.list_differing(one, replace(one, probabilities=np.full((1, 2), np.nan)), 0.005, False) == [0]


def test_a_file_that_is_decoded_otherwise_is_named_so(run: bw.Run, tmp_path: Path) -> None:
    predictor = make_predictor(run, open_context())
    image = parity.make_images(tmp_path)[-1]
    one = parity.Answers(np.full((1, 2), 0.5), np.zeros((1, 2), np.float32), None, ("another",))
    assert parity.find_first_difference(predictor, image, 0, one, one, b"") == "the decoding of the image file"


class TestMissingImages:
    def test_export_needs_the_images_of_the_run(self, run: bw.Run, photos: Path, tmp_path: Path) -> None:
        hidden = photos.with_name("hidden")
        photos.rename(hidden)
        try:
            with pytest.raises(RunError, match="so the export cannot be checked"):
                bw.export(run, tmp_path / "model.onnx")
        finally:
            hidden.rename(photos)
        assert list(tmp_path.iterdir()) == []


class TestInt8:
    def test_is_kept_with_its_measured_loss(self, run: bw.Run, tmp_path: Path) -> None:
        made = bw.export(run, tmp_path / "model.onnx", int8=True)
        eight = made.record.int8
        assert eight is not None
        assert eight.n == len(run.predictions("val").labels)
        assert 0 <= eight.p <= 1
        assert any(node.op_type == "QuantizeLinear" for node in onnx.load(made.path).graph.node)
        assert made.record.parity is not None
        assert made.record.parity.tolerance is None

    def test_is_refused_where_it_is_significantly_worse(self, run: bw.Run) -> None:
        predictor = make_predictor(run, open_context())
        images = [parity.CheckImage(str(n), Path(), b"", np.array([True, False])) for n in range(20)]
        right = parity.Answers(np.tile([0.9, 0.1], (20, 1)), np.zeros((20, 2), np.float32), None)
        wrong = replace(right, probabilities=right.probabilities[:, ::-1])
        with pytest.raises(RunError, match=r"8 bits are significantly worse.*0 of 20 validation images.*20 with 32"):
            parity.judge_int8(predictor, images, right, wrong)
        assert parity.judge_int8(predictor, images, wrong, right).int8_correct == 20


def make_unchecked(run: bw.Run, context: Context, int8: bool) -> tuple[bytes, ExportRecord]:
    members = export_workflow.read_members(run, context, int8)
    return b"model", export_workflow.describe_export(run, members, run.novelty_scorer())


def write_into_folder(request: ExportRequest) -> None:
    (request.to / "model.onnx").write_bytes(request.model)


class TestThePlace:
    def test_another_export_is_replaced(self, run: bw.Run, exported: Path, tmp_path: Path) -> None:
        shutil.copy(exported, tmp_path / "model.onnx")
        shutil.copy(exported.with_suffix(".md"), tmp_path / "model.md")
        with (tmp_path / "model.md").open("a", encoding="utf-8") as card:
            card.write("\nold\n")
        bw.export(run, tmp_path / "model.onnx")
        assert "old" not in (tmp_path / "model.md").read_text(encoding="utf-8").splitlines()
        assert sorted(file.name for file in tmp_path.iterdir()) == ["model.md", "model.onnx"]

    @pytest.mark.parametrize("name", ["model.onnx", "model.md"])
    def test_a_file_of_the_users_is_not(self, run: bw.Run, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_text("mine", encoding="utf-8")
        with pytest.raises(RunError, match="exists and is no export of Budwood"):
            bw.export(run, tmp_path / "model.onnx")
        assert (tmp_path / name).read_text(encoding="utf-8") == "mine"
        assert len(list(tmp_path.iterdir())) == 1
        bw.export(run, tmp_path / "model.onnx", force=True)

    def test_a_file_is_not_named_as_its_card(self, run: bw.Run, tmp_path: Path) -> None:
        with pytest.raises(RunError, match="as the model card beside it will"):
            bw.export(run, tmp_path / "model.md")
        assert not list(tmp_path.iterdir())

    def test_a_folder_is_no_file(self, run: bw.Run, tmp_path: Path) -> None:
        (tmp_path / "model.onnx").mkdir()
        with pytest.raises(RunError, match="is a folder, and this format is a file"):
            bw.export(run, tmp_path / "model.onnx")

    def test_of_a_folder_with_other_files_is_refused(
        self, run: bw.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(export_workflow, "FORMATS", {"folder": ExportFormat(write_into_folder, True, "a test")})
        monkeypatch.setattr(export_workflow, "make_checked_model", make_unchecked)
        mine = tmp_path / "mine"
        mine.mkdir()
        (mine / "letter.txt").write_text("mine", encoding="utf-8")
        with pytest.raises(RunError, match="is a folder with other files, and nothing was written"):
            bw.export(run, mine, "folder", force=True)
        with pytest.raises(RunError, match="is a file, and this format is a folder"):
            bw.export(run, mine / "letter.txt", "folder")
        with pytest.raises(RunError, match="the format folder has no 8 bits"):
            bw.export(run, tmp_path / "new", "folder", int8=True)
        assert [file.name for file in tmp_path.rglob("*")] == ["mine", "letter.txt"]

    def test_an_exported_folder_is_replaced_whole(
        self, run: bw.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(export_workflow, "FORMATS", {"folder": ExportFormat(write_into_folder, True, "a test")})
        monkeypatch.setattr(export_workflow, "make_checked_model", make_unchecked)
        bw.export(run, tmp_path / "new", "folder")
        (tmp_path / "new" / "left over").write_text("", encoding="utf-8")
        bw.export(run, tmp_path / "new", "folder")
        assert sorted(file.name for file in (tmp_path / "new").iterdir()) == [MARK, "model.onnx"]
        assert [file.name for file in tmp_path.iterdir()] == ["new"]

    def test_a_format_that_fails_leaves_nothing(
        self, run: bw.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(request: ExportRequest) -> None:
            (request.to / "half").write_text("", encoding="utf-8")
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(export_workflow, "FORMATS", {"folder": ExportFormat(fail, True, "a test")})
        monkeypatch.setattr(export_workflow, "make_checked_model", make_unchecked)
        with pytest.raises(StorageError, match="no space left"):
            bw.export(run, tmp_path / "new", "folder")
        assert list(tmp_path.iterdir()) == []

    def test_there_is_no_such_format(self, run: bw.Run, tmp_path: Path) -> None:
        with pytest.raises(RunError, match="there is no format 'onx'") as refusal:
            bw.export(run, tmp_path / "model.onnx", "onx")
        assert "Did you mean 'onnx'?" in (refusal.value.hint or "")


class TestTheCommand:
    def test_says_how_it_was_checked(self, run: bw.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out, _ = run_command(capsys, "export", run.path, "--to", tmp_path / "model.onnx")
        assert "Checked on 30 images of the run's data and 10 made ones" in out
        assert "largest difference of a probability" in out
        assert "validation accuracy of the file" in out

    def test_as_json(self, run: bw.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out, _ = run_command(capsys, "export", run.path, "--to", tmp_path / "model.onnx", "--json")
        document = json.loads(out)
        assert document["path"] == str(tmp_path / "model.onnx")
        assert document["record"]["parity"]["agreement"]["value"] == 1

    def test_a_run_without_temperature_is_told_how_to_get_one(self, run: bw.Run, tmp_path: Path) -> None:
        bare = bw.Run(run.path, run.record.model_copy(update={"confidence": None}))
        notes = Notes()
        assert bw.export(bare, tmp_path / "model.onnx", progress=notes).record.temperature == (1.0,)
        assert any("budwood calibrate" in note for note in notes.kept)

    def test_exits_with_2_where_it_is_refused(
        self, run: bw.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "model.onnx").write_text("mine", encoding="utf-8")
        run_command(capsys, "export", run.path, "--to", tmp_path / "model.onnx", code=2)


class TestPredictorOfAFile:
    def test_answers_as_the_run(self, run: bw.Run, exported: Path) -> None:
        images = [noise(*shape) for shape in SHAPES]
        one, other = bw.Predictor.open(run).predict(images), bw.Predictor.open(exported).predict(images)
        assert [(a.label, a.candidates, a.notes, a.refused) for a in one] == [
            (b.label, b.candidates, b.notes, b.refused) for b in other
        ]
        for a, b in zip(one, other, strict=True):
            assert a.probabilities is not None
            assert b.probabilities is not None
            np.testing.assert_allclose(a.probabilities, b.probabilities, atol=1e-6)

    def test_needs_neither_the_run_nor_torch(self, exported: Path, tmp_path: Path) -> None:
        shutil.copy(exported, tmp_path / "model.onnx")
        picture(1, hue=1).save(tmp_path / "a.png")
        code = (
            "import sys, budwood as bw\n"
            "answers = bw.Predictor.open('model.onnx').predict(['a.png', 'none.png'])\n"
            "print(answers[0].label, answers[1].problem != '', 'torch' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert done.stdout.split()[1:] == ["True", "False"]

    def test_other_files_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(RunError, match="there is no such file"):
            bw.Predictor.open(tmp_path / "none.onnx")
        (tmp_path / "text.onnx").write_text("text", encoding="utf-8")
        with pytest.raises(RunError, match="cannot be read as an ONNX file"):
            bw.Predictor.open(tmp_path / "text.onnx")

    def test_an_onnx_file_of_another_tool_is_refused(self, exported: Path, tmp_path: Path) -> None:
        model = onnx.load(exported)
        del model.metadata_props[:]
        onnx.save(model, tmp_path / "other.onnx")
        with pytest.raises(RunError, match="is no file that `budwood export` made"):
            bw.Predictor.open(tmp_path / "other.onnx")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"classes": ["leaf"]}, "`probabilities` has the shape"),
            ({"features": 3}, "`features` has the shape"),
            ({"classes": ["leaf", "leaf"]}, "damaged .`classes`"),
            ({"temperature": [0.0]}, "damaged .`temperature`"),
            ({"temperature": []}, "damaged .`temperature`"),
            ({"set_limits": [0.1]}, "damaged .`set_limits`"),
            ({"costs": [[0, 1]]}, "damaged .`costs`"),
        ],
    )
    def test_metadata_of_another_file_are_refused(
        self, exported: Path, tmp_path: Path, change: dict[str, Any], message: str
    ) -> None:
        model = onnx.load(exported)
        entry = next(one for one in model.metadata_props if one.key == METADATA_KEY)
        entry.value = json.dumps(json.loads(entry.value) | change)
        onnx.save(model, tmp_path / "changed.onnx")
        with pytest.raises(RunError, match=message):
            bw.Predictor.open(tmp_path / "changed.onnx")

    def test_a_missing_output_is_told(self, exported: Path, tmp_path: Path) -> None:
        model = onnx.load(exported)
        model.graph.output.remove(next(one for one in model.graph.output if one.name == "logits"))
        onnx.save(model, tmp_path / "changed.onnx")
        with pytest.raises(RunError, match="`logits` is missing"):
            bw.Predictor.open(tmp_path / "changed.onnx")

    def test_int8_is_for_runs(self, exported: Path) -> None:
        with pytest.raises(RunError, match="int8 is for a run"):
            bw.Predictor.open(exported, int8=True)
        with pytest.raises(RunError, match="coverage is for a run"):
            bw.Predictor.open(exported, coverage=0.9)

    def test_the_command_predicts_with_it(
        self, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        picture(1, hue=1).save(tmp_path / "a.png")
        out, _ = run_command(capsys, "predict", exported, tmp_path / "a.png", "--json")
        (answer,) = json.loads(out)
        assert answer["label"] in ("leaf", "sky")

    def test_pixels_of_one_size(self, exported: Path) -> None:
        predictor = bw.Predictor.open(exported)
        assert predictor.compute_outputs(np.zeros((2, 9, 5, 3), np.uint8)).logits.shape == (2, 2)
        assert predictor.compute_outputs(np.zeros((0, 9, 5, 3), np.uint8)).logits.shape == (0, 2)


def test_turned_and_transparent_files_are_decoded_by_the_script_as_by_budwood(tmp_path: Path) -> None:
    from budwood.data.images import decode
    from budwood.exporting.answer_images import read_image

    for image in parity.make_images(tmp_path):
        expected = np.asarray(decode(image.data))
        assert np.array_equal(read_image(str(image.path)), expected), image.name
    assert Image.open(tmp_path / "turned.jpg").size != read_image(str(tmp_path / "turned.jpg")).shape[1::-1]
