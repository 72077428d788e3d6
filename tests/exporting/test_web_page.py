"""The page of `--format web` in a real browser: opened from the disk and from a server, with a keyboard, on a phone."""

from __future__ import annotations

import csv
import functools
import io
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import budwood as bw
from budwood.exporting.web_page import write_web_folder
from budwood.workflows import export as workflow
from budwood.workflows.export import export
from conftest import picture

pytestmark = pytest.mark.browser
sync_api = pytest.importorskip("playwright.sync_api")
HOSTILE = "<img src=x onerror=alert(1)>"
CLASSES = ["red", "green", HOSTILE]
WHITE = 250.0  # brightness from which on an image is none of the classes


def make_model(several: bool) -> bytes:
    """Three classes by the mean of red, green and blue, and brightness as the score of strangeness."""
    constants = {
        "places": np.array([1, 2]),
        "grey": np.array(128, np.float32),
        "unit": np.array(16, np.float32),
        "all": np.array([1]),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["values"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["values", "places"], ["means"], keepdims=0),
        helper.make_node("Sub", ["means", "grey"], ["centred"]),
        helper.make_node("Div", ["centred", "unit"], ["logits"]),
        helper.make_node("Sigmoid" if several else "Softmax", ["logits"], ["probabilities"]),
        helper.make_node("ReduceMin", ["means", "all"], ["reject_score"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, "height", "width", 3])],
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [1, 3]),
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 3]),
            helper.make_tensor_value_info("reject_score", TensorProto.FLOAT, [1]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(model.SerializeToString())


def make_folder(folder: Path, **changes: Any) -> Path:
    folder.mkdir()
    metadata = {"name": "colours", "size": 64, "classes": CLASSES, "task": "single-label", **changes}
    model = make_model(metadata["task"] == "multi-label")
    write_web_folder(folder, model, metadata, [("Validation accuracy", "95.2 % (92.5 to 97.1), n = 374")])
    return folder


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("single") / "web", set_limits=[0.2, 0.2, 0.2], reject_threshold=WHITE)


@pytest.fixture(scope="module")
def chromium(browser: str) -> Iterator[Any]:
    flags = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with sync_api.sync_playwright() as started:
        instance = started.chromium.launch(executable_path=browser, args=flags)
        yield instance
        instance.close()


@contextmanager
def visiting(chromium: Any, address: str, width: int = 1280) -> Iterator[Any]:
    """A page that is ready; at the end, that it said nothing, asked for nothing elsewhere, and opened no dialog."""
    said: list[str] = []
    context = chromium.new_context(viewport={"width": width, "height": 844}, accept_downloads=True)
    page = context.new_page()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(dialog.message))  # which ends the page, so that the test fails
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    page.wait_for_selector("body[data-ready]")
    yield page
    context.close()
    assert said == []
    home = address.rpartition("/")[0]
    assert [url for url in asked if not url.startswith((home, "data:", "blob:"))] == []


@pytest.fixture(scope="module")
def opened(single: Path, chromium: Any) -> Iterator[Any]:
    with visiting(chromium, (single / "index.html").as_uri()) as page:
        yield page


@pytest.fixture
def page(opened: Any) -> Any:
    """The page, opened from the disk, without answers."""
    opened.bring_to_front()
    if opened.locator("#clear").is_visible():
        opened.click("#clear")
    return opened


def paint(colour: tuple[int, ...], size: tuple[int, int] = (40, 30), form: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    Image.new("RGBA" if len(colour) == 4 else "RGB", size, colour).save(out, form, **options)
    return out.getvalue()


def give(page: Any, files: dict[str, bytes]) -> list[str]:
    """Choose files; the first line of each answer."""
    page.set_input_files(
        "#files", [{"name": name, "mimeType": "image/png", "buffer": data} for name, data in files.items()]
    )
    page.wait_for_selector("#cards li:not(.waiting)")
    page.wait_for_selector(".waiting", state="detached")
    return [str(text) for text in page.locator("#cards .answer").all_inner_texts()]


@pytest.fixture
def server(single: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(single))) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_port}/index.html"
        serving.shutdown()


