"""Fetches images the way the provider would: over http(s), or out of a data URI; never from a local path."""

import base64
import binascii
import struct
from io import BytesIO
from urllib.parse import unquote_to_bytes

import httpx
from PIL import Image

from deployments.sandbox.answers import detail

MAX_BYTES = 10 * 1024 * 1024


class BadImage(Exception):  # noqa: N818  # the image is bad; the stand-in is fine
    """An image that makes its generation fail.

    Attributes:
        error: the generation's `error`: `{detail: [{loc, msg, type, input}]}`.
    """

    def __init__(self, kind: str, message: str, url: str) -> None:
        super().__init__(message)
        self.error = detail(kind, message, url)


async def fetch(client: httpx.AsyncClient, url: str) -> bytes:
    """The bytes behind an image URL, at most `MAX_BYTES` of them.

    Raises:
        BadImage: no http(s) or data URI, not to be had (redirects are followed), or too large.
    """
    scheme = url.partition(":")[0].lower()
    if scheme == "data":
        data = _inline(url)
    elif scheme in {"http", "https"}:
        data = await _download(client, url)
    else:
        raise BadImage("file_download_error", "Only http, https and data URLs can be fetched", url)
    if len(data) > MAX_BYTES:
        raise BadImage("image_too_large", f"The image is larger than {MAX_BYTES} bytes", url)
    return data


def check(data: bytes, url: str) -> None:
    """Decode an image, if small, and as small as its format allows.

    Raises:
        BadImage: Pillow cannot decode it.
    """
    try:
        with Image.open(BytesIO(data)) as image:
            image.draft("RGB", (64, 64))
            image.load()
    # Pillow's decoders raise these for damaged files; UnidentifiedImageError is an OSError.
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise BadImage("image_load_error", "Failed to load the image", url) from error


def _inline(url: str) -> bytes:
    head, comma, payload = url.partition(",")
    raw = unquote_to_bytes(payload)
    try:
        data = base64.b64decode(raw, validate=True) if head.lower().endswith(";base64") else raw
    except binascii.Error:
        data = b""
    if not comma or not data:
        raise BadImage("file_download_error", "The data URI cannot be read", url)
    return data


async def _download(client: httpx.AsyncClient, url: str) -> bytes:
    try:
        async with client.stream("GET", url) as answer:
            answer.raise_for_status()
            data = bytearray()
            async for chunk in answer.aiter_bytes():
                data += chunk
                if len(data) > MAX_BYTES:
                    break
            return bytes(data)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise BadImage("file_download_error", "Failed to download the file from the URL", url) from error
