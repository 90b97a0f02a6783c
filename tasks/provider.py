"""The AIML API, over HTTP: one method a route, one error class for each next move.

The client never repeats a request by itself: who asked knows whether that could cost money. Answers are read
leniently (the API's answers come in several shapes), decisions are made on status codes and machine words, never
on message texts. Source of every rule: AIML API's public documentation and recorded answers.
"""

from __future__ import annotations

import asyncio
from functools import cache
from typing import TYPE_CHECKING, Self
from urllib.parse import quote, urlsplit

import httpx

from tasks.answers import (
    LogRow,
    Look,
    Submission,
    as_id,
    as_number,
    as_object,
    as_text,
    as_usd,
    log_rows,
    one_line,
    read_look,
    read_submission,
    refusal_kind,
    retry_after_s,
    summary,
)
from tasks.errors import (
    BadResult,
    EffectsError,
    ModelWithdrawn,
    NeverSent,
    NotAuthorized,
    OutOfCredits,
    ProviderBusy,
    Rejected,
    StorageError,
    SubmitUnknown,
)
from tasks.hosts import is_public
from tasks.submission_log import SubmissionLog

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

MAX_VIDEO_BYTES = 1_000_000_000
"""A result beyond this is no ten-second video."""


_SUBMIT_TIMEOUT = httpx.Timeout(connect=10.0, read=90.0, write=30.0, pool=5.0)
_LOOK_TIMEOUT = httpx.Timeout(connect=10.0, read=20.0, write=20.0, pool=60.0)
_DOWNLOAD_TIMEOUT = httpx.Timeout(connect=10.0, read=60.0, write=20.0, pool=600.0)

_FEW = httpx.Limits(max_connections=10, max_keepalive_connections=10)
"""For looks, and for downloads: httpx asks every open connection whether it is still alive, for each request. Of the
time of many looks at once, that was a third."""

_NEVER_LEFT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,  # only a proxy's refusal to connect
    httpx.UnsupportedProtocol,
    httpx.LocalProtocolError,  # a header that cannot be sent
)
"""What httpx raises before the first byte of the request (read in httpx 0.28 and httpcore 1.0)."""

UNTELLING = frozenset({408, 409, 425, 499})
"""Refusals that may stand for a request that was accepted: timed out, had already, given up on by its sender."""

SUBMIT_TOTAL_S = 120.0
"""For a submission from its first byte to its whole answer; the limits above are for each step of it."""


