"""Validation: what is said of images and jobs before anything is paid for."""

from __future__ import annotations

import asyncio
import hashlib
import io
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from tasks.effects import ImageLimits, load_catalogue
from tasks.errors import BadInput, StorageError
from tasks.jobs import Job, SourceImage, job_id
from tasks.validate import MAX_JPEG_SCANS, look_at_image, validate

if TYPE_CHECKING:
    from pathlib import Path

    from tasks.jobs import Request

CATALOGUE = load_catalogue()
LIMITS = CATALOGUE.provider.images
PRO = "klingai/kling-video-v1.6-pro-effects"
NEEDED = "jpg or png is needed"


def picture(form: str, size: tuple[int, int] = (320, 400), mode: str = "RGB", **options: Any) -> bytes:  # noqa: ANN401
    """A file of that format whose picture is noise: nothing of it can be left out unnoticed."""
    noise = Image.effect_noise(size, 90)
    channels = len(Image.new(mode, (1, 1)).getbands())
    image = noise if mode == "L" else Image.merge(mode, [noise] * channels) if channels > 1 else noise.convert(mode)
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


JPEG = picture("JPEG")
PNG = picture("PNG")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_that_claims(width: int, height: int) -> bytes:
    """A tiny PNG whose header promises a picture of that size: a decompression bomb when it is believed."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1_000_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def source(content: bytes, folder: Path, url: str = "photo.jpg") -> SourceImage:
    digest = hashlib.sha256(content).hexdigest()
    path = folder / digest
    path.write_bytes(content)
    return SourceImage(url=url, sha256=digest, size=len(content), path=path)


def look(content: bytes, folder: Path, limits: ImageLimits = LIMITS) -> tuple[SourceImage, list[str]]:
    return look_at_image(source(content, folder), limits)


def ask(*sources: SourceImage, effect: str = "hug", **fields: Any) -> Request:  # noqa: ANN401
    default_model = fields.pop("default_model", None)
    job = Job(effect=effect, images=tuple(image.url for image in sources), **fields)
    return asyncio.run(validate(sources, job, catalogue=CATALOGUE, default_model=default_model))


def problems_of(*sources: SourceImage, **fields: Any) -> tuple[str, ...]:  # noqa: ANN401
    with pytest.raises(BadInput) as caught:
        ask(*sources, **fields)
    return caught.value.problems


class TestGoodImages:
    """What the provider takes passes, and is measured."""

    @pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
    @pytest.mark.parametrize("progressive", [False, True])
    def test_jpeg(self, tmp_path: Path, mode: str, progressive: bool) -> None:
        """Every usual kind of JPEG passes, whatever its colours."""
        looked, problems = look(picture("JPEG", mode=mode, progressive=progressive), tmp_path)
        assert problems == []
        assert (looked.width, looked.height, looked.media_type) == (320, 400, "image/jpeg")

    @pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "I;16"])
    def test_png(self, tmp_path: Path, mode: str) -> None:
        """Every usual kind of PNG passes: grey, palette, with transparency, of 16 bits."""
        looked, problems = look(picture("PNG", mode=mode), tmp_path)
        assert problems == []
        assert (looked.width, looked.height, looked.media_type) == (320, 400, "image/png")

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("form", ["JPEG", "PNG"])
    def test_orientation(self, tmp_path: Path, form: str, orientation: int) -> None:
        """Width and height are as a person sees them, with the camera's turn applied."""
        exif = Image.Exif()
        exif[0x0112] = orientation
        looked, problems = look(picture(form, exif=exif), tmp_path)
        assert problems == []
        assert (looked.width, looked.height) == ((400, 320) if orientation >= 5 else (320, 400))

    @pytest.mark.filterwarnings("ignore:Corrupt EXIF")
    def test_broken_exif(self, tmp_path: Path) -> None:
        """A photo whose EXIF cannot be read is a photo all the same."""
        looked, problems = look(picture("JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\0\x01"), tmp_path)
        assert (problems, looked.width) == ([], 320)

    def test_phone_jpeg_with_several_frames(self, tmp_path: Path) -> None:
        """An MPO, as phones write it, counts as the JPEG that it begins with."""
        more = [Image.new("RGB", (320, 400), "red")]
        looked, problems = look(picture("MPO", save_all=True, append_images=more), tmp_path)
        assert (problems, looked.media_type) == ([], "image/jpeg")

    def test_animated_png(self, tmp_path: Path) -> None:
        """An animated PNG passes as its first picture."""
        more = [Image.new("RGB", (320, 400), "red")]
        looked, problems = look(picture("PNG", save_all=True, append_images=more), tmp_path)
        assert (problems, looked.width) == ([], 320)

    @pytest.mark.parametrize("size", [(300, 300), (300, 750), (750, 300)])
    def test_at_the_limits(self, tmp_path: Path, size: tuple[int, int]) -> None:
        """The limits themselves are allowed: 300 pixels, 2.5 to 1, and the last byte."""
        content = picture("PNG", size)
        assert look(content, tmp_path, LIMITS.model_copy(update={"max_bytes": len(content)}))[1] == []

    def test_trailing_bytes(self, tmp_path: Path) -> None:
        """A phone's motion photo, a film behind a whole JPEG, passes."""
        assert look(JPEG + b"\0\0\0\x18ftypmp42" + bytes(5000), tmp_path)[1] == []


