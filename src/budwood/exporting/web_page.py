"""The folder of `--format web`: a page that classifies images in any browser, from a server or opened from the disk.

Browsers load no modules and fetch nothing from file://, so the network and ONNX Runtime's WebAssembly come as plain
scripts that hold them as text: packed with gzip, in base64, in parts. A page that fetches nothing may also be forbidden
to open any connection, which its content security policy does.
"""

from __future__ import annotations

import base64
import gzip
import lzma
import math
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from budwood.storage.strict_json import encode_json

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

PART: Final = 6 * 2**20  # packed bytes in a script; a phone shows progress after each
PAGE_FILES: Final = ("app.js", "index.html", "style.css")
MODEL: Final = "model/network"
RUNTIME: Final = "runtime/ort-wasm"
LEVEL: Final = 6  # of gzip; 9 takes three times as long for a hundredth less


def write_web_folder(folder: Path, model: bytes, metadata: Mapping[str, Any], facts: Sequence[tuple[str, str]]) -> None:
    """Fill a folder with the page, the network and what runs it.

    Args:
        folder: An empty folder.
        model: The ONNX file: input `image` uint8 [1, height, width, 3]; outputs `probabilities` float32 [1, classes]
            and, where images may be none of the classes, `reject_score` float32 [1].
        metadata: `name`; `size`, the side of the network's input in pixels; and of the file's metadata `classes`,
            `task`, `thresholds`, `costs`, `set_limits` and `reject_threshold`, the last four of which may be None.
        facts: What "About this model" tells, as terms with their texts.

    Raises:
        OSError: The folder cannot be written.
    """
    source = files("budwood.exporting") / "web"
    vendor = source / "vendor"
    for name in PAGE_FILES:
        (folder / name).write_bytes((source / name).read_bytes())
    (folder / "LICENSE.txt").write_bytes((vendor / "LICENSE").read_bytes())
    (folder / "ThirdPartyNotices.txt").write_bytes(_unpack(vendor / "ThirdPartyNotices.txt.xz"))
    for name in (MODEL, RUNTIME):
        (folder / name).parent.mkdir()
    (folder / "runtime" / "ort.js").write_bytes((vendor / "ort.js").read_bytes())
    named = ("name", "size", "classes", "task", "thresholds", "costs", "set_limits", "reject_threshold")
    about = {key: metadata.get(key) for key in named} | {
        "facts": facts,
        "model": {"name": MODEL, "parts": _write_parts(folder / MODEL, _pack(model))},
        "runtime": {"name": RUNTIME, "parts": _write_parts(folder / RUNTIME, _pack_runtime())},
    }
    text = f"self.budwood = {{part: null, about: {encode_json(about)}}};\n"
    (folder / "about.js").write_text(text, encoding="utf-8")


def _pack(content: bytes) -> bytes:
    return gzip.compress(content, LEVEL, mtime=0)


@cache
def _pack_runtime() -> bytes:
    """ONNX Runtime's WebAssembly as a page unpacks it, which takes a second to make."""
    return _pack(_unpack(files("budwood.exporting") / "web" / "vendor" / "ort.wasm.xz"))


def _unpack(file: Traversable) -> bytes:
    return lzma.decompress(file.read_bytes())


def _write_parts(place: Path, packed: bytes) -> int:
    """Write packed bytes as scripts `<place>-1.js` and so on, and return how many there are."""
    count = math.ceil(len(packed) / PART)
    for number in range(count):
        text = base64.b64encode(packed[number * PART : (number + 1) * PART]).decode()
        place.with_name(f"{place.name}-{number + 1}.js").write_text(f'budwood.part = "{text}";\n', encoding="ascii")
    return count
