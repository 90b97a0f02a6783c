"""Validate: look at a job and its images before anything is paid for, and say everything that is wrong at once."""

from __future__ import annotations

import asyncio
import codecs
import math
import threading
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from PIL import ExifTags
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.effects import check_job
from tasks.errors import BadInput, StorageError
from tasks.jobs import Request, job_id, public_url
from tasks.visibility import named

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from PIL.ImageFile import ImageFile

    from tasks.effects import Catalogue, ImageLimits
    from tasks.jobs import Job, SourceImage
    from tasks.workspace import Workspace

MAX_MEGAPIXELS = 100
"""Of an image that is decoded. Kling names no limit; a photo of 10 MB has some 50, a bomb thousands."""

MAX_JPEG_SCANS = 500
"""A progressive JPEG has about ten; thousands of empty ones would keep a decoder busy for many minutes."""

DECODES_AT_ONCE = 2
"""Images decoded at the same moment in one process: each may need 8 bytes a pixel, 800 MB at the cap."""

HEAD_BYTES = 4096
"""Read to tell what a file is; the brands of a HEIC and the first words of a page stand within."""

MAX_NAME_CHARACTERS = 80
"""A file's name in a message is cut here."""

_DECODING = threading.BoundedSemaphore(DECODES_AT_ONCE)

_ENDINGS = {"jpeg": "jpg", "png": "png"}
_SIGNATURES = {b"\xff\xd8\xff": "jpeg", b"\x89PNG\r\n\x1a\n": "png"}
_OTHERS = (
    (b"GIF8", "a GIF image"),
    (b"BM", "a BMP image"),
    (b"II*\0", "a TIFF image, or a camera's raw file"),
    (b"MM\0*", "a TIFF image, or a camera's raw file"),
    (b"II+\0", "a TIFF image"),
    (b"MM\0+", "a TIFF image"),
    (b"FUJIFILMCCD-RAW", "a camera's raw file"),
    (b"8BPS", "a Photoshop document"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 image"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL image"),
    (b"\xff\x0a", "a JPEG XL image"),
    (b"%PDF", "a PDF document, not an image"),
    (b"PK\x03\x04", "a ZIP archive, not an image"),
    (b"\x1f\x8b", "a gzip archive, not an image"),
)
_BRANDS = (
    (("avif", "avis"), "an AVIF image"),
    (("heic", "heix", "heim", "heis", "hevc", "hevx", "mif1", "msf1"), "a HEIC image, as iPhones keep photos"),
    (("crx ",), "a camera's raw file"),
)
_TURNED_BY_EXIF = frozenset({5, 6, 7, 8})
"""The orientations in which width and height change places."""


class _WholeJpeg(JpegImageFile):
    """A JPEG that ends too early is an error, whatever another library set `ImageFile.LOAD_TRUNCATED_IMAGES` to."""

    def load_read(self, read_bytes: int) -> bytes:
        data = self.fp.read(read_bytes) if self.fp else b""
        if not data:
            raise OSError("image file is truncated")
        return data


@task(name="validate", task_run_name=named("validate"), cache_policy=NO_CACHE, persist_result=False)
async def validate_images(sources: Sequence[SourceImage], job: Job, workspace: Workspace) -> Request:
    """Check the job and its images against the chosen effect.

    Raises:
        BadInput: with all problems of the job and of all its images.
    """
    return await validate(sources, job, catalogue=workspace.catalogue, default_model=workspace.settings.model)