class Provider:
    """A connection to the provider; use it as an async context manager.

    Args:
        api_url: such as `https://api.aimlapi.com`.
        key: the API key; sent to this host alone.
        path: of the generation route, such as `/v2/generate/video/kling/generation`.
        private_hosts: whether results may be downloaded from hosts that are not public.
        transport: in place of the network, for simulations.

    Attributes:
        log: the provider's own log of submissions.
    """

    def __init__(
        self,
        api_url: str,
        key: str,
        path: str,
        *,
        private_hosts: bool = False,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._path = path
        self.log = SubmissionLog(self._log_page)
        self._private_hosts = private_hosts
        headers = {"Authorization": f"Bearer {key}", "Accept": "application/json"}
        base = api_url.rstrip("/")
        # A kept-alive connection that the server has just closed fails *after* the request left: its outcome would
        # be unknown. So each paid request gets a connection of its own.
        self._payer = httpx.AsyncClient(
            base_url=base,
            headers=headers,
            timeout=_SUBMIT_TIMEOUT,
            limits=httpx.Limits(max_keepalive_connections=0),
            transport=transport,
            verify=_trust(),
        )
        self._reader = httpx.AsyncClient(
            base_url=base, headers=headers, timeout=_LOOK_TIMEOUT, limits=_FEW, transport=transport, verify=_trust()
        )
        self._downloader = httpx.AsyncClient(
            timeout=_DOWNLOAD_TIMEOUT,
            limits=_FEW,
            follow_redirects=True,
            max_redirects=5,
            event_hooks={"request": [self._check_host]},
            transport=transport,
            verify=_trust(),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in (self._payer, self._reader, self._downloader):
            await client.aclose()

    async def submit(
        self, *, model: str, scene: str, image_urls: Sequence[str], duration: int, client_request_id: str
    ) -> Submission:
        """Send one submission, once. This is the only call that costs money.

        Raises:
            NeverSent: the request surely did not leave; it may be sent again.
            ProviderBusy: refused with 429; it may be sent again.
            Rejected: the provider refuses this request.
            AccountTrouble: out of credits, not authorised, model withdrawn.
            SubmitUnknown: it left, and whether it was accepted is not known.
        """
        body = {
            "model": model,
            "image_url": image_urls[0] if len(image_urls) == 1 else list(image_urls),
            "effect_scene": scene,
            "duration": duration,
        }
        try:
            async with asyncio.timeout(SUBMIT_TOTAL_S):
                response = await self._payer.post(
                    self._path, json=body, headers={"X-Client-Request-Id": client_request_id}
                )
            if response.is_success:
                return read_submission(response)
            error = await self._submit_error(response, model)
        except EffectsError:
            raise
        except _NEVER_LEFT as trouble:
            # Not the text of a header that cannot be sent: it could be the key's.
            said = "" if isinstance(trouble, httpx.LocalProtocolError) else f": {one_line(trouble)}"
            raise NeverSent(f"the provider cannot be reached{said}") from trouble
        except Exception as trouble:
            # Whatever it is, it does not show that nothing was accepted.
            raise SubmitUnknown(f"the submission left, and no answer came back: {one_line(trouble)}") from trouble
        raise error

    async def look(self, generation_id: str) -> Look | None:
        """Look at a generation once; None where the provider does not know it (which happens for a while).

        Raises:
            ProviderBusy: the look failed; look again later.
            NotAuthorized: the key no longer opens it.
        """
        response = await self._get(f"{self._path}?generation_id={quote(generation_id, safe='')}")
        if response.status_code in {400, 404}:
            return None
        body = as_object(response)
        if body is None:
            raise ProviderBusy(f"the provider's answer cannot be read: {summary(response)}")
        return read_look(body)

    async def _log_page(self, period: str, limit: int, offset: int) -> list[LogRow]:
        response = await self._get(f"/v2/logs?period={period}&limit={limit}&offset={offset}")
        return [
            LogRow(
                as_text(row.get("client_request_id")), as_id(row.get("inference_id")), as_usd(row.get("cost"), "usd")
            )
            for row in log_rows(response)
        ]

    async def balance_usd(self) -> float | None:
        """What is left on the account, in US$; None where the answer does not say."""
        body = as_object(await self._get("/v2/billing")) or {}
        return as_number(body.get("current_balance"))

    async def deprecation(self, model: str) -> tuple[str, str | None] | None:
        """`(status, replaced_by)` of a model that is on its way out, by its id or an alias; None where it is not."""
        body = as_object(await self._get("/v1/models/deprecations")) or {}
        for row in body.get("data") or ():
            if isinstance(row, dict) and (row.get("id") == model or model in (row.get("aliases") or ())):
                return str(row.get("status")), as_text(row.get("replaced_by"))
        return None

    async def is_listed(self, model: str) -> bool:
        """Whether the provider's model list holds this model."""
        body = as_object(await self._get(f"/v1/models?id={quote(model, safe='')}&include=pricing")) or {}
        return any(isinstance(row, dict) and row.get("id") == model for row in body.get("data") or ())

    async def download(self, url: str, to: Path) -> int:
        """Stream a result into a file; the key goes nowhere near it. Returns its bytes.

        Raises:
            ProviderBusy: the download failed; it may be tried again.
            BadResult: it leads to a host that is not public, or is larger than any video of ours.
        """
        try:
            async with self._downloader.stream("GET", url) as response:
                if not response.is_success:
                    raise ProviderBusy(
                        f"the video cannot be downloaded: {summary(response)}",
                        retry_after=retry_after_s(response.headers),
                    )
                return await _save(response.aiter_bytes(), to)
        except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL) as error:
            raise ProviderBusy(f"the video cannot be downloaded: {one_line(error)}") from error
        except OSError as error:
            raise StorageError(f"the video cannot be kept on this machine: {one_line(error)}") from error

    async def _check_host(self, request: httpx.Request) -> None:
        url = str(request.url)
        if not self._private_hosts and not await is_public(url):
            raise BadResult(f"the video's link leads to a host that is not public: {urlsplit(url).hostname}")

    async def _get(self, url: str) -> httpx.Response:
        try:
            response = await self._reader.get(url)
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise ProviderBusy(f"the provider did not answer: {one_line(error)}") from error
        if response.status_code in {401, 403}:
            raise NotAuthorized(f"the provider does not accept the key: {summary(response)}")
        if response.is_success or response.status_code in {400, 404}:
            return response
        raise ProviderBusy(f"the provider is busy: {summary(response)}", retry_after=retry_after_s(response.headers))

    async def _submit_error(self, response: httpx.Response, model: str) -> EffectsError:
        status, said = response.status_code, summary(response)
        if status == httpx.codes.TOO_MANY_REQUESTS:
            return ProviderBusy(f"the provider is busy: {said}", retry_after=retry_after_s(response.headers))
        if status == httpx.codes.UNAUTHORIZED:
            return NotAuthorized(f"the provider does not accept the key: {said}")
        if status in {httpx.codes.FORBIDDEN, httpx.codes.PAYMENT_REQUIRED}:
            kind = refusal_kind(response)
            if kind == "err_unverified_card":
                return OutOfCredits(f"the account is not verified: {said}")
            if kind == "err_insufficent_credits" or status == httpx.codes.PAYMENT_REQUIRED:  # spelled so
                return OutOfCredits(f"the account is out of credits: {said}")
            return NotAuthorized(f"the provider does not allow this: {said}")
        if status == httpx.codes.NOT_FOUND:
            replaced_by = await self._replacement(model)
            hint = f"; the provider names {replaced_by} in its place" if replaced_by else ""
            return ModelWithdrawn(
                f"the provider no longer serves {model}, or its route has moved{hint}: {said}", replaced_by=replaced_by
            )
        # These prove nothing: a gateway may have given up on a request that went through. Nor does a 3xx or a 5xx.
        if status in UNTELLING or not response.is_client_error:
            return SubmitUnknown(f"the submission left, and the answer does not say what became of it: {said}")
        return Rejected(f"the provider refuses the request: {said}")

    async def _replacement(self, model: str) -> str | None:
        try:
            found = await self.deprecation(model)
        except EffectsError:
            return None  # a courtesy look-up: the withdrawal itself is the news
        return found[1] if found else None


@cache
def _trust() -> ssl.SSLContext:
    """One for all clients of the process: reading the certificates takes longer than most requests."""
    return httpx.create_ssl_context()


async def _save(chunks: AsyncIterator[bytes], to: Path) -> int:
    size = 0
    with to.open("wb") as file:
        async for chunk in chunks:
            size += len(chunk)
            if size > MAX_VIDEO_BYTES:
                raise BadResult(f"the video is larger than {MAX_VIDEO_BYTES / 1e9:.0f} GB")
            file.write(chunk)
    return size
