"""What a person who plays the sandbox's videos would see and hear."""

import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import av
import pytest
from PIL import Image, ImageChops, ImageStat

from deployments.sandbox.render import render

PHOTOS = Path(__file__).parents[2] / "deployments" / "photos"
PAIRS = ("hug", "kiss", "heart_gesture")
AUDIBLE = ("squish", "expansion")
CORE = (*PAIRS, *AUDIBLE)


@dataclass(frozen=True)
class Video:
    """A rendered video, looked into."""

    codec: str
    pixel_format: str
    rate: float
    seconds: float
    frames: list[Image.Image]  # a tenth of them, small
    frame_count: int
    audio_codec: str | None
    audio_seconds: float
    loudest: int


def picture(frame: av.VideoFrame) -> Image.Image:
    colors = frame.reformat(format="rgb24")
    plane = colors.planes[0]
    return Image.frombytes("RGB", (colors.width, colors.height), bytes(plane), "raw", "RGB", plane.line_size)


def look(path: Path) -> Video:
    with av.open(path) as container:
        video = container.streams.video[0]
        audio = container.streams.audio[0] if container.streams.audio else None
        frames, count, samples, loudest = [], 0, 0, 0.0
        for packet in container.demux():
            for frame in packet.decode():
                if isinstance(frame, av.VideoFrame):
                    if count % 10 == 0:
                        frames.append(picture(frame).resize((96, 72), Image.Resampling.BOX))
                    count += 1
                elif isinstance(frame, av.AudioFrame):
                    samples += frame.samples
                    loudest = max(loudest, *memoryview(bytes(frame.planes[0])).cast("f")[: frame.samples])
        assert container.duration is not None
        return Video(
            codec=video.codec_context.name,
            pixel_format=str(video.codec_context.pix_fmt),
            rate=float(video.average_rate or 0),
            seconds=container.duration / 1_000_000,
            frames=frames,
            frame_count=count,
            audio_codec=audio.codec_context.name if audio else None,
            audio_seconds=samples / audio.codec_context.sample_rate if audio else 0,
            loudest=round(loudest * 100),
        )


def difference(one: Image.Image, other: Image.Image) -> float:
    """Mean absolute difference of two images' levels, 0 to 255."""
    return sum(ImageStat.Stat(ImageChops.difference(one, other.resize(one.size))).mean) / 3


def encoded(image: Image.Image, kind: str, exif: Image.Exif | None = None) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **({"exif": exif} if exif else {}))
    return buffer.getvalue()


def plain(color: str, size: tuple[int, int] = (300, 300)) -> bytes:
    return encoded(Image.new("RGB", size, color), "PNG")


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Video]:
    """Every core scene once, five seconds long, of the demonstration's photos; two at a time, as the sandbox does."""
    folder = tmp_path_factory.mktemp("core")
    collins, hopper = ((PHOTOS / name).read_bytes() for name in ("collins.jpg", "hopper.jpg"))

    def video(scene: str) -> Video:
        path = folder / f"{scene}.mp4"
        render(scene, [collins, hopper] if scene in PAIRS else [collins], 5, path)
        return look(path)

    with ThreadPoolExecutor(2) as threads:
        return dict(zip(CORE, threads.map(video, CORE), strict=True))


@pytest.mark.parametrize("scene", CORE)
def test_core_scenes_are_playable_videos_of_the_length_asked_for(core: dict[str, Video], scene: str) -> None:
    video = core[scene]
    assert (video.codec, video.pixel_format, video.rate) == ("h264", "yuv420p", 24)
    assert video.frame_count == 120
    assert video.seconds == pytest.approx(5, abs=0.1)


@pytest.mark.parametrize("scene", CORE)
def test_only_the_scenes_that_promise_sound_have_it(core: dict[str, Video], scene: str) -> None:
    video = core[scene]
    if scene in AUDIBLE:
        assert video.audio_codec == "aac"
        assert video.audio_seconds == pytest.approx(5, abs=0.1)
        assert video.loudest > 10
    else:
        assert video.audio_codec is None


