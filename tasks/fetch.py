"""Fetch: any fsspec URL becomes a scratch file with a hash, never larger than an image may be."""

from __future__ import annotations

import asyncio
import hashlib
import os
import uuid
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlsplit

import aiohttp
from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.errors import BadInput
from tasks.hosts import is_public
from tasks.jobs import SourceImage, public_url
from tasks.storage import explain, filesystem_of
from tasks.visibility import named, retry_if

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tasks.workspace import Workspace

CACHING = frozenset({"simplecache", "filecache", "blockcache", "cached"})
"""fsspec's layers that download a file before anybody could say that it is too large."""

CHUNK_BYTES = 256 * 1024
HTTP_TIMEOUT_S = 60.0
HTTP = ("http://", "https://")
NO_LINK = (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError)
LASTING = (BadInput, FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ValueError, ImportError)
"""Errors that asking again cannot mend."""

PASSING_STATUS = frozenset({408, 425, 429})
"""HTTP statuses below 500 that may be others in a moment."""


@task(
    name="fetch",
    task_run_name=named("fetch"),
    cache_policy=NO_CACHE,
    persist_result=False,
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
            shown, error = public_url(url), _cause(result)
            problems.append(f"image {number} ({shown}): {_explain(error).replace(url, shown)}")
            lasting = lasting or _is_lasting(error)
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
    if cached := CACHING.intersection(link.partition(":")[0] for link in url.split("::")):
        layer = next(iter(cached))
        raise BadInput(f"{layer}:: would copy the whole file to this machine, whatever its size; leave it out")
    links = [link for link in url.split("::") if link.startswith(HTTP)]  # zip://a.jpg::https://… holds one too
    for link in links:
        if not private_hosts and not await is_public(link):
            host = urlsplit(link).hostname
            raise BadInput(f"its host {host} is not public (EFFECTS_ALLOW_PRIVATE_HOSTS=true allows it)")
    options = {link.partition(":")[0]: _http_options(private_hosts) for link in links}
    return await asyncio.to_thread(_read, url, to, max_bytes, options)


def _read(url: str, to: Path, max_bytes: int, options: dict[str, Any]) -> SourceImage:
    # Instances that were made with options of our own are nobody else's.
    filesystem, path = filesystem_of(url, **options, **({"skip_instance_cache": True} if options else {}))
    if not options and filesystem.isdir(path):  # the web has no folders; asked for one, fsspec downloads the page
        raise IsADirectoryError(path)
    # From the web as one stream: fsspec's blocks end where the server says, not where we do. Told any size, it does
    # not ask for the size before.
    how = {"block_size": 0, "size": 1} if url.startswith(HTTP) else {}
    digest, size = hashlib.sha256(), 0
    try:
        with filesystem.open(path, "rb", **how) as source, to.open("wb") as copy:
            for chunk in _capped(source, max_bytes):
                size += len(chunk)
                digest.update(chunk)
                copy.write(chunk)
    except Exception:
        to.unlink(missing_ok=True)
        raise
    # A relative path would mean another file to whoever takes the job up from elsewhere.
    lasting = url if "://" in url else os.path.abspath(url)  # noqa: PTH100 - fsspec's paths are text
    return SourceImage(url=lasting, sha256=digest.hexdigest(), size=size, path=to)


def _capped(source: BinaryIO, max_bytes: int) -> Iterator[bytes]:
    left = max_bytes
    while chunk := source.read(CHUNK_BYTES):
        left -= len(chunk)
        if left < 0:
            raise BadInput(f"more than {max_bytes / 1e6:g} MB; that is the largest that the provider takes")
        yield chunk


def _http_options(private_hosts: bool) -> dict[str, Any]:
    """Time limits, and a guard on redirects: a public host may point to one that is not."""

    async def check(_session: object, _context: object, hop: aiohttp.TraceRequestRedirectParams) -> None:
        headers = hop.response.headers
        target = headers.get("Location") or headers.get("URI") or ""  # aiohttp follows either
        if not private_hosts and not await is_public(str(hop.url.join(type(hop.url)(target)))):
            raise BadInput("it redirects to a host that is not public")

    guard = aiohttp.TraceConfig()
    guard.on_request_redirect.append(check)
    return {
        "client_kwargs": {"timeout": aiohttp.ClientTimeout(total=HTTP_TIMEOUT_S), "trace_configs": [guard]},
        "skip_instance_cache": True,  # else the options of the first caller would serve all
    }


def _cause(error: Exception) -> Exception:
    """What happened: fsspec says "not found" of whatever goes wrong when it asks a web server for a size."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, aiohttp.ClientError | TimeoutError | BadInput):
            return cause
        cause = cause.__cause__
    return error


def _is_lasting(error: Exception) -> bool:
    if isinstance(error, aiohttp.ClientResponseError):
        return error.status < HTTPStatus.INTERNAL_SERVER_ERROR and error.status not in PASSING_STATUS
    return isinstance(error, (*LASTING, *NO_LINK))


def _explain(error: Exception) -> str:
    if isinstance(error, BadInput):
        return error.reason
    if isinstance(error, NO_LINK):  # its text is the URL, with all that is secret in it
        return "its URL, or one that it redirects to, is not valid"
    if isinstance(error, aiohttp.ClientResponseError):
        return f"the web server answers HTTP {error.status}"
    return explain(error)