async def validate(
    sources: Sequence[SourceImage], job: Job, *, catalogue: Catalogue, default_model: str | None = None
) -> Request:
    """Check the job against the catalogue, and its images against the provider's limits.

    Args:
        sources: the fetched images, in the job's order, each with its scratch file.
        job: what was asked for.
        catalogue: what can be asked for.
        default_model: used where the job names no model, before the catalogue's own default.

    Returns:
        What a submission needs: the sources measured, the job's id and the expected price.

    Raises:
        BadInput: with all problems of the job and of all its images, each naming the image it is about.
        StorageError: when a scratch file cannot be read.
    """
    problems: list[str] = []
    found = None
    try:
        found = check_job(job, catalogue, default_model=default_model)
    except BadInput as error:
        problems.extend(error.problems)
    if len(sources) != len(job.images):
        problems.append(f"{len(job.images)} images were named, {len(sources)} came")

    limits = catalogue.provider.images
    looks = await asyncio.gather(*(asyncio.to_thread(look_at_image, source, limits) for source in sources))
    names = [_name(number, source) for number, source in enumerate(sources, start=1)]
    for name, (_, wrong) in zip(names, looks, strict=True):
        problems.extend(f"{name}: {problem}" for problem in wrong)

    # Two-person effects take one person from each: the same picture twice is a slip, and would be paid for.
    asked = catalogue.effects.get(job.effect)
    if asked and asked.images > 1:
        first_with: dict[str, str] = {}
        for name, source in zip(names, sources, strict=True):
            first = first_with.setdefault(source.sha256, name)
            if first != name:
                problems.append(f"{name}: the same picture as {first}; two different ones are needed")

    if found is None or problems:
        raise BadInput(problems, final=True)
    effect, model = found
    return Request(
        job_id=job_id(effect.name, tuple(source.sha256 for source in sources), job.duration, model.id, job.take),
        effect=effect.name,
        sources=tuple(source for source, _ in looks),
        duration=job.duration,
        model=model.id,
        take=job.take,
        price_usd=catalogue.price_usd(model.id, job.duration),
    )


def look_at_image(source: SourceImage, limits: ImageLimits) -> tuple[SourceImage, list[str]]:
    """Look at one image: what it is by content, whether it is whole, and whether the provider takes it.

    Blocking, and safe in several threads at once: nothing of Pillow's global state is read or set. An image is
    decoded only when its header is within `MAX_MEGAPIXELS` and its file within `limits.max_bytes`.

    An animated PNG passes: to every reader that knows nothing of animation it is its first picture. So does a JPEG
    of several frames (MPO, as phones write for depth and motion), of which the first counts.

    Args:
        source: `source.path` is the scratch file.
        limits: Kling's limits, from the catalogue.

    Returns:
        The source with width and height (pixels, as a person sees them where it was decoded) and media type, as
        far as they could be found; and the problems, a line each, empty where there is none.

    Raises:
        StorageError: when the scratch file is not there or cannot be read.
    """
    path = source.path
    if path is None:
        raise StorageError(f"{public_url(source.url)}: its scratch file is gone; fetch it again")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise StorageError(f"{public_url(source.url)}: its scratch file cannot be read: {error.strerror}") from error

    needed = " or ".join(_ENDINGS[kind] for kind in limits.formats)
    kind = next((kind for start, kind in _SIGNATURES.items() if head.startswith(start)), None)
    if kind is None:
        return source, [f"{_told(head)}; {needed} is needed"]
    source = source.model_copy(update={"media_type": f"image/{kind}"})
    problems = []
    if kind not in limits.formats:
        problems.append(f"a {kind.upper()} image; {needed} is needed")
    if size > limits.max_bytes:
        # Rounded up: one byte too many must not read as "10 MB; at most 10 MB".
        megabytes = math.ceil(size / 10_000) / 100
        problems.append(f"{megabytes:g} MB; at most {limits.max_bytes / 1_000_000:g} MB")
    try:
        width, height = _measured(path, kind, decode=not problems)
    except Exception as error:  # noqa: BLE001 - hostile bytes make a decoder raise nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        problems.append(f"cannot be opened whole: it is damaged or cut short ({reason})")
        return source, problems
    source = source.model_copy(update={"width": width, "height": height})
    return source, problems + _misfits(width, height, limits)


