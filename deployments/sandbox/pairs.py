"""The sandbox's scenes for two people: the first photo always stands on the left.

Each is a generator of RGB frames. Nobody looks for the people in the photos: soft masks, eased motion and a blurred
background do the rest.
"""

import math
from collections.abc import Sequence

from PIL import Image

from deployments.sandbox import sprite, stage


def hug(photos: Sequence[Image.Image], seconds: int) -> stage.Frames:
    """Two people come together, lean in, press one another warmly and settle."""
    width, height = stage.PAIR_SIZE
    left, right = (sprite.bust(photo, (350, 452)) for photo in photos)
    light = sprite.glow(620, (150, 84, 24))
    backdrop = stage.Backdrop(photos, stage.PAIR_SIZE)
    for moment in stage.clock(seconds):
        near = stage.ease(moment / (0.42 * seconds))
        lean = stage.ease((moment - 0.22 * seconds) / (0.3 * seconds))
        # Twice they hold one another tighter; then only breath is left.
        after = max(0.0, moment - 0.5 * seconds)
        tight = math.exp(-0.9 * after) * (0.5 - 0.5 * math.cos(math.tau * after / 1.1))
        sway = 1.6 * lean * math.sin(math.tau * moment / 3.1)
        frame = backdrop.at(1 + 0.06 * near)
        sprite.lighten(frame, light, (width / 2, height * 0.5), 0.25 + 0.75 * lean)
        apart = width * (0.30 - 0.12 * near) - 10 * tight
        for person, side in ((left, -1), (right, 1)):
            sprite.place(
                frame,
                person,
                (width / 2 + side * apart, height + 14),
                pivot=(person.width / 2, person.height),
                scale=(1 - 0.05 * tight, 1 + 0.025 * tight + 0.006 * math.sin(moment * 2.2 + side)),
                angle=sway - side * (7 * lean + 1.5 * tight),
            )
        yield frame.point(stage.tint(lean, (1.10, 1.0, 0.80)))


def kiss(photos: Sequence[Image.Image], seconds: int) -> stage.Frames:
    """Two faces come close, tilt towards one another and touch; pink light and small hearts rise between them."""
    width, height = stage.PAIR_SIZE
    left, right = (sprite.face(photo, (230, 362)) for photo in photos)
    light = sprite.glow(460, (230, 60, 120))
    hearts = sprite.heart(56)
    backdrop = stage.Backdrop(photos, stage.PAIR_SIZE)
    touch = 0.5 * seconds
    for moment in stage.clock(seconds):
        near = stage.ease(moment / touch)
        love = stage.ease((moment - 0.8 * touch) / (0.4 * touch))
        peck = math.exp(-1.4 * max(0.0, moment - touch)) * math.sin(math.pi * max(0.0, moment - touch) / 0.8) * love
        zoom = 1 + 0.20 * stage.ease(moment / seconds)
        frame = backdrop.at(zoom)
        apart = (width * (0.27 - 0.155 * near) - 9 * peck) * zoom
        for person, side in ((left, -1), (right, 1)):
            sprite.place(
                frame,
                person,
                (width / 2 + side * apart, height * 0.5 + 8 * near * side),
                scale=(zoom, zoom),
                angle=-side * (4 + 9 * near) * near + 1.2 * math.sin(1.7 * moment),
            )
        sprite.lighten(frame, light, (width / 2, height * 0.48), love * (0.8 + 0.2 * math.sin(3 * moment)))
        for index in range(9):
            risen = (moment - touch * 0.95 - 0.28 * index) / 2.2
            if risen > 0:
                _rise(frame, hearts, index, risen % 1)
        yield frame.point(stage.tint(love, (1.06, 0.94, 1.0)))


def heart_gesture(photos: Sequence[Image.Image], seconds: int) -> stage.Frames:
    """Two people come side by side, each with half a heart; the halves join, grow and beat above them."""
    width, height = stage.PAIR_SIZE
    left, right = (sprite.bust(photo, (276, 345)) for photo in photos)
    whole = sprite.heart(300)
    halves = whole.crop((0, 0, 150, 300)), whole.crop((150, 0, 300, 300))
    light = sprite.glow(520, (200, 40, 60))
    backdrop = stage.Backdrop(photos, stage.PAIR_SIZE)
    joined = 0.36 * seconds
    for moment in stage.clock(seconds):
        near = stage.ease(moment / joined)
        grown = stage.ease((moment - joined) / (0.22 * seconds))
        beat = _heartbeat(max(0.0, moment - joined - 0.15 * seconds)) * grown
        frame = backdrop.at(1 + 0.02 * beat)
        apart = width * (0.31 - 0.10 * near)
        for person, side in ((left, -1), (right, 1)):
            sprite.place(
                frame,
                person,
                (width / 2 + side * apart, height + 10),
                pivot=(person.width / 2, person.height),
                scale=(1.0, 1 + 0.008 * math.sin(2.4 * moment + side)),
                angle=-side * 2.5 * near,
            )
        middle = height * (0.84 - 0.52 * near - 0.055 * grown)
        size = 0.26 + 0.14 * near + 0.24 * grown + 0.06 * beat
        sprite.lighten(frame, light, (width / 2, middle), grown * (0.55 + 0.45 * beat))
        if near < 1:
            for half, side in zip(halves, (-1, 1), strict=True):
                pivot = (150.0 if side < 0 else 0.0, 150.0)
                at = (width / 2 + side * width * 0.24 * (1 - near), middle)
                sprite.place(frame, half, at, pivot=pivot, scale=(size, size), angle=side * 14 * (1 - near))
        else:
            sprite.place(frame, whole, (width / 2, middle), scale=(size, size))
        yield frame


def _rise(frame: Image.Image, heart: Image.Image, index: int, risen: float) -> None:
    """One of the kiss's hearts on its way up; `risen` 0 to 1."""
    x = frame.width * (0.5 + 0.045 * (index % 5 - 2) * (0.4 + 1.6 * risen) + 0.02 * math.sin(7 * risen + index))
    y = frame.height * (0.50 - 0.44 * risen)
    size = (0.42 + 0.2 * (index % 3)) * stage.ease(risen / 0.15)
    if size > 0:
        seen = sprite.fade(heart, 1 - stage.ease((risen - 0.55) / 0.45))
        sprite.place(frame, seen, (x, y), scale=(size, size), angle=14 * math.sin(5 * risen + index))


def _heartbeat(moment: float) -> float:
    """Two beats, one strong and one weak, every 0.9 s; 0 to 1."""
    phase = moment / 0.9 % 1
    return math.exp(-(((phase - 0.15) / 0.09) ** 2)) + 0.55 * math.exp(-(((phase - 0.42) / 0.10) ** 2))