class TestBadImages:
    """What the provider would refuse is told in a photographer's words."""

    @pytest.mark.parametrize(
        ("content", "what"),
        [
            (b"", "the file is empty"),
            (picture("WEBP"), "a WebP image"),
            (picture("AVIF"), "an AVIF image"),
            (picture("GIF", mode="L"), "a GIF image"),
            (picture("BMP"), "a BMP image"),
            (picture("TIFF"), "a TIFF image, or a camera's raw file"),
            (picture("JPEG2000"), "a JPEG 2000 image"),
            (b"\0\0\0\x24ftypheic\0\0\0\0mif1heic" + bytes(99), "a HEIC image, as iPhones keep photos"),
            (b"\0\0\0\x18ftypmp42\0\0\0\0isom" + bytes(99), "a video, not an image"),
            (b'<?xml version="1.0"?>\n<svg xmlns="x"/>', "an SVG drawing"),
            (b'<?xml version="1.0"?><Error>AccessDenied</Error>', "an XML document, not an image"),
            (b"\xef\xbb\xbf\n<!DOCTYPE html><title>Log in</title>", "a web page (HTML), not an image"),
            (b"just a note", "a text, not an image"),
            ("naïve".encode() * 1000, "a text, not an image"),
            (b"%PDF-1.7\n", "a PDF document, not an image"),
            (bytes(range(256)), "not an image"),
        ],
    )
    def test_other_files(self, tmp_path: Path, content: bytes, what: str) -> None:
        """What is neither JPEG nor PNG is told by its name, whatever the file is called."""
        _, (problem,) = look(content, tmp_path)
        assert problem.startswith(what)
        assert problem.endswith(f"; {NEEDED}")

    @pytest.mark.parametrize("content", [JPEG, PNG, picture("JPEG", progressive=True)], ids=["jpeg", "png", "progr."])
    @pytest.mark.parametrize("kept", [0.01, 0.5, 0.99])
    @pytest.mark.parametrize("lenient", [False, True])
    def test_cut_short(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, kept: float, lenient: bool
    ) -> None:
        """An upload that broke off is found, even where another library told Pillow to be lenient."""
        monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
        _, (problem,) = look(content[: int(len(content) * kept)], tmp_path)
        assert "damaged or cut short" in problem

    def test_one_wrong_bit(self, tmp_path: Path) -> None:
        """A PNG in which one bit fell over is found by its checksum."""
        broken = bytearray(PNG)
        broken[len(PNG) // 2] ^= 1
        assert "damaged" in look(bytes(broken), tmp_path)[1][0]

    @pytest.mark.parametrize(
        ("size", "lines"),
        [
            ((299, 400), ["299 × 400 pixels; each side must be at least 300"]),
            ((751, 300), ["751 × 300 pixels: too wide; the longer side may be at most 2.5 times the other"]),
            ((300, 751), ["300 × 751 pixels: too tall; the longer side may be at most 2.5 times the other"]),
        ],
    )
    def test_sides(self, tmp_path: Path, size: tuple[int, int], lines: list[str]) -> None:
        """A picture that is too small, too wide or too tall is told with its measures and the limit."""
        assert look(picture("PNG", size), tmp_path)[1] == lines

    def test_small_and_narrow(self, tmp_path: Path) -> None:
        """Two problems of one picture are both told."""
        assert len(look(picture("PNG", (100, 400)), tmp_path)[1]) == 2

    def test_too_large(self, tmp_path: Path) -> None:
        """A file one byte over the limit is told so in a number that is over the limit."""
        _, (problem,) = look(JPEG + bytes(LIMITS.max_bytes + 1 - len(JPEG)), tmp_path)
        assert problem == "10.01 MB; at most 10 MB"

    def test_format_that_the_catalogue_does_not_allow(self, tmp_path: Path) -> None:
        """Which of the formats are taken is the catalogue's to say."""
        _, problems = look(PNG, tmp_path, LIMITS.model_copy(update={"formats": ("jpeg",)}))
        assert problems == ["a PNG image; jpg is needed"]

    @pytest.mark.parametrize("size", [(60_000, 60_000), (10_001, 10_000), (2_000_000_000, 2_000_000_000)])
    def test_bomb(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]) -> None:
        """A tiny file that claims thousands of megapixels is refused by its header; nothing of it is decoded."""
        monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _self: pytest.fail("a bomb was decoded"))
        with warnings.catch_warnings(record=True) as caught:
            _, (problem,) = look(png_that_claims(*size), tmp_path)
        assert f"{size[0]} × {size[1]} pixels are" in problem
        assert "at most 100 are opened" in problem
        assert caught == []

    def test_jpeg_of_countless_scans(self, tmp_path: Path) -> None:
        """A JPEG made to keep a decoder busy is refused."""
        assert "scans" in look(JPEG + b"\xff\xda" * (MAX_JPEG_SCANS + 1), tmp_path)[1][0]

    def test_scratch_file_gone(self, tmp_path: Path) -> None:
        """A scratch file that is not there is trouble of the storage, and no fault of the photo."""
        image = source(JPEG, tmp_path, url="https://x.org/a.jpg?X-Amz-Signature=abc")
        for lost in (image.model_copy(update={"path": None}), image.model_copy(update={"path": tmp_path / "no"})):
            with pytest.raises(StorageError) as caught:
                look_at_image(lost, LIMITS)
            assert "a.jpg" in caught.value.reason
            assert "abc" not in caught.value.reason


