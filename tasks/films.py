"""Looking at a video file: is it one, how long, what is in it; and its poster frame."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import av

from tasks.errors import BadResult
from tasks.jobs import VideoFacts

if TYPE_CHECKING:
    from pathlib import Path

POSTER_AT = 0.5
"""As a part of the length: the middle shows the effect, the first frame often just the photo."""

POSTER_QUALITY = 85
FTYP = slice(4, 8)


def inspect_film(path: Path) -> VideoFacts:
    """Decode every frame of an MP4 file (blocking).

    Raises:
        BadResult: it is an HTML page, no MP4, holds no pictures, or breaks off.
    """
    with path.open("rb") as file:
        head = file.read(512)
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if head[FTYP] != b"ftyp":
        text = head.lstrip().lower()
        kind = "an HTML page" if text.startswith((b"<!doctype", b"<html", b"<")) else "no MP4"
        raise BadResult(f"what came as the video is {kind} ({path.stat().st_size} bytes)")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise BadResult("what came as the video holds no pictures")
            stream = container.streams.video[0]
            sound = container.streams.audio[0].codec_context.name if container.streams.audio else None
            expected, frames, end = stream.frames, 0, 0.0
            for frame in container.decode(stream):
                frames += 1
                end = max(end, (frame.time or 0.0) + float(1 / stream.average_rate if stream.average_rate else 0))
            if frames == 0 or frames < expected:
                raise BadResult(f"the video breaks off after {frames} of {expected} frames")
            return VideoFacts(
                sha256=digest,
                size=path.stat().st_size,
                seconds=round(end, 3),
                width=stream.codec_context.width,
                height=stream.codec_context.height,
                frames=frames,
                codec=stream.codec_context.name,
                sound=sound,
            )
    except (av.FFmpegError, ValueError) as error:
        raise BadResult(f"the video does not decode: {error}") from error


def save_poster(film: Path, poster: Path) -> None:
    """Write the middle frame of a video that decodes as a JPEG (blocking)."""
    with av.open(str(film)) as container:
        stream = container.streams.video[0]
        middle = float(stream.duration * stream.time_base) * POSTER_AT if stream.duration and stream.time_base else 0.0
        for frame in container.decode(stream):
            picture = frame
            if (frame.time or 0.0) >= middle:
                break
        picture.to_image().save(poster, "JPEG", quality=POSTER_QUALITY)  # type: ignore[no-untyped-call]
