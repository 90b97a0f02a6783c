"""The sandbox's scenes for one subject, which is warped, with the sound that it makes."""

import math
from collections.abc import Callable, Sequence

from PIL import Image, ImageDraw, ImageOps

from deployments.sandbox import sound, sprite, stage

_FIRST_PRESS_SECONDS, _PRESS_EVERY_SECONDS, _PRESS_SECONDS = 0.82, 1.25, 1.0
_PUFF_SECONDS = 0.5


def squish(photos: Sequence[Image.Image], seconds: int) -> stage.Frames:
    """A soft pad presses the subject flat, again and again; it bulges sideways and springs back."""
    (photo,) = photos
    width, height = size = stage.single_size(photo)
    across, down = stage.fit(photo, (width * 0.60, height * 0.62))
    body = sprite.cushion(photo, (round(across), round(down)))
    pad = _pad(round(width * 0.72), height)
    dark = sprite.shadow((round(across * 1.3), round(height * 0.12)), 190)
    backdrop = stage.Backdrop(photos, size)
    floor = height * 0.86
    presses = _presses(seconds)
    for moment in stage.clock(seconds):
        started = max((press for press in presses if press <= moment), default=None)
        flat, pad_down = (0.0, 0.0) if started is None else _press(moment - started)
        tall, wide = down * (1 - 0.56 * flat), across * (1 + 0.20 * flat)
        bulge = 0.30 * max(0.0, flat) - 0.06 * min(0.0, flat)
        frame = backdrop.at(1.0)
        sprite.place(frame, dark, (width / 2, floor), scale=(wide * (1 + 0.5 * bulge) / across, 1.0))
        reach = wide * (0.52 + 0.5 * bulge)
        box = (width / 2 - reach, floor - tall - 1, width / 2 + reach, floor + 1)
        sprite.warp(frame, body, box, _squashed((width / 2, floor), (wide, tall), bulge), (2, 14))
        # The pad rests on the body while it presses and waits above the frame's middle otherwise.
        rest = floor - down - height * 0.19
        edge = rest + (floor - tall + 4 - rest) * pad_down
        sprite.place(frame, pad, (width / 2, edge), pivot=(pad.width / 2, pad.height))
        yield frame


def squish_sound(seconds: int) -> bytes:
    """A squelch for each press of `squish`."""
    return sound.squish(seconds, _presses(seconds))


def expansion(photos: Sequence[Image.Image], seconds: int) -> stage.Frames:
    """The subject is pumped up, puff by puff, into a balloon, which wobbles and floats up on its string."""
    (photo,) = photos
    width, height = size = stage.single_size(photo)
    across, down = stage.fit(photo, (width * 0.50, height * 0.50))
    body = sprite.cushion(photo, (round(1.5 * across), round(1.5 * down)))
    light = sprite.shine(320)
    full = 0.38 * min(size)
    backdrop = stage.Backdrop(photos, size)
    inflated = _inflated_after(seconds)
    for moment in stage.clock(seconds):
        grown = _pumped(moment, inflated)
        after = max(0.0, moment - inflated)
        wobble = math.exp(-0.8 * after) * math.sin(math.tau * 1.6 * after) * stage.ease(after / 0.2)
        lift = stage.ease(after / (seconds - inflated)) * height * 0.12
        aspect = math.sqrt(across / down) ** (1 - grown)
        radius_x = (across / 2 / math.sqrt(across / down) * (1 - grown) + full * grown) * aspect * (1 + 0.07 * wobble)
        radius_y = (down / 2 * math.sqrt(across / down) * (1 - grown) + full * grown) / aspect * (1 - 0.07 * wobble)
        middle = (width / 2 + 9 * math.sin(1.3 * after) * stage.ease(after), height * (0.50 - 0.05 * grown) - lift)
        frame = backdrop.at(1 + 0.05 * lift / height)
        _string(frame, (middle[0], middle[1] + radius_y * 0.985), grown, after)
        source = _balloon(middle, (radius_x, radius_y), grown, 0.05 * math.sin(1.7 * after))
        box = (middle[0] - radius_x, middle[1] - radius_y, middle[0] + radius_x, middle[1] + radius_y)
        sprite.warp(frame, body, box, source, (12, 12))
        sprite.place(
            frame, sprite.fade(light, stage.ease(grown * 1.3 - 0.3)), middle, scale=(radius_x / 160, radius_y / 160)
        )
        yield frame


def expansion_sound(seconds: int) -> bytes:
    """A hiss for each puff of `expansion`, and a tone that rises until the balloon is full."""
    return sound.expansion(seconds, _inflated_after(seconds), _PUFF_SECONDS)


def _presses(seconds: int) -> list[float]:
    """When a press starts, in seconds from the start.

    The first is late enough for the body to be seen as it is; the middle of a video of 5 or 10 seconds, where previews
    are taken from, sees it flat; and after the last one it has time to recover.
    """
    count = math.floor((seconds - _PRESS_SECONDS - _FIRST_PRESS_SECONDS) / _PRESS_EVERY_SECONDS) + 1
    return [_FIRST_PRESS_SECONDS + index * _PRESS_EVERY_SECONDS for index in range(count)] or [0.0]


