"""A video is a video only when every frame of it decodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from PIL import Image

from deployments.sandbox.render import render
from tasks.errors import BadResult
from tasks.films import inspect_film, save_poster
from tests.conftest import CHELSEA

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short real video with sound."""
    path = tmp_path_factory.mktemp("films") / "squish.mp4"
    with open(CHELSEA, "rb") as photo:  # noqa: PTH123
        render("squish", [photo.read()], 2, path)
    return path


def test_a_whole_video_is_measured(film: Path) -> None:
    """Length, size, codecs, sound and hash come from the file itself."""
    facts = inspect_film(film)
    assert (facts.codec, facts.sound, facts.frames, facts.seconds) == ("h264", "aac", 48, 2.0)
    assert facts.size == film.stat().st_size
    assert len(facts.sha256) == 64


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.1, 0.5, 0.9, 0.99])
def test_a_video_that_breaks_off_is_none(film: Path, tmp_path: Path, kept: float) -> None:
    """Wherever the download ended: its index promises more than there is."""
    data = film.read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(BadResult):
        inspect_film(cut)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "HTML page"),
        (b"\n <html>", "HTML page"),
        (b"", "no MP4"),
        (b"\xff\xd8\xff\xe0 a photo", "no MP4"),
        (b"\0\0\0\x18ftypisom" + bytes(500), "does not decode"),
    ],
)
def test_what_is_no_video_is_named(content: bytes, word: str, tmp_path: Path) -> None:
    """A page saved as a video is the usual one."""
    path = tmp_path / "video.mp4"
    path.write_bytes(content)
    with pytest.raises(BadResult, match=word):
        inspect_film(path)


def test_the_poster_is_the_middle_frame(film: Path, tmp_path: Path) -> None:
    """As large as the video, and not the first frame."""
    poster = tmp_path / "poster.jpg"
    save_poster(film, poster)
    facts = inspect_film(film)
    with Image.open(poster) as picture:
        assert picture.size == (facts.width, facts.height)
        assert picture.format == "JPEG"
