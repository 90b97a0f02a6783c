"""What the sandbox's scenes share: the frame's size, its background, time and its easing."""

from collections.abc import Iterator, Sequence

from PIL import Image, ImageFilter, ImageOps

FRAMES_PER_SECOND = 24
PAIR_SIZE = (640, 480)
_SHORT_SIDE = 480

Frames = Iterator[Image.Image]


class Backdrop:
    """The photos, enlarged, blurred and darkened, one passing softly into the other."""

    def __init__(self, photos: Sequence[Image.Image], size: tuple[int, int]) -> None:
        self._size = size
        # Blurred detail is kept small: a quarter of the pixels, enlarged for each frame.
        small = (size[0] // 4, size[1] // 4)
        first, last = (ImageOps.fit(photo, small) for photo in (photos[0], photos[-1]))
        across = Image.linear_gradient("L").rotate(90).resize(small)
        picture = Image.composite(last, first, across).filter(ImageFilter.GaussianBlur(small[1] / 12))
        self._picture = picture.point([round(level * 0.6 + 12) for level in range(256)] * 3)

    def at(self, zoom: float) -> Image.Image:
        """A fresh frame of it, enlarged about the middle by `zoom` (1 or more)."""
        width, height = self._picture.size
        x, y = width / 2 * (1 - 1 / zoom), height / 2 * (1 - 1 / zoom)
        return self._picture.resize(self._size, Image.Resampling.BILINEAR, (x, y, width - x, height - y))


def clock(seconds: int) -> Iterator[float]:
    """The moments of a scene's frames, in seconds from its start."""
    for index in range(seconds * FRAMES_PER_SECOND):
        yield index / FRAMES_PER_SECOND


def ease(part: float) -> float:
    """Smoothstep: 0 to 1, starting and stopping without a jerk, held outside."""
    part = min(1.0, max(0.0, part))
    return part * part * (3 - 2 * part)


def tint(strength: float, gains: tuple[float, float, float]) -> list[int]:
    """A table for `Image.point` that multiplies red, green and blue by up to `gains`."""
    factors = [1 + strength * (gain - 1) for gain in gains]
    return [min(255, round(level * factor)) for factor in factors for level in range(256)]


def single_size(photo: Image.Image) -> tuple[int, int]:
    """The frame for one photo: its own aspect, within 3:4 and 4:3, the short side 480 pixels, sides even."""
    aspect = min(4 / 3, max(3 / 4, photo.width / photo.height))
    long_side = round(_SHORT_SIDE * max(aspect, 1 / aspect) / 2) * 2
    return (long_side, _SHORT_SIDE) if aspect > 1 else (_SHORT_SIDE, long_side)


def fit(photo: Image.Image, room: tuple[float, float]) -> tuple[float, float]:
    """Width and height within `room`, of the photo's aspect as far as that is between 3:4 and 4:3."""
    aspect = min(4 / 3, max(3 / 4, photo.width / photo.height))
    across = min(room[0], room[1] * aspect)
    return across, across / aspect