def _press(moment: float) -> tuple[float, float]:
    """How flat the body is (1 fully, below 0 stretched) and how far down the pad is, `moment` seconds into a press."""
    contact, bottom, release = 0.14, 0.34, 0.52
    if moment < contact:
        return 0.0, stage.ease(moment / contact) * 0.999
    if moment < bottom:
        return stage.ease((moment - contact) / (bottom - contact)), 1.0
    if moment < release:
        return 1.0 - 0.05 * math.sin(math.pi * (moment - bottom) / (release - bottom)), 1.0
    free = moment - release
    return math.exp(-5.5 * free) * math.cos(math.tau * 2.6 * free), 1 - stage.ease(free / 0.2)


def _squashed(
    foot: tuple[float, float], size: tuple[float, float], bulge: float
) -> Callable[[float, float], tuple[float, float]]:
    """Where the points of a body come from that stands on `foot`, `size` wide and high, its middle wider by `bulge`."""
    wide, tall = size

    def source(x: float, y: float) -> tuple[float, float]:
        down = (y - foot[1] + tall) / tall
        belly = wide * (1 + bulge * math.sin(math.pi * min(1.0, max(0.0, down))))
        return 0.5 + (x - foot[0]) / belly, down

    return source


def _pad(width: int, height: int) -> Image.Image:
    """The press: a rounded, softly lit pad on a rod that reaches beyond the frame's upper edge."""
    scale = 2
    thick, rod = round(height * 0.085), round(width * 0.10)
    large = (width * scale, height * scale)
    mask = Image.new("L", large)
    draw = ImageDraw.Draw(mask)
    draw.rectangle(((width - rod) / 2 * scale, 0, (width + rod) / 2 * scale, (height - thick / 2) * scale), fill=255)
    draw.rounded_rectangle((0, (height - thick) * scale, width * scale - 1, height * scale - 1), thick, fill=255)
    picture = Image.new("RGB", (width, height), (150, 160, 176))
    lit = Image.linear_gradient("L").resize((width, thick))
    picture.paste(ImageOps.colorize(lit, (250, 214, 224), (214, 120, 150)), (0, height - thick))
    return sprite.premultiply(picture, mask.resize((width, height), Image.Resampling.BOX))


def _inflated_after(seconds: int) -> float:
    """Seconds until the balloon is full: whole puffs, a bit more than half of the video."""
    return max(1, round(0.56 * seconds / _PUFF_SECONDS)) * _PUFF_SECONDS


def _pumped(moment: float, inflated: float) -> float:
    """How full the balloon is, 0 to 1: every puff adds a part, eased."""
    if moment >= inflated:
        return 1.0
    puffs, part = divmod(moment, _PUFF_SECONDS)
    return (puffs + 0.35 * part / _PUFF_SECONDS + 0.65 * stage.ease(part / _PUFF_SECONDS)) * _PUFF_SECONDS / inflated


def _balloon(
    middle: tuple[float, float], radii: tuple[float, float], grown: float, turn: float
) -> Callable[[float, float], tuple[float, float]]:
    """Where a balloon's points come from on the square body that it was blown up from; `turn` in radians."""
    sine, cosine = math.sin(turn), math.cos(turn)

    def source(x: float, y: float) -> tuple[float, float]:
        across, down = (x - middle[0]) / radii[0], (y - middle[1]) / radii[1]
        across, down = across * cosine + down * sine, down * cosine - across * sine
        far = math.hypot(across, down)
        if far == 0:
            return 0.5, 0.5
        # The body is the superellipse of power 4: stretched along each direction, it becomes a circle; and what is
        # seen of a sphere is larger in the middle than at the rim.
        circle = ((across / far) ** 4 + (down / far) ** 4) ** -0.25
        sphere = 0.62 + 0.38 * min(far, 1.0) ** 2 if far <= 1 else 1.0
        stretch = 1 + grown * (circle * sphere - 1)
        return 0.5 + across * stretch / 2, 0.5 + down * stretch / 2

    return source


def _string(frame: Image.Image, knot: tuple[float, float], grown: float, after: float) -> None:
    """The balloon's knot and string, which swings once it floats."""
    strength = stage.ease(grown * 1.5 - 0.5)
    if strength == 0:
        return
    x, y = knot
    length = frame.height * 0.34 * strength
    points = []
    for step in range(17):
        down = step / 16
        swing = (5 + 9 * stage.ease(after)) * down * math.sin(4.2 * down + 2.1 * after)
        points.append((x + swing * strength, y + length * down))
    draw = ImageDraw.Draw(frame)
    draw.line(points, fill=(245, 240, 235), width=2, joint="curve")
    draw.polygon(
        [(x, y - 4), (x - 8 * strength, y + 9 * strength), (x + 8 * strength, y + 9 * strength)], fill=(205, 60, 80)
    )
