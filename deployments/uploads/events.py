"""The Prefect event that tells of uploads, and the server's word that it was accepted."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL

from tasks.errors import BadInput, EffectsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deployments.uploads.place import Place
    from deployments.uploads.window import Group

EVENT = "effects.upload"
RESOURCE = "effects.inbox"
EXAMPLE = "http://127.0.0.1:4200/api"
ATTEMPT_S = 10.0
"""One try to hand events over; Prefect's client would try for minutes, while the senders wait for an answer."""

LOGIN = frozenset({401, 403})
REFUSED = frozenset({400, 413, 422})
"""The answers to an event that does not fit, such as one with more related resources than the server allows."""

Event = dict[str, Any]


class NotAccepted(EffectsError):  # noqa: N818
    """Prefect's server has not accepted the event yet; it is tried again, and who told of the upload may repeat it.

    Attributes:
        lasting: whether the event itself was refused: as it is, it will never be accepted.
    """

    next_move = "see whether the Prefect server at PREFECT_API_URL runs"

    def __init__(self, reason: str, *, lasting: bool = False) -> None:
        super().__init__(reason)
        self.lasting = lasting


def event_of(group: Group, place: Place) -> Event:
    """One event, as Prefect's API takes it.

    Its resource is the job's folder, `effects.inbox.<inbox>/<folder>`, and the inbox is related to it. Where it tells
    of several jobs, its resource is what they have in common, the inbox, and each of their folders is related to it.
    `payload.folders` lists them, relative to the inbox, in both cases.
    """
    inbox = _resource(place.url, place.url)
    folders = [_resource(f"{place.url}/{folder}", folder) for folder in group.folders]
    resource, role, related = (inbox, "folder", folders) if len(folders) > 1 else (folders[0], "inbox", [inbox])
    return {
        "id": str(group.id),
        "event": EVENT,
        # When it is told, not when it arrived: Prefect's triggers overlook what seems long past.
        "occurred": datetime.now(UTC).isoformat(),
        "resource": resource,
        "related": [{**other, "prefect.resource.role": role} for other in related],
        "payload": {
            "inbox": place.url,
            "folders": list(group.folders),
            "files": group.files,
            "sources": sorted({arrival.source for arrival in group.arrivals}),
        },
    }


def _resource(url: str, name: str) -> dict[str, str]:
    return {"prefect.resource.id": f"{RESOURCE}.{url}", "prefect.resource.name": name}


async def send(events: Sequence[Event]) -> None:
    """Hand events to the Prefect server that is configured; returns when it has accepted them all.

    Prefect's own client carries them, for the sake of its settings: logins, certificates, headers, profiles.

    Raises:
        BadInput: no server is configured, or its address is none.
        NotAccepted: it does not answer, or refuses them.
    """
    require_server()
    try:
        async with asyncio.timeout(ATTEMPT_S), get_client() as client:
            await client.request("POST", "/events", json=list(events))
    except TimeoutError:
        raise NotAccepted("the Prefect server does not answer in time") from None
    except httpx.HTTPStatusError as error:
        code = error.response.status_code
        hint = ": PREFECT_API_AUTH_STRING or PREFECT_API_KEY does not fit" if code in LOGIN else ""
        raise NotAccepted(f"the Prefect server answers HTTP {code}{hint}", lasting=code in REFUSED) from error
    except (httpx.HTTPError, OSError) as error:
        raise NotAccepted(f"the Prefect server does not answer: {error or type(error).__name__}") from error


def require_server() -> str:
    """The API's URL, from the environment or Prefect's profile.

    Raises:
        BadInput: none is configured, or it is no address. Without one, Prefect would start a server of its own, in
            which nobody waits for the event.
    """
    url = PREFECT_API_URL.value()
    if not url:
        raise BadInput(f"no Prefect server is configured: set PREFECT_API_URL, such as {EXAMPLE}")
    try:
        parts = urlsplit(url)
        fits = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        fits = False
    if not fits:
        raise BadInput(f"PREFECT_API_URL is no address such as {EXAMPLE}")
    return str(url)