def test_opened_from_the_disk_it_answers(page: Any) -> None:
    images = {"a.png": paint((200, 40, 40)), "b.png": paint((40, 200, 40)), "c.jpg": paint((40, 40, 200), form="JPEG")}
    assert give(page, images) == ["red > 99.9 %", "green > 99.9 %", f"{HOSTILE} > 99.9 %"]
    assert page.locator("#count").inner_text() == "3 images"


def test_from_a_server_it_answers_on_a_phone_without_scrolling_sideways(server: str, chromium: Any) -> None:
    with visiting(chromium, server, 390) as page:
        assert give(page, {f"{'long-name' * 12}.png": paint((200, 40, 40))}) == ["red > 99.9 %"]
        page.click("#about summary")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert "95.2 % (92.5 to 97.1), n = 374" in page.inner_text("#about")


def test_names_are_text(page: Any) -> None:
    give(page, {f"{HOSTILE}.png": paint((40, 40, 200))})
    assert page.locator("main img").count() == 0
    assert page.locator("#cards .file").inner_text() == f"{HOSTILE}.png"


def test_it_says_what_is_none_of_the_classes_and_what_may_be_several(page: Any) -> None:
    answers = give(page, {"white.png": paint((254, 254, 255)), "yellow.png": paint((200, 196, 40))})
    assert answers == ["None of these", "red 56.2 %"]
    assert "nearest: " in page.locator("#cards > li").nth(0).inner_text()
    assert "May be: red, green" in page.locator("#cards > li").nth(1).inner_text()


def test_broken_files_are_told_and_the_others_answered(page: Any) -> None:
    answers = give(page, {"broken.png": b"\x89PNG no", "good.png": paint((200, 40, 40)), "empty.png": b""})
    assert answers == ["Cannot be read", "red > 99.9 %", "Cannot be read"]
    assert page.locator("#count").inner_text() == "3 images, 2 cannot be read"
    page.click("#filters button:has-text('cannot be read')")
    assert page.locator("#cards li:visible").count() == 2


def test_images_are_upright_and_transparency_is_white(page: Any) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    image = Image.new("RGB", (40, 20), (200, 40, 40))
    out = io.BytesIO()
    image.save(out, "JPEG", exif=turned)
    assert give(page, {"turned.jpg": out.getvalue(), "clear.png": paint((200, 40, 40, 0))}) == [
        "red > 99.9 %",
        "None of these",
    ]
    thumbnail = page.locator("#cards canvas").first
    assert [thumbnail.get_attribute(side) for side in ("width", "height")] == ["20", "40"]


def test_where_images_have_several_labels_it_names_all(tmp_path: Path, chromium: Any) -> None:
    folder = make_folder(tmp_path / "web", task="multi-label", thresholds=[0.5, 0.999, 0.5])
    images = {"a.png": paint((200, 220, 200)), "b.png": paint((200, 254, 40)), "c.png": paint((9, 9, 9))}
    with visiting(chromium, (folder / "index.html").as_uri()) as page:
        answers = give(page, images)
    assert answers == [f"red, {HOSTILE}", "red, green", "no label"]


def test_with_a_keyboard_alone(page: Any) -> None:
    with page.expect_file_chooser() as chooser:
        page.press("#choose", "Enter")
    chooser.value.set_files(
        [{"name": f"{n}.png", "mimeType": "image/png", "buffer": paint((200, 40 + 150 * n, 40))} for n in (0, 1)]
    )
    page.wait_for_selector("#cards li:not(.waiting)")
    page.focus("#save")
    with page.expect_download() as saved:
        page.keyboard.press("Enter")
    rows = list(csv.DictReader(io.StringIO(Path(saved.value.path()).read_text(encoding="utf-8-sig"))))
    assert [row["class"] for row in rows] == ["red", "red"]
    assert float(rows[1]["probability of red"]) == pytest.approx(1 / (1 + np.exp(-10 / 16)), abs=1e-3)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.locator("#cards > li").count() == 0