def _misfits(width: int, height: int, limits: ImageLimits) -> list[str]:
    problems = []
    pixels = f"{width} \u00d7 {height} pixels"
    if _is_bomb(width, height):
        problems.append(f"{pixels} are {width * height / 1e6:.0f} megapixels; at most {MAX_MEGAPIXELS} are opened")
    if min(width, height) < limits.min_side:
        problems.append(f"{pixels}; each side must be at least {limits.min_side}")
    if max(width, height) > limits.max_aspect * min(width, height):
        shape = "wide" if width > height else "tall"
        problems.append(f"{pixels}: too {shape}; the longer side may be at most {limits.max_aspect:g} times the other")
    return problems


def _is_bomb(width: int, height: int) -> bool:
    return width * height > MAX_MEGAPIXELS * 1_000_000


def _measured(path: Path, kind: str, *, decode: bool) -> tuple[int, int]:
    """Width and height in pixels; where `decode`, the image was found whole and they are as a person sees them."""
    # The two readers are called by name: Image.open also tries other formats, and answers a big header with a
    # warning, which is either lost or, where warnings are errors, raised, by a filter that all threads share.
    reader: type[ImageFile] = _WholeJpeg if kind == "jpeg" else PngImageFile
    with reader(path) as image:
        width, height = image.size
        if not decode or _is_bomb(width, height):
            return width, height
        _check_parts(path, kind)
        with _DECODING:
            # A JPEG is decoded at an eighth: all of its data is read just so, in a fraction of the memory.
            image.draft(None, (max(1, width // 8), max(1, height // 8)))
            image.load()
        return (height, width) if _orientation(image) in _TURNED_BY_EXIF else (width, height)


def _check_parts(path: Path, kind: str) -> None:
    """Refuse what decoding would not notice, or take for ever over; raises as a decoder would."""
    if kind == "jpeg":
        if path.read_bytes().count(b"\xff\xda") > MAX_JPEG_SCANS:
            raise ValueError(f"more than {MAX_JPEG_SCANS} scans")
    else:
        with PngImageFile(path) as image:
            image.verify()  # every chunk's checksum, to the very end


def _orientation(image: ImageFile) -> int:
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # noqa: BLE001 - a photo with broken EXIF is still a photo, shown as it lies
        return 1
    return value if isinstance(value, int) else 1


def _told(head: bytes) -> str:
    """What a file is that is neither a JPEG nor a PNG, in the words of those who have such files."""
    if not head:
        return "the file is empty"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "a WebP image"
    if head[4:8] == b"ftyp":
        end = int.from_bytes(head[:4], "big")
        brands = {head[at : at + 4].decode("latin-1") for at in range(8, min(end, len(head)), 4)}
        return next((what for names, what in _BRANDS if brands.intersection(names)), "a video, not an image")
    for start, what in _OTHERS:
        if head.startswith(start):
            return what
    return _told_text(head) or "not an image"


def _told_text(head: bytes) -> str | None:
    try:
        # Incremental: the head may end in the middle of a letter.
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head).lstrip().lower()
    except UnicodeDecodeError:
        return None
    if not all(letter.isprintable() or letter in "\r\n\t\f" for letter in text):
        return None
    if text.startswith(("<!doctype html", "<html")) or "<head" in text:
        return "a web page (HTML), not an image: the address may lead to a log-in or an error page"
    if "<svg" in text:
        return "an SVG drawing"
    if text.startswith("<?xml"):
        return "an XML document, not an image: it may be a storage's error message"
    return "a text, not an image"


def _name(number: int, source: SourceImage) -> str:
    """`image 2 (b.jpg)`: the position, and the last part of the URL where it has one."""
    url = public_url(source.url)
    if url.startswith("data:"):
        return f"image {number}"
    # fsspec chains name the innermost file first: zip://b.jpg::s3://bucket/photos.zip
    first = url.split("::", maxsplit=1)[0]
    path = unquote(urlsplit(first).path) if first.startswith(("http://", "https://")) else first
    name = path.rstrip("/").rpartition("/")[2]
    name = "".join(letter for letter in name if letter.isprintable())[:MAX_NAME_CHARACTERS]
    return f"image {number} ({name})" if name else f"image {number}"