class TestAnyBytes:
    """Whatever the bytes are, the answer is a list of problems in one line each."""

    @settings(
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
        deadline=None,
        max_examples=150,
    )
    @given(
        content=st.sampled_from([JPEG, PNG]),
        cuts=st.lists(st.tuples(st.floats(0, 0.999), st.binary(min_size=1, max_size=8)), min_size=1, max_size=4),
    )
    def test_damaged(self, tmp_path: Path, content: bytes, cuts: list[tuple[float, bytes]]) -> None:
        """Bytes that fell over anywhere never raise; a PNG in which any changed never passes."""
        broken = bytearray(content)
        for place, instead in cuts:
            at = int(len(content) * place)
            broken[at : at + len(instead)] = instead
        _, problems = look(bytes(broken), tmp_path)
        assert all(problem.isprintable() for problem in problems)
        if content is PNG and bytes(broken[: len(PNG)]) != PNG:
            assert problems

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
    @given(content=st.sampled_from([JPEG, PNG]), kept=st.floats(0, 0.5))
    def test_half_is_never_whole(self, tmp_path: Path, content: bytes, kept: float) -> None:
        """No half of a picture, nor less, ever passes."""
        assert look(content[: int(len(content) * kept)], tmp_path)[1]

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
    @given(content=st.binary(max_size=300), start=st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"<"]))
    def test_random(self, tmp_path: Path, content: bytes, start: bytes) -> None:
        """Random bytes are never a picture."""
        _, (problem,) = look(start + content, tmp_path)
        assert problem.isprintable()


