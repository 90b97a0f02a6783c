"""Tiny valid MP4s: what the stand-in serves when it does not render, at next to no cost."""

import functools
import struct
from fractions import Fraction
from io import BytesIO

import av
from PIL import Image

_SIDE = 64
_FRAMES_PER_SECOND = 4


def clip(seconds: int, note: str) -> bytes:
    """An H.264 MP4 of exactly this length, 64×64; each `note` makes a file of its own, as different videos are."""
    mark = note.encode()
    # Players skip a `free` box: it is there for padding.
    return _encoded(seconds) + struct.pack(">I4s", 8 + len(mark), b"free") + mark


@functools.cache
def still() -> bytes:
    """A JPEG, for when something else than a video is to be served."""
    buffer = BytesIO()
    Image.new("RGB", (_SIDE, _SIDE), "teal").save(buffer, "JPEG")
    return buffer.getvalue()


@functools.cache
def _encoded(seconds: int) -> bytes:
    buffer = BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        video = container.add_stream("libx264", _FRAMES_PER_SECOND, {"preset": "ultrafast", "threads": "1"})
        video.width = video.height = _SIDE
        video.pix_fmt = "yuv420p"
        for index in range(seconds * _FRAMES_PER_SECOND):
            level = 255 * index // (seconds * _FRAMES_PER_SECOND)
            picture = Image.new("RGBX", (_SIDE, _SIDE), (level, 128, 255 - level, 255))
            frame = av.VideoFrame.from_bytes(picture.tobytes(), _SIDE, _SIDE, "rgba")
            frame.pts, frame.time_base = index, Fraction(1, _FRAMES_PER_SECOND)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    return buffer.getvalue()
