"""The runtime of web pages is the published one, with its licence."""

from __future__ import annotations

import hashlib
import lzma
from pathlib import Path

import budwood

VENDOR = Path(budwood.__file__).parent / "exporting" / "web" / "vendor"


def test_the_runtime_has_the_digest_that_is_noted() -> None:
    noted = (VENDOR / "README.md").read_text(encoding="utf-8")
    wasm = lzma.decompress((VENDOR / "ort.wasm.xz").read_bytes())
    assert f"| {len(wasm):,} | `{hashlib.sha256(wasm).hexdigest()}` |" in noted


def test_licence_and_notices_are_those_of_the_same_project() -> None:
    assert "MIT License" in (VENDOR / "LICENSE").read_text(encoding="utf-8")
    assert b"THIRD PARTY" in lzma.decompress((VENDOR / "ThirdPartyNotices.txt.xz").read_bytes()).upper()


def test_the_script_makes_one_global_and_loads_no_module() -> None:
    script = (VENDOR / "ort.js").read_text(encoding="utf-8")
    assert "import.meta" not in script
    assert script.count("self.ort=") == 1
    assert "Licensed under the MIT License" in script[:300]
