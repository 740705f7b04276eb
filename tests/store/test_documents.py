"""Documents found again by request, and what is read of a store's compressed parts."""

from __future__ import annotations

import json
import time
import zlib
from pathlib import Path
from typing import Any

import pytest

import robustcli
from robustcli.store import documents
from robustcli.store.content import parse, unpack

from .conftest import change

DOCUMENT = {"rows": [], "verdict": None}
KEPT = {"document": DOCUMENT, "evidence": [], "until": None}


def packed(**changes: Any) -> bytes:
    return zlib.compress(json.dumps(KEPT | changes).encode())


def put(filled: Path, content: bytes) -> None:
    documents.remember(filled, "key", DOCUMENT, [], None)
    change(filled, f"UPDATE answers SET content = x'{content.hex()}'")


def test_a_document_is_found_again(filled: Path) -> None:
    documents.remember(filled, "key", DOCUMENT, [], None)
    assert documents.find(filled, "key") == DOCUMENT
    assert documents.find(filled, "other") is None
    put(filled, packed())
    assert documents.find(filled, "key") == DOCUMENT, "what the cases below alter"


@pytest.mark.parametrize(
    "content",
    [
        *[b"", b"\xff", zlib.compress(b"{}"), zlib.compress(b"[]"), zlib.compress(b"\xff"), zlib.compress(b"1" * 9999)],
        *[zlib.compress(b"[" * 200_000), zlib.compress(bytes(2**27)), packed()[:-3]],
        *[packed(document=odd) for odd in ([], None, "x", {"a": float("nan")})],
        *[packed(evidence=odd) for odd in (1, [1], [["a", "b", "c"]], [["a", 1]])],
        packed(until="x"),
    ],
    ids=range(18),
)
def test_what_is_no_document_that_was_kept_is_a_value_error(filled: Path, content: bytes) -> None:
    put(filled, content)
    with pytest.raises(ValueError, match=r".+"):
        documents.find(filled, "key")


@pytest.mark.parametrize("event", ["changed", "removed", "made"])
def test_a_document_does_not_outlive_the_files_that_it_rests_on(filled: Path, tmp_path: Path, event: str) -> None:
    images = tmp_path / "images.npz"
    if event != "made":
        images.write_bytes(b"1")
    documents.remember(filled, "key", DOCUMENT, documents.stamps([images]), None)
    assert documents.find(filled, "key") == DOCUMENT
    if event == "removed":
        images.unlink()
    else:
        images.write_bytes(b"12")
    assert documents.find(filled, "key") is None


def test_a_document_for_a_while_does_not_outlive_a_clock_that_is_set_back(filled: Path) -> None:
    for later, holds in ((60, True), (-60, False), (documents.SHORT_SECONDS + 60, False)):
        documents.remember(filled, "key", DOCUMENT, [], time.time() + later)
        assert (documents.find(filled, "key") is not None) == holds


def test_a_file_with_a_nul_in_its_name_is_not_there() -> None:
    assert documents.stamp(Path("a\0")) == ("a\0", None, None)


def test_a_document_that_is_too_long_is_not_kept(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MOST_BYTES", 60)
    documents.remember(filled, "key", DOCUMENT, [], None)
    assert documents.find(filled, "key") is None


def test_what_is_packed_is_bounded() -> None:
    assert unpack(zlib.compress(b"abc"), 3) == b"abc"
    for packed, most in ((zlib.compress(b"abcd"), 3), (zlib.compress(b"abc")[:-1], 3), (b"", 3), ("abc", 3), (None, 3)):
        with pytest.raises(ValueError, match=r".+"):
            unpack(packed, most)


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 60 + "]" * 60, "[" * 99_999, "NaN", "-Infinity", "1e999", b"\xff", 3, None, "9" * 9999]
)
def test_what_is_no_json_is_a_value_error(text: Any) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse(text)


def test_an_answer_of_other_code_networks_or_bundled_images_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(robustcli, "__file__", str(tmp_path / "__init__.py"))
    stamps = []
    for name in ("__init__.py", "assets/zoo/mnist-vanilla.pt", "assets/digits.npz"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
        stamps.append(documents.code_stamp())
    assert len(set(stamps)) == 3
    (tmp_path / "__init__.cpython-311.pyc").write_bytes(b"")
    assert documents.code_stamp() == stamps[-1]