class TestValidate:
    """A job and its images become a request, or one error with everything that is wrong."""

    def test_request(self, tmp_path: Path) -> None:
        """A good job becomes a request with measured sources, model, price and id."""
        left, right = source(JPEG, tmp_path, "a.jpg"), source(PNG, tmp_path, "b.png")
        request = ask(left, right, duration=10, take=2)
        assert request.job_id == job_id("hug", (left.sha256, right.sha256), 10, PRO, 2)
        assert (request.model, request.price_usd, request.take) == (PRO, 1.03, 2)
        assert [s.media_type for s in request.sources] == ["image/jpeg", "image/png"]
        assert [s.path for s in request.sources] == [left.path, right.path]

    def test_model(self, tmp_path: Path) -> None:
        """The caller's default model is used and priced where the job names none."""
        standard = "klingai/kling-video-v1.6-standard-effects"
        request = ask(source(JPEG, tmp_path), effect="squish", default_model=standard)
        assert (request.model, request.price_usd) == (standard, 0.24)

    def test_names_do_not_count(self, tmp_path: Path) -> None:
        """The same contents under other names are the same job."""
        first = ask(source(JPEG, tmp_path, "a.jpg"), source(PNG, tmp_path, "b.png"))
        again = ask(source(JPEG, tmp_path, "s3://x/c.jpg"), source(PNG, tmp_path, "https://x/d?e"))
        assert first.job_id == again.job_id

    def test_order_counts(self, tmp_path: Path) -> None:
        """Who stands on the left is part of the wish: the other order is another job."""
        left, right = source(JPEG, tmp_path), source(PNG, tmp_path)
        assert ask(left, right).job_id != ask(right, left).job_id

    def test_id_never_changes(self) -> None:
        """A known wish has a known id: were it to change, everything paid for would be bought again."""
        assert job_id("hug", ("a" * 64, "b" * 64), 5, PRO, 0) == "5bd2d9b5930da5f8ddc6f668f9516d9f"

    def test_everything_at_once(self, tmp_path: Path) -> None:
        """The job's problems and those of every image come together, each naming its image."""
        small = source(picture("PNG", (299, 400)), tmp_path, "s3://bucket/folder/b.jpg?versionId=1")
        problems = problems_of(source(b"", tmp_path, "https://x.org/a%20b.jpg?X-Amz-Signature=q"), small, duration=7)
        assert problems == (
            "hug lasts 5 or 10 seconds; a duration of 7 was asked for",
            f"image 1 (a b.jpg): the file is empty; {NEEDED}",
            "image 2 (b.jpg?versionId=1): 299 × 400 pixels; each side must be at least 300",
        )

    def test_names_of_odd_addresses(self, tmp_path: Path) -> None:
        """A data URI is never quoted, and of a chained URL the file is named, not its archive."""
        inline = source(b"x", tmp_path, "data:image/jpeg;base64,eA==")
        chained = source(b"y", tmp_path, "zip://in/b.jpg::s3://bucket/photos.zip")
        first, second = problems_of(inline, chained)
        assert first.startswith("image 1: a text")
        assert second.startswith("image 2 (b.jpg): a text")

    def test_same_picture_twice(self, tmp_path: Path) -> None:
        """One picture as both persons is refused, whatever the two files are called."""
        problems = problems_of(source(JPEG, tmp_path, "a.jpg"), source(JPEG, tmp_path, "b.jpg"))
        line = "image 2 (b.jpg): the same picture as image 1 (a.jpg); two different ones are needed"
        assert problems == (line,)

    def test_an_image_went_missing(self, tmp_path: Path) -> None:
        """A request is never made of fewer images than were named."""
        job = Job(effect="hug", images=("a.jpg", "b.jpg"))
        with pytest.raises(BadInput, match="2 images were named, 1 came"):
            asyncio.run(validate([source(JPEG, tmp_path)], job, catalogue=CATALOGUE))

    def test_in_many_threads(self, tmp_path: Path) -> None:
        """Good and bad images looked at all at once get the answers that they get alone."""
        contents = [JPEG, PNG, JPEG[:3000], PNG[:3000], png_that_claims(60_000, 60_000)] * 20
        with ThreadPoolExecutor(16) as threads:
            answers = list(
                threads.map(lambda image: look_at_image(image, LIMITS), [source(c, tmp_path) for c in contents])
            )
        assert [bool(problems) for _, problems in answers] == [False, False, True, True, True] * 20
