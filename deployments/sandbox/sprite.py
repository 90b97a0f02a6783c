"""Sprites of the sandbox's videos: soft-edged cut-outs of photos, hearts, light, and how they are laid on a frame.

Every sprite is an image of Pillow's mode ``RGBa`` (colour premultiplied by alpha): it can be warped without dark
fringes, and it is pasted onto an RGB frame without a conversion.
"""

import math
from collections.abc import Callable

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont, ImageOps

Point = tuple[float, float]
Color = tuple[int, int, int]

# Masks are drawn this many times larger and reduced, since ImageDraw does not smooth edges.
_OVERSAMPLING = 4

# Skin in YCbCr, and how many of 640 pixels must show it to be believed.
_SKIN_LUMA_ABOVE, _SKIN_BLUE, _SKIN_RED = 50, range(86, 128), range(139, 172)
_SKIN_PIXELS = 13


def premultiply(picture: Image.Image, mask: Image.Image) -> Image.Image:
    """Give an RGB picture the alpha of an L mask of the same size, as a sprite."""
    picture = picture.convert("RGB")
    picture.putalpha(mask)
    return picture.convert("RGBa")


def bust(photo: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Cut a person out of an RGB portrait as well as can be by guessing: head over shoulders.

    The lower edge stays hard: it is meant to stand on the frame's lower edge, or below it.

    Args:
        photo: RGB, any size.
        size: width and height of the sprite in pixels.
    """
    width, height = size
    mask = Image.new("L", size)
    draw = ImageDraw.Draw(mask)
    draw.ellipse((width * 0.17, height * 0.07, width * 0.83, height * 0.72), fill=255)
    draw.rounded_rectangle((width * 0.09, height * 0.48, width * 0.91, height * 1.4), radius=width * 0.3, fill=255)
    return premultiply(_towards_head(photo, size, nearer=1.0), _feather(mask, width * 0.05))


def face(photo: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Cut the upper middle of an RGB portrait out as a soft oval, nearer than `bust` does.

    Args:
        photo: RGB, any size.
        size: width and height of the sprite in pixels.
    """
    mask = _feather(_superellipse(size, 2.3, inset=size[0] * 0.09), size[0] * 0.05)
    return premultiply(_towards_head(photo, size, nearer=1.5), mask)


def cushion(photo: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Make an RGB photo of one subject a cushion: a rounded, softly edged body that can be warped.

    Args:
        photo: RGB, any size.
        size: width and height of the sprite in pixels; the body reaches to 2 pixels from every side.
    """
    picture = ImageOps.fit(photo, size, Image.Resampling.LANCZOS)
    return premultiply(picture, _feather(_superellipse(size, 4, inset=4), 1.5))


def shine(width: int) -> Image.Image:
    """What light does to a balloon `width` pixels wide and high: a soft window above, darkness towards the rim."""
    side = (width, width)
    body = _superellipse(side, 2, inset=0)
    core = _feather(_superellipse(side, 2, inset=width * 0.06), width * 0.07)
    rim = ImageChops.multiply(body, ImageChops.invert(core)).point([level * 5 // 8 for level in range(256)])
    light = Image.new("L", side)
    ImageDraw.Draw(light).ellipse((width * 0.22, width * 0.13, width * 0.44, width * 0.25), fill=150)
    light = light.rotate(30, Image.Resampling.BILINEAR, center=(width * 0.33, width * 0.19))
    light = light.filter(ImageFilter.GaussianBlur(width * 0.025))
    # Premultiplied by hand: the rim is black, the window white, and they do not meet.
    return Image.merge("RGBa", (light, light, light, ImageChops.lighter(rim, light)))


def glow(width: int, color: Color) -> Image.Image:
    """A round light of `color`, `width` pixels wide, that fades to black: an RGB picture for `lighten`."""
    light = ImageChops.invert(Image.radial_gradient("L")).resize((width, width), Image.Resampling.BILINEAR)
    # The gradient reaches into the corners: let it end at the sides, and fall off softly.
    light = light.point([round(255 * max(0.0, (level - 75) / 180) ** 2) for level in range(256)])
    return Image.merge("RGB", [light.point([level * part // 255 for level in range(256)]) for part in color])


def shadow(size: tuple[int, int], strength: int) -> Image.Image:
    """A soft dark ellipse, `size` pixels large, with at most `strength` (0 to 255) of alpha."""
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).ellipse((size[0] * 0.1, size[1] * 0.25, size[0] * 0.9, size[1] * 0.75), fill=strength)
    return premultiply(Image.new("RGB", size), mask.filter(ImageFilter.GaussianBlur(size[1] * 0.13)))


def heart(width: int) -> Image.Image:
    """A glossy red heart, `width` pixels wide and high, with a soft white outline."""
    large = width * _OVERSAMPLING
    outline, body, shine = (Image.new("L", (large, large)) for _ in range(3))
    ImageDraw.Draw(outline).polygon(_heart_points(large, 0.48), fill=235)
    ImageDraw.Draw(body).polygon(_heart_points(large, 0.445), fill=255)
    ImageDraw.Draw(shine).ellipse((large * 0.2, large * 0.17, large * 0.38, large * 0.36), fill=150)
    outline, body, shine = (mask.resize((width, width), Image.Resampling.BOX) for mask in (outline, body, shine))
    colors = Image.linear_gradient("L").resize((width, width), Image.Resampling.BILINEAR)
    picture = Image.new("RGB", (width, width), (255, 240, 244))
    picture.paste(ImageOps.colorize(colors, (255, 84, 112), (196, 10, 62)), (0, 0), body)
    picture.paste((255, 225, 232), (0, 0), shine.filter(ImageFilter.GaussianBlur(width * 0.03)))
    return premultiply(picture, outline)


def caption(text: str, frame_width: int) -> Image.Image:
    """White `text` on one line on a translucent dark pill, cut to the frame's width; in Pillow's own font."""
    font = ImageFont.load_default(size=15)
    text = " ".join(text[:100].split())
    while font.getlength(text) > frame_width - 44:
        text = text[:-2] + "…"
    width, height = math.ceil(font.getlength(text)) + 22, 25
    pill = Image.new("L", (width * _OVERSAMPLING, height * _OVERSAMPLING))
    ImageDraw.Draw(pill).rounded_rectangle((0, 0, *pill.size), radius=pill.height / 2, fill=120)
    picture = Image.new("RGB", (width, height), (18, 16, 22))
    mask = pill.resize((width, height), Image.Resampling.BOX)
    ink = Image.new("L", (width, height))
    ImageDraw.Draw(ink).text((width / 2, 17), text, fill=235, font=font, anchor="ms")
    picture.paste((255, 255, 255), (0, 0), ink)
    return premultiply(picture, ImageChops.lighter(mask, ink))


def fade(sprite: Image.Image, strength: float) -> Image.Image:
    """The sprite at `strength` (0 nothing, 1 as it is) of its opacity."""
    return sprite.point([round(level * strength) for level in range(256)] * 4)


def lighten(frame: Image.Image, light: Image.Image, at: Point, strength: float) -> None:
    """Let a light, a `glow`, fall on an RGB frame.

    Args:
        frame: RGB; it is drawn on.
        light: RGB; black is no light.
        at: where its middle comes to lie, in pixels; whole pixels suffice for what is so soft.
        strength: 0 nothing, 1 as it is.
    """
    if strength <= 0:
        return
    left, top = round(at[0] - light.width / 2), round(at[1] - light.height / 2)
    box = (max(0, left), max(0, top), min(frame.width, left + light.width), min(frame.height, top + light.height))
    falling = light.crop((box[0] - left, box[1] - top, box[2] - left, box[3] - top))
    falling = falling.point([round(level * min(1.0, strength)) for level in range(256)] * 3)
    frame.paste(ImageChops.screen(frame.crop(box), falling), box)


def place(
    frame: Image.Image,
    sprite: Image.Image,
    at: Point,
    *,
    pivot: Point | None = None,
    scale: Point = (1.0, 1.0),
    angle: float = 0.0,
) -> None:
    """Lay a sprite on an RGB frame, to a fraction of a pixel, so that slow motion does not tremble.

    Args:
        frame: RGB; it is drawn on.
        sprite: RGBa.
        at: where on the frame, in pixels, the sprite's pivot comes to lie; may be outside.
        pivot: the sprite's pixel that it is scaled and turned about; its middle if not given.
        scale: horizontal and vertical factors, above 0.
        angle: degrees, clockwise.
    """
    pivot_x, pivot_y = pivot or (sprite.width / 2, sprite.height / 2)
    sine, cosine = math.sin(math.radians(angle)), math.cos(math.radians(angle))
    corners = [
        ((x - pivot_x) * scale[0], (y - pivot_y) * scale[1]) for x in (0, sprite.width) for y in (0, sprite.height)
    ]
    xs = [at[0] + x * cosine - y * sine for x, y in corners]
    ys = [at[1] + x * sine + y * cosine for x, y in corners]
    left, top = max(0, math.floor(min(xs))), max(0, math.floor(min(ys)))
    right, bottom = min(frame.width, math.ceil(max(xs))), min(frame.height, math.ceil(max(ys)))
    if left >= right or top >= bottom:
        return
    # Pillow asks, for each pixel of the result, where it comes from: the way back from the frame to the sprite.
    a, b, d, e = cosine / scale[0], sine / scale[0], -sine / scale[1], cosine / scale[1]
    x, y = left - at[0], top - at[1]
    way = (a, b, pivot_x + a * x + b * y, d, e, pivot_y + d * x + e * y)
    laid = sprite.transform((right - left, bottom - top), Image.Transform.AFFINE, way, Image.Resampling.BILINEAR)
    frame.paste(laid, (left, top), laid)


def warp(
    frame: Image.Image,
    sprite: Image.Image,
    box: tuple[float, float, float, float],
    source: Callable[[float, float], Point],
    cells: tuple[int, int],
) -> None:
    """Lay a sprite on an RGB frame through a grid of quadrilaterals.

    Args:
        frame: RGB; it is drawn on.
        sprite: RGBa.
        box: left, top, right, bottom of the part of the frame that is drawn on, in pixels; cut at the frame.
        source: for a point of the frame, in pixels, the sprite's point seen there, in parts of its sides
            (0 to 1; beyond them nothing is seen).
        cells: columns and rows of the grid: few are cheap, many are round.
    """
    left, top = max(0, math.floor(box[0])), max(0, math.floor(box[1]))
    right, bottom = min(frame.width, math.ceil(box[2])), min(frame.height, math.ceil(box[3]))
    columns, rows = cells
    if right - left < columns or bottom - top < rows:
        return
    xs = [(right - left) * column // columns for column in range(columns + 1)]
    ys = [(bottom - top) * row // rows for row in range(rows + 1)]
    grid: list[list[Point]] = []
    for y in ys:
        seen = (source(left + x, top + y) for x in xs)
        grid.append([(u * sprite.width, v * sprite.height) for u, v in seen])
    mesh = [
        (
            (xs[column], ys[row], xs[column + 1], ys[row + 1]),
            (*grid[row][column], *grid[row + 1][column], *grid[row + 1][column + 1], *grid[row][column + 1]),
        )
        for row in range(rows)
        for column in range(columns)
    ]
    laid = sprite.transform((right - left, bottom - top), Image.Transform.MESH, mesh, Image.Resampling.BILINEAR)
    frame.paste(laid, (left, top), laid)


def _towards_head(photo: Image.Image, size: tuple[int, int], nearer: float) -> Image.Image:
    """The part of a portrait around where its head may be, filling `size`; `nearer` 1 takes as much as fits.

    Heads are in the upper part of portraits; how far to the left or right, the colour of skin tells roughly. Its hue
    is much the same in all people, and where it is mistaken the part moves by a fifth of the photo at most.
    """
    tiny = photo.resize((32, 32), Image.Resampling.BOX).convert("YCbCr")
    columns = [
        index % 32
        for index, (luma, blue, red) in enumerate(
            zip(*(band.tobytes()[: 32 * 20] for band in tiny.split()), strict=True)
        )
        if luma > _SKIN_LUMA_ABOVE and blue in _SKIN_BLUE and red in _SKIN_RED
    ]
    middle = sum(columns) / len(columns) / 32 + 1 / 64 if len(columns) >= _SKIN_PIXELS else 0.5
    scale = min(photo.width / size[0], photo.height / size[1]) / nearer
    across, down = size[0] * scale, size[1] * scale
    left = min(max(0.0, photo.width * min(0.7, max(0.3, middle)) - across / 2), photo.width - across)
    top = (photo.height - down) * (0.2 if nearer <= 1 else 0.08)
    return photo.resize(size, Image.Resampling.BICUBIC, (left, top, left + across, top + down))


def _superellipse(size: tuple[int, int], power: float, inset: float) -> Image.Image:
    """A mask of |x|^power + |y|^power <= 1: an ellipse at 2, ever squarer above."""
    width, height = (side * _OVERSAMPLING for side in size)
    across, down = width / 2 - inset * _OVERSAMPLING, height / 2 - inset * _OVERSAMPLING
    points = []
    for step in range(240):
        cosine, sine = math.cos(step * math.tau / 240), math.sin(step * math.tau / 240)
        x = math.copysign(abs(cosine) ** (2 / power), cosine)
        y = math.copysign(abs(sine) ** (2 / power), sine)
        points.append((width / 2 + across * x, height / 2 + down * y))
    mask = Image.new("L", (width, height))
    ImageDraw.Draw(mask).polygon(points, fill=255)
    return mask.resize(size, Image.Resampling.BOX)


def _feather(mask: Image.Image, radius: float) -> Image.Image:
    return mask.filter(ImageFilter.GaussianBlur(radius))


def _heart_points(side: int, reach: float) -> list[Point]:
    points = []
    for step in range(160):
        angle = step * math.tau / 160
        x = 16 * math.sin(angle) ** 3 / 17
        y = (13 * math.cos(angle) - 5 * math.cos(2 * angle) - 2 * math.cos(3 * angle) - math.cos(4 * angle) + 2.5) / 17
        points.append((side / 2 + side * reach * x, side / 2 - side * reach * y))
    return points
