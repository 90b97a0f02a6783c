"""Bad input ends in clear lines and exit code 2; nothing is sent, and nothing is written."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from deployments.cli import main
from tests.conftest import CHELSEA, COLLINS, HOPPER

if TYPE_CHECKING:
    from collections.abc import Callable

    from deployments.sandbox.server import Sandbox

pytestmark = pytest.mark.usefixtures("prefect_api")


def _picture(path: str, size: tuple[int, int] = (400, 400), kind: str = "JPEG") -> str:
    Image.effect_noise(size, 60).convert("RGB").save(path, kind)
    return path


def _bomb(path: str) -> str:
    """A few hundred bytes that claim to be 60,000 × 60,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    Path(path).write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def _written(path: str, content: bytes) -> str:
    Path(path).write_bytes(content)
    return path


def _folder(path: str) -> str:
    Path(path).mkdir()
    return path


def _truncated(path: str) -> str:
    return _written(path, Path(COLLINS).read_bytes()[:30_000])


IMAGES: dict[str, tuple[Callable[[], str], str, str]] = {
    "no such file": (lambda: "missing.jpg", "missing.jpg", "no such file"),
    "a directory": (lambda: _folder("album.jpg"), "album.jpg", "folder"),
    "an empty file": (lambda: _written("empty.jpg", b""), "empty.jpg", "empty"),
    "text named .jpg": (lambda: _written("notes.jpg", b"Dear all,\nsee you on Friday.\n" * 9), "notes.jpg", "text"),
    "a page saved as .jpg": (lambda: _written("page.jpg", b"<!DOCTYPE html><html></html>"), "page.jpg", "HTML"),
    "a truncated JPEG": (lambda: _truncated("half.jpg"), "half.jpg", ""),
    "a GIF": (lambda: _picture("a.gif", kind="GIF"), "a.gif", "GIF"),
    "a WebP": (lambda: _picture("a.webp", kind="WEBP"), "a.webp", "WebP"),
    "a BMP": (lambda: _picture("a.bmp", kind="BMP"), "a.bmp", "BMP"),
    "an SVG": (lambda: _written("a.svg", b'<svg xmlns="http://www.w3.org/2000/svg"/>'), "a.svg", "SVG"),
    "a GIF named .jpg": (lambda: _picture("b.jpg", kind="GIF"), "b.jpg", "GIF"),
    "a 299 px side": (lambda: _picture("small.jpg", (299, 400)), "small.jpg", "299"),
    "an aspect of 1:2.6": (lambda: _picture("strip.jpg", (400, 1040)), "strip.jpg", "2.5"),
    "more than 10 MB": (lambda: _written("big.jpg", b"\xff\xd8" + bytes(10_000_001)), "big.jpg", "10 MB"),
    "a decompression bomb": (lambda: _bomb("bomb.png"), "bomb.png", ""),
    "a bucket that does not exist": (lambda: "s3://no-such-bucket-at-all/a.jpg", "a.jpg", "no such file"),
    "an unknown kind of location": (lambda: "s4://bucket/a.jpg", "s4://bucket/a.jpg", "s4"),
}


@pytest.fixture
def nothing_happens(sandbox: Sandbox) -> object:
    """Looks afterwards whether anything was sent or written."""
    yield sandbox
    assert sandbox.counters.submissions == 0
    assert not Path("videos").exists()


@pytest.mark.parametrize("case", IMAGES)
@pytest.mark.usefixtures("nothing_happens", "s3")
def test_an_image_that_does_not_fit_is_named_with_what_is_wrong(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, exit code 2, no traceback; the good image beside it is not blamed."""
    make, name, word = IMAGES[case]
    assert main(["generate", "hug", COLLINS, make()]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    lines = [line for line in told.err.splitlines() if line.startswith("effects: ")]
    assert len(lines) == 1
    assert "image 2" in lines[0]
    assert name in lines[0]
    assert word.lower() in lines[0].lower()
    assert "Traceback" not in told.err
    assert "collins" not in told.err


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["hug", COLLINS], "hug needs two images"),
        (["hug", COLLINS, HOPPER, CHELSEA], "hug needs two images"),
        (["squish", COLLINS, HOPPER], "squish needs one image"),
        (["hugg", COLLINS, HOPPER], "did you mean 'hug'"),
        (["hug", COLLINS, HOPPER, "--duration", "7"], "7"),
        (["squish", COLLINS, "--duration", "10"], "10"),
        (["hug", COLLINS, COLLINS], "same picture"),
        (["hug", COLLINS, HOPPER, "--target", "s4://x"], "s4"),
    ],
)
@pytest.mark.usefixtures("nothing_happens")
def test_a_wish_that_the_catalogue_does_not_hold_is_explained(
    arguments: list[str], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Counts, names and durations are checked before anything else."""
    assert main(["generate", *arguments]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert word in told.err
    assert "Traceback" not in told.err


@pytest.mark.parametrize(
    "arguments", [[], ["generate"], ["generate", "hug", COLLINS, HOPPER, "--take", "-1"], ["nonsense"]]
)
def test_a_call_that_does_not_fit_is_told_in_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The line says where the help is."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.usefixtures("nothing_happens")
def test_all_problems_of_all_images_are_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody mends one photo only to hear of the next."""
    small, text = _picture("small.png", (200, 299), "PNG"), _written("text.png", b"hello hello hello")
    assert main(["generate", "hug", small, text]) == 2
    told = capsys.readouterr().err
    assert "image 1 (small.png)" in told
    assert "image 2 (text.png)" in told


@pytest.mark.usefixtures("nothing_happens")
def test_without_a_key_the_line_says_what_to_set(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No key, no request."""
    monkeypatch.delenv("EFFECTS_API_KEY")
    assert main(["generate", "hug", COLLINS, HOPPER]) == 2
    assert "EFFECTS_API_KEY" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "value"),
    [("EFFECTS_MAX_ATTEMPTS", "none"), ("EFFECTS_API_URL", "aimlapi"), ("EFFECTS_GENERATION_TIMEOUT_S", "-1")],
)
@pytest.mark.usefixtures("nothing_happens")
def test_a_setting_that_does_not_fit_is_named(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the name under which it was set."""
    monkeypatch.setenv(name, value)
    assert main(["generate", "hug", COLLINS, HOPPER]) == 2
    assert name in capsys.readouterr().err


@pytest.mark.parametrize("target", ["s3://no-such-bucket-at-all/videos", "blocked/videos"])
@pytest.mark.usefixtures("s3")
def test_a_target_that_cannot_be_written_is_found_before_paying(
    target: str, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first thing that is written comes before the first thing that costs money."""
    Path("blocked").write_text("a file where a folder should be")
    assert main(["generate", "hug", COLLINS, HOPPER, "--target", target]) == 2
    told = capsys.readouterr()
    assert target in told.err + told.out
    assert sandbox.counters.submissions == 0


@pytest.mark.usefixtures("nothing_happens")
def test_bad_input_with_json_is_one_document_too(capsys: pytest.CaptureFixture[str]) -> None:
    """A script reads the state and the reason where it reads every other outcome."""
    assert main(["generate", "hug", COLLINS, "--json"]) == 2
    told = capsys.readouterr()
    document = json.loads(told.out)
    assert document["state"] == "rejected"
    assert "hug needs two images" in document["reason"]