def test_the_camera(page: Any) -> None:
    page.click("#camera")
    page.wait_for_selector("#live-answer .answer")
    assert "answers a second" in page.inner_text("#live-speed")
    page.click("#keep")
    page.wait_for_selector("#cards .answer")
    page.click("#stop")
    assert page.locator("#live").is_hidden()


def test_a_pasted_image_is_answered(page: Any) -> None:
    page.evaluate(
        """(bytes) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], "image.png", { type: "image/png" }));
            document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true }));
        }""",
        list(paint((200, 40, 40))),
    )
    page.wait_for_selector("#cards .answer")
    assert page.locator("#cards .answer").inner_text() == "red > 99.9 %"


@pytest.mark.slow
def test_costs_choose_the_answer(tmp_path: Path, chromium: Any) -> None:
    costs = [[0.0, 1.0, 1.0], [9.0, 0.0, 9.0], [1.0, 1.0, 0.0]]  # to overlook green is worst
    folder = make_folder(tmp_path / "web", costs=costs)
    with visiting(chromium, (folder / "index.html").as_uri()) as page:
        answers = give(page, {"a.png": paint((200, 180, 40)), "b.png": paint((200, 40, 40))})
    assert answers == ["green 22.3 %", "red > 99.9 %"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("missing", "model/network-1.js is missing. Copy the whole folder, and open index.html in it."),
        ("cut", "A part of model/network is damaged. Export the folder again."),
        ("empty", "model/network-1.js is damaged. Export the folder again."),
    ],
)
def test_a_folder_that_is_not_whole_says_so(
    change: str, said: str, single: Path, tmp_path: Path, chromium: Any
) -> None:
    shutil.copytree(single, tmp_path / "web")
    part = tmp_path / "web" / "model" / "network-1.js"
    if change == "missing":
        part.unlink()
    else:
        part.write_text("" if change == "empty" else part.read_text().replace('"H4sI', '"H4sIAAAA'))
    page = chromium.new_page()
    page.goto((tmp_path / "web" / "index.html").as_uri())
    page.wait_for_selector("#failure:visible")
    assert page.inner_text("#failure") == f"The network cannot be loaded. {said}"
    assert page.locator("#choose").is_disabled()
    page.close()


def test_the_page_answers_as_the_run(
    tiny: Path, tmp_path: Path, chromium: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = bw.open_run(tiny / "runs" / "one")
    monkeypatch.setattr(workflow, "check_model", lambda *_: (None, None))
    export(run, tmp_path / "web", "web")
    files = {}
    for number in range(10):
        out = io.BytesIO()
        picture(number, number % 3, 40 + 13 * number).resize((50, 90)).save(out, "JPEG" if number % 2 else "PNG")
        files[f"{number}.{'jpg' if number % 2 else 'png'}"] = out.getvalue()
    with visiting(chromium, (tmp_path / "web" / "index.html").as_uri()) as page:
        give(page, files)
        with page.expect_download() as saved:
            page.click("#save")
        rows = list(csv.DictReader(io.StringIO(Path(saved.value.path()).read_text(encoding="utf-8-sig"))))
    found = [[float(row[f"probability of {name}"]) for name in run.classes] for row in rows]
    answers = bw.Predictor.open(run).predict(list(files.values()))
    expected = np.array([answer.probabilities for answer in answers], np.float64)
    np.testing.assert_allclose(found, expected, atol=2e-3)  # browsers may decode JPEG with another rounding
    assert [row["class"] for row in rows] == [answer.answer for answer in answers]
    assert {answer.refused for answer in answers} == {True, False}
