"""Events at a real Prefect server: accepted, shown, once; and what is said where there is none."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import pytest
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_URL,
    PREFECT_EVENTS_MAXIMUM_RELATED_RESOURCES,
    temporary_settings,
)

from deployments.uploads import listener as listener_module
from deployments.uploads.arrival import Arrival
from deployments.uploads.events import NotAccepted, event_of, send
from deployments.uploads.folder import Folder
from deployments.uploads.listener import listen
from deployments.uploads.place import Place
from deployments.uploads.window import FOLDERS_PER_EVENT, Window
from tasks.errors import BadInput
from tests.uploads.desk import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from deployments.uploads.events import Event


async def shown(api: str, inbox: str) -> list[dict[str, Any]]:
    """The events about an inbox that the server shows."""
    about = {"event": {"name": ["effects.upload"]}, "any_resource": {"id": [f"effects.inbox.{inbox}"]}}
    async with httpx.AsyncClient() as client:
        answer = await client.post(f"{api}/events/filter", json={"filter": about})
    return list(answer.raise_for_status().json()["events"])


async def when_shown(api: str, inbox: str, count: int) -> list[dict[str, Any]]:
    """The same, once there are so many: the server writes events down a moment after it has accepted them."""
    async with asyncio.timeout(30):
        while len(events := await shown(api, inbox)) < count:  # noqa: ASYNC110 - it is no event of this process
            await asyncio.sleep(0.1)
    return events


def events_about(inbox: str, *keys: str) -> list[Event]:
    window, place = Window(), Place.of(inbox)
    for key in keys:
        folder = place.folder_of(place.bucket, place.prefix + key)
        assert folder
        window.add(folder, Arrival("s3", place.bucket, place.prefix + key, "1"), 0)
    return [event_of(group, place) for group in window.close()]


async def test_the_server_shows_each_event_once_and_the_largest_there_can_be(prefect_api: str) -> None:
    """Sent three times, as when an answer was lost; with the most folders, and names as long as stores allow."""
    small = events_about("s3://once", "squish/cat.jpg")
    names = (f"hug/{number:03}{'ü' * 500}/1.jpg" for number in range(FOLDERS_PER_EVENT))
    [large] = events_about("s3://once", *names)
    for _ in range(3):
        await send(small)
    await send([*small, large])
    told = await when_shown(prefect_api, "s3://once", 2)
    assert {event["id"]: event["payload"] for event in told} == {
        event["id"]: event["payload"] for event in (*small, large)
    }
    assert len(told) == 2


@contextlib.asynccontextmanager
async def door(port: int, api: str) -> AsyncIterator[None]:
    """The server, at another port for as long as the door is open."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def enter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inside = await asyncio.open_connection(urlsplit(api).hostname, urlsplit(api).port)
        await asyncio.gather(carry(reader, inside[1]), carry(inside[0], writer))

    async with await asyncio.start_server(enter, "127.0.0.1", port):
        yield


async def test_uploads_while_the_server_is_down_are_told_when_it_is_back(
    tmp_path: Path, prefect_api: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """All the way, from a file in a folder to an event in the dashboard; the listener neither ends nor forgets."""
    monkeypatch.setattr(listener_module, "FIRST_PAUSE_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    folder = Folder()
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{port}/api"}):
        listening = asyncio.create_task(listen(str(tmp_path), [folder], quiet_s=0.2))
        await folder.watching.wait()
        (tmp_path / "squish").mkdir()
        (tmp_path / "squish" / "cat.jpg").write_bytes(b"photo")
        await until(lambda: any("does not answer" in record.getMessage() for record in caplog.records))
        assert not await shown(prefect_api, str(tmp_path))
        async with door(port, prefect_api):
            [event] = await when_shown(prefect_api, str(tmp_path), 1)
            listening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await listening
    assert event["payload"]["folders"] == ["squish/cat.jpg"]
    assert event["resource"]["prefect.resource.id"] == f"effects.inbox.{tmp_path}/squish/cat.jpg"


@pytest.mark.parametrize(
    ("url", "error", "said"),
    [
        ("", BadInput, "set PREFECT_API_URL"),
        ("http://127.0.0.1:99999/api", BadInput, "PREFECT_API_URL is no address"),
        ("localhost:4200/api", BadInput, "PREFECT_API_URL is no address"),
        ("http://127.0.0.1:9/api", NotAccepted, "does not answer"),
        ("{}/other", NotAccepted, "HTTP 404"),
    ],
)
async def test_why_an_event_was_not_accepted(prefect_api: str, url: str, error: type[Exception], said: str) -> None:
    """In one line; no server of Prefect's own is started for it, in which nobody would wait."""
    with temporary_settings({PREFECT_API_URL: url.format(prefect_api) or None}), pytest.raises(error, match=said):
        await send(events_about("s3://photos", "squish/cat.jpg"))


async def test_the_login_of_prefect_s_settings_is_used() -> None:
    """Without one that fits, the line says which setting to look at."""
    heads = list[str]()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        known = f": Basic {base64.b64encode(b'admin:secret').decode()}" in heads[-1]
        status = "404 Not Found" if heads[-1].startswith("GET") else "204 No Content" if known else "401 Unauthorized"
        writer.write(f"HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    events = events_about("s3://photos", "squish/cat.jpg")
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/api"
        wrong = {PREFECT_API_URL: url, PREFECT_API_AUTH_STRING: "admin:wrong"}
        with temporary_settings(wrong), pytest.raises(NotAccepted, match=r"401.*PREFECT_API_AUTH_STRING"):
            await send(events)
        with temporary_settings({PREFECT_API_URL: url, PREFECT_API_AUTH_STRING: "admin:secret"}):
            await send(events)
    assert heads[-1].startswith("POST /api/events ")


async def test_an_event_that_the_server_refuses_is_known_from_one_that_may_be_tried_again(prefect_api: str) -> None:
    """More related resources than it allows: HTTP 422, for good."""
    assert prefect_api
    [event] = events_about("s3://refused", *(f"squish/{number}.jpg" for number in range(100)))
    event["related"] *= 1 + PREFECT_EVENTS_MAXIMUM_RELATED_RESOURCES.value() // 100
    with pytest.raises(NotAccepted, match="HTTP 422") as refused:
        await send([event])
    assert refused.value.lasting
