"""How the source images reach the provider, which fetches URLs and takes no uploads.

Three ways: `link` passes a public http(s) URL on as it is, `sign` lets a filesystem make a URL that anyone can
fetch for some hours (the image's own, or the staging area's), `inline` puts the bytes into the request as a data
URI, which the provider does not document. Staged copies are people's photos: they are removed when the job ends.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from typing import TYPE_CHECKING

from tasks.errors import BadInput
from tasks.hosts import is_public
from tasks.jobs import public_url
from tasks.storage import SIGN_FOR_S, Storage, explain, filesystem_of

if TYPE_CHECKING:
    from tasks.jobs import Request, SourceImage
    from tasks.settings import Settings

log = logging.getLogger("effects")

SUFFIX = {"image/jpeg": "jpg", "image/png": "png"}


async def deliver(request: Request, settings: Settings) -> tuple[str, ...]:
    """A URL for each image, in order, as the provider is to be told.

    The URLs may carry signatures or whole images: they go into the submission and nowhere else.

    Raises:
        BadInput: where the chosen way is not open to an image.
        StorageError: where the staging area cannot be written.
    """
    return tuple(await asyncio.gather(*(_deliver(request, n, settings) for n in range(len(request.sources)))))


async def withdraw(request: Request, settings: Settings) -> None:
    """Remove the job's staged copies, if there are any."""
    if settings.staging:
        storage = Storage(settings.staging)
        for path in await storage.list(request.job_id):
            await storage.delete(path)


async def _deliver(request: Request, index: int, settings: Settings) -> str:
    source, way = request.sources[index], settings.delivery
    shown = f"image {index + 1} ({public_url(source.url)})"
    if way in {"auto", "link"} and source.url.startswith(("http://", "https://")):
        if settings.private_hosts_allowed or await is_public(source.url):
            return source.url
        if way == "link":
            raise BadInput(f"{shown}: its host is not public, so the provider cannot fetch it")
    if way == "link":
        raise BadInput(f"{shown}: EFFECTS_DELIVERY=link needs an http(s) URL")
    if way in {"auto", "sign"} and (url := await _sign(request, index, settings)):
        return url
    if way == "sign":
        raise BadInput(
            f"{shown}: its filesystem cannot sign URLs; set EFFECTS_STAGING to a bucket that can, such as s3://…"
        )
    if way == "auto":
        log.warning(
            "%s goes inline, which the provider does not document: set EFFECTS_STAGING to a bucket, or use an"
            " image that is on the web",
            shown,
        )
    return await asyncio.to_thread(_inline, source)


async def _sign(request: Request, index: int, settings: Settings) -> str | None:
    """A signed URL from the image's own filesystem, else from the staging area; None where neither signs."""
    source = request.sources[index]
    if "::" not in source.url and not source.url.startswith(("http://", "https://")):
        signed = await asyncio.to_thread(_sign_in_place, source.url)
        if signed:
            return signed
    if not settings.staging or source.path is None:
        return None
    storage = Storage(settings.staging)
    # Under the job's own id: another job with the same photo ends at another time.
    path = f"{request.job_id}/{index + 1}-{source.sha256}.{SUFFIX.get(source.media_type, 'jpg')}"
    signed = await storage.sign(path)
    if signed:  # else the copy would lie there for nothing
        await storage.upload(path, source.path)
    return signed


def _sign_in_place(url: str) -> str | None:
    try:
        filesystem, path = filesystem_of(url)
        return str(filesystem.sign(path, expiration=SIGN_FOR_S))
    except Exception as error:  # noqa: BLE001 - each cloud has errors of its own for credentials that cannot sign
        log.debug("%s cannot be signed where it is: %s", public_url(url), explain(error))
        return None


def _inline(source: SourceImage) -> str:
    if source.path is None:
        raise BadInput(f"{public_url(source.url)} was not fetched")
    return f"data:{source.media_type};base64,{base64.b64encode(source.path.read_bytes()).decode()}"
