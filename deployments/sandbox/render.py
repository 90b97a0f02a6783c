"""Renders what the sandbox hands out in a provider's place: real, playable videos of the very photos it was sent.

Pillow moves the pixels and PyAV (FFmpeg) encodes them. Nothing here knows of HTTP, or of what a scene costs.
"""

import struct
from collections.abc import Iterator, Sequence
from fractions import Fraction
from io import BytesIO
from itertools import chain
from pathlib import Path
from uuid import uuid4

import av
from PIL import Image, ImageOps

from deployments.sandbox import sound, sprite
from deployments.sandbox.scenes import OTHER, SCENES
from deployments.sandbox.stage import FRAMES_PER_SECOND

# Photos are brought down to this before anything else: no frame shows more of them.
_PHOTO_SIDE = 1_000


def render(scene: str, images: Sequence[bytes], seconds: int, path: Path) -> None:
    """Render a scene out of photos into an MP4: H.264, yuv420p, 24 frames a second, index at the front.

    `squish` and `expansion` have sound (AAC, mono, 22.05 kHz), nothing else has. A name that is not in `SCENES` gets
    a slow zoom. Blocks for some CPU seconds. `path` appears whole or not at all, and replaces what was there; a render
    that is killed may leave a hidden ``*.part`` file beside it.

    Args:
        scene: the effect's name, as the provider calls it; the caption shows it.
        images: encoded photos, in any format that Pillow reads, turned as their EXIF says: two for `hug`, `kiss` and
            `heart_gesture` (the first stands on the left), one for `squish` and `expansion`, one or two for others.
        seconds: exact length of the video; providers sell 5 and 10.
        path: where the video goes; its directory exists.

    Raises:
        ValueError: the scene takes another number of images, an image cannot be decoded, or `seconds` is below 1.
        OSError: the video cannot be written.
    """
    plan = SCENES.get(scene, OTHER)
    allowed = (1, 2) if plan.images is None else (plan.images,)
    if len(images) not in allowed:
        plural = "" if allowed == (1,) else "s"
        raise ValueError(f"{scene} takes {' or '.join(map(str, allowed))} image{plural}, not {len(images)}")
    if seconds < 1:
        raise ValueError(f"seconds must be at least 1, not {seconds}")
    photos = [_photo(data, position) for position, data in enumerate(images, start=1)]
    track = plan.sound(seconds) if plan.sound else None
    part = path.with_name(f".{path.name}.{uuid4().hex}.part")
    try:
        _encode(part, plan.frames(photos, seconds), f"sandbox · {scene}", track)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _photo(data: bytes, position: int) -> Image.Image:
    """Decode one photo: upright, RGB, opaque, at most `_PHOTO_SIDE` pixels on its longer side.

    Raises:
        ValueError: it cannot be decoded; the message says which one, counted from 1, and why.
    """
    try:
        encoded = Image.open(BytesIO(data))
        # A large JPEG is decoded at half, a quarter or an eighth of its size at a fraction of the cost.
        encoded.draft("RGB", (_PHOTO_SIDE, _PHOTO_SIDE))
        image: Image.Image = ImageOps.exif_transpose(encoded)
    # Pillow's decoders raise these for damaged files; UnidentifiedImageError is an OSError.
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise ValueError(f"image {position} cannot be decoded: {error}") from error
    if image.mode.startswith("I"):
        # 16 bits a pixel: `convert` alone would cut everything above 255 to white.
        image = image.convert("I").point(lambda level: level * (1 / 257)).convert("L")
        image.info.pop("transparency", None)
    if image.has_transparency_data:
        opaque = Image.new("RGBA", image.size, "white")
        opaque.alpha_composite(image.convert("RGBA"))
        image = opaque
    image = image.convert("RGB")
    image.thumbnail((_PHOTO_SIDE, _PHOTO_SIDE), reducing_gap=2)
    return image


def _encode(path: Path, frames: Iterator[Image.Image], caption: str, track: bytes | None) -> None:
    first = next(frames)
    width, height = first.size
    note = sprite.caption(caption, width)
    corner = ((width - note.width) // 2, height - note.height - 8)
    with av.open(path, "w", format="mp4", options={"movflags": "+faststart"}) as container:
        # One thread each: the sandbox renders several videos at once, and its machine has other work.
        video = container.add_stream("libx264", FRAMES_PER_SECOND, {"preset": "veryfast", "crf": "24", "threads": "1"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        if track is not None:
            audio = container.add_stream("aac", sound.RATE, layout="mono")
            audio.bit_rate = 64_000
            for second, start in enumerate(range(0, len(track), 2 * sound.RATE)):
                samples = track[start : start + 2 * sound.RATE]
                heard = av.AudioFrame("s16", "mono", len(samples) // 2)
                heard.sample_rate, heard.pts = sound.RATE, second * sound.RATE
                heard.time_base = Fraction(1, sound.RATE)
                heard.planes[0].update(samples)
                container.mux(audio.encode(heard))
            container.mux(audio.encode(None))
        for index, frame in enumerate(chain([first], frames)):
            frame.paste(note, corner, note)
            seen = av.VideoFrame.from_bytes(frame.tobytes("raw", "RGBX"), width, height, "rgba")
            seen.pts, seen.time_base = index, Fraction(1, FRAMES_PER_SECOND)
            container.mux(video.encode(seen))
        container.mux(video.encode(None))