@pytest.mark.parametrize("scene", CORE)
def test_core_scenes_move(core: dict[str, Video], scene: str) -> None:
    frames = core[scene].frames
    assert difference(frames[0], frames[len(frames) // 2]) > 6


def test_core_scenes_can_be_told_from_one_another(core: dict[str, Video]) -> None:
    """Late in the video, each scene shows something else, though all are of the same photos."""
    for one in CORE:
        for other in CORE:
            if one != other:
                apart = [difference(a, b) for a, b in zip(core[one].frames, core[other].frames, strict=True)]
                assert max(apart) > 12, (one, other)


@pytest.mark.parametrize("scene", [*PAIRS, "dance_together"])
def test_the_first_image_stands_on_the_left(scene: str, tmp_path: Path) -> None:
    path = tmp_path / "pair.mp4"
    render(scene, [plain("red"), plain("blue")], 1, path)
    for frame in look(path).frames:
        left = frame.getpixel((24, 45))
        right = frame.getpixel((72, 45))
        assert isinstance(left, tuple)
        assert isinstance(right, tuple)
        assert left[0] > left[2] + 40, "the left half is not red"
        assert right[2] > right[0] + 40, "the right half is not blue"


def test_ten_seconds_are_ten_seconds_with_their_sound(tmp_path: Path) -> None:
    path = tmp_path / "ten.mp4"
    render("squish", [plain("green", (240, 240))], 10, path)
    video = look(path)
    assert video.frame_count == 240
    assert video.seconds == pytest.approx(10, abs=0.1)
    assert video.audio_seconds == pytest.approx(10, abs=0.1)


@pytest.mark.parametrize("images", [1, 2])
def test_an_unknown_scene_still_moves_and_is_silent(images: int, tmp_path: Path) -> None:
    path = tmp_path / "other.mp4"
    photos = [(PHOTOS / name).read_bytes() for name in ("hopper.jpg", "chelsea.jpg")][:images]
    render("a_scene\nnobody knows " + "x" * 300, photos, 1, path)
    video = look(path)
    assert video.audio_codec is None
    assert difference(video.frames[0], video.frames[-1]) > 2


def test_a_player_can_start_before_the_whole_file_is_there(tmp_path: Path) -> None:
    """The index (moov) stands before the media (mdat)."""
    path = tmp_path / "fast.mp4"
    render("zoom", [plain("teal")], 1, path)
    data = path.read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


def half_and_half(mode: str, size: tuple[int, int]) -> Image.Image:
    """Bright upper half, dark lower half: upright, or not, at a glance."""
    image = Image.new("L", size, 30)
    image.paste(220, (0, 0, size[0], size[1] // 2))
    return image.convert(mode)


def sixteen_bits() -> bytes:
    """A greyscale PNG of 16 bits a pixel, written by hand: upper half bright, lower half dark."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b"".join(b"\0" + struct.pack(">H", 56_000 if y < 120 else 7_000) * 200 for y in range(240))
    header = struct.pack(">IIBBBBB", 200, 240, 16, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def turned() -> bytes:
    """A JPEG stored on its side, with the EXIF that says so (6: turn it clockwise)."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(half_and_half("RGB", (240, 320)).rotate(90, expand=True), "JPEG", exif)


def see_through() -> bytes:
    image = half_and_half("RGBA", (300, 300))
    image.paste((0, 0, 0, 0), (0, 0, 300, 150))  # nothing is seen as white
    return encoded(image, "PNG")


ODD: dict[str, Callable[[], bytes]] = {
    "tall": lambda: encoded(half_and_half("RGB", (300, 750)), "JPEG"),
    "wide": lambda: encoded(half_and_half("RGB", (750, 300)), "JPEG"),
    "greyscale": lambda: encoded(half_and_half("L", (301, 401)), "JPEG"),
    "transparent": see_through,
    "palette": lambda: encoded(half_and_half("P", (300, 300)), "PNG"),
    "16 bits": sixteen_bits,
    "CMYK": lambda: encoded(half_and_half("CMYK", (300, 300)), "JPEG"),
    "24 megapixels": lambda: encoded(half_and_half("RGB", (6000, 4000)), "JPEG"),
    "on its side": turned,
    "WebP": lambda: encoded(half_and_half("RGB", (300, 300)), "WEBP"),
    "tiny": lambda: encoded(half_and_half("RGB", (2, 2)), "PNG"),
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_images_are_shown_as_a_viewer_would(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.mp4"
    render("zoom", [ODD[kind]()], 1, path)
    with av.open(path) as container:
        frame = picture(next(container.decode(video=0))).convert("L")
    assert frame.width % 2 == frame.height % 2 == 0
    assert 480 <= min(frame.size) <= max(frame.size) <= 640
    upper = frame.getpixel((frame.width // 2, frame.height // 4))
    lower = frame.getpixel((frame.width // 2, frame.height * 3 // 4))
    assert isinstance(upper, int)
    assert isinstance(lower, int)
    assert upper > 190
    assert lower < 60


@pytest.mark.parametrize("scene", CORE)
def test_core_scenes_take_any_shape_of_photo(scene: str, tmp_path: Path) -> None:
    shapes = [plain("orange", (1, 1)), plain("purple", (30, 900))]
    render(scene, shapes if scene in PAIRS else shapes[1:], 1, tmp_path / "shape.mp4")
    assert look(tmp_path / "shape.mp4").frame_count == 24


@pytest.mark.parametrize(
    ("scene", "images", "seconds", "message"),
    [
        ("hug", [plain("red"), b"<html>not found</html>"], 5, "image 2 cannot be decoded"),
        ("hug", [(PHOTOS / "hopper.jpg").read_bytes()[:2000], plain("red")], 5, "image 1 cannot be decoded"),
        ("squish", [b""], 5, "image 1 cannot be decoded"),
        ("hug", [plain("red")], 5, "hug takes 2 images, not 1"),
        ("squish", [plain("red")] * 2, 5, "squish takes 1 image, not 2"),
        ("other", [], 5, "other takes 1 or 2 images, not 0"),
        ("other", [plain("red")], 0, "seconds"),
    ],
)
def test_what_cannot_be_rendered_says_why_and_leaves_nothing_behind(
    scene: str, images: list[bytes], seconds: int, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        render(scene, images, seconds, tmp_path / "none.mp4")
    assert list(tmp_path.iterdir()) == []


def test_a_render_that_breaks_off_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "kept.mp4"
    path.write_bytes(b"earlier")

    def broken(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("deployments.sandbox.sprite.lighten", broken)
    with pytest.raises(MemoryError):
        render("hug", [plain("red"), plain("blue")], 1, path)
    assert [file.name for file in tmp_path.iterdir()] == ["kept.mp4"]
    assert path.read_bytes() == b"earlier"
