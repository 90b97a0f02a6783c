"""Fetch: any fsspec URL becomes a scratch file with a hash, never larger than an image may be."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aiohttp
from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.errors import BadInput
from tasks.hosts import is_public
from tasks.jobs import SourceImage, public_url
from tasks.storage import explain, filesystem_of
from tasks.visibility import retry_if

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tasks.workspace import Workspace

CHUNK_BYTES = 256 * 1024
HTTP_TIMEOUT_S = 60.0
LASTING = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ValueError, ImportError)
"""Errors that asking again cannot mend."""


@task(
    name="fetch",
    cache_policy=NO_CACHE,
    retries=2,
    retry_delay_seconds=[1, 5],
    retry_condition_fn=retry_if(lambda error: isinstance(error, BadInput) and error.transient),
)
async def fetch_images(images: Sequence[str], workspace: Workspace) -> tuple[SourceImage, ...]:
    """Fetch every image into the scratch folder, in order.

    Raises:
        BadInput: naming every image that cannot be had; tried again where that could help.
    """
    return await fetch(
        images,
        workspace.scratch,
        max_bytes=workspace.catalogue.provider.images.max_bytes,
        private_hosts=workspace.settings.private_hosts_allowed,
    )


async def fetch(
    images: Sequence[str], scratch: Path, *, max_bytes: int, private_hosts: bool
) -> tuple[SourceImage, ...]:
    """The step's logic: read, cap and hash every image; all problems at once.

    Args:
        images: fsspec URLs or local paths.
        scratch: where the bytes go.
        max_bytes: reading stops behind this; a larger image is a problem.
        private_hosts: whether http(s) images may come from hosts that are not public.

    Raises:
        BadInput: naming every image that cannot be had.
    """
    fetched = await asyncio.gather(
        *(_fetch(url, scratch / uuid.uuid4().hex, max_bytes, private_hosts) for url in images), return_exceptions=True
    )
    sources, problems, lasting = [], [], False
    for number, (url, result) in enumerate(zip(images, fetched, strict=True), start=1):
        if isinstance(result, SourceImage):
            sources.append(result)
        elif isinstance(result, Exception):
            problems.append(f"image {number} ({public_url(url)}): {_explain(result)}")
            lasting = lasting or isinstance(result, (*LASTING, BadInput))
        else:
            raise result
    if problems:
        forget(sources)
        raise BadInput(problems, transient=not lasting)
    return tuple(sources)


def forget(sources: Sequence[SourceImage]) -> None:
    """Remove the scratch files of images that are not needed any more."""
    for source in sources:
        if source.path is not None:
            source.path.unlink(missing_ok=True)


async def _fetch(url: str, to: Path, max_bytes: int, private_hosts: bool) -> SourceImage:
    over_http = url.startswith(("http://", "https://"))
    for link in url.split("::"):  # a chained URL, such as zip://a.jpg::https://…, may hold one too
        if link.startswith(("http://", "https://")) and not private_hosts and not await is_public(link):
            host = urlsplit(link).hostname
            raise BadInput(f"its host {host} is not public (EFFECTS_ALLOW_PRIVATE_HOSTS=true allows it)")
    return await asyncio.to_thread(_read, url, to, max_bytes, _http_options(private_hosts) if over_http else {})


def _read(url: str, to: Path, max_bytes: int, options: dict[str, Any]) -> SourceImage:
    filesystem, path = filesystem_of(url, **options)
    if filesystem.isdir(path) and not options:
        raise IsADirectoryError(path)
    digest, size = hashlib.sha256(), 0
    with filesystem.open(path, "rb") as source, to.open("wb") as copy:
        while chunk := source.read(CHUNK_BYTES):
            size += len(chunk)
            if size > max_bytes:
                to.unlink()
                raise BadInput(f"more than {max_bytes / 1e6:g} MB; that is the largest that the provider takes")
            digest.update(chunk)
            copy.write(chunk)
    return SourceImage(url=url, sha256=digest.hexdigest(), size=size, path=to)


def _http_options(private_hosts: bool) -> dict[str, Any]:
    """Time limits, and a guard on redirects: a public host may point to one that is not."""

    async def check(_session: object, _context: object, hop: aiohttp.TraceRequestRedirectParams) -> None:
        target = hop.response.headers.get("Location", "")
        if not private_hosts and not await is_public(str(hop.url.join(type(hop.url)(target)))):
            raise BadInput("it redirects to a host that is not public")

    guard = aiohttp.TraceConfig()
    guard.on_request_redirect.append(check)
    return {
        "client_kwargs": {"timeout": aiohttp.ClientTimeout(total=HTTP_TIMEOUT_S), "trace_configs": [guard]},
        "skip_instance_cache": True,  # else the options of the first caller would serve all
    }


def _explain(error: Exception) -> str:
    if isinstance(error, BadInput):
        return error.reason
    if isinstance(error, aiohttp.ClientResponseError):
        return f"the web server answers HTTP {error.status}"
    return explain(error)
