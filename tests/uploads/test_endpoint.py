"""The HTTP endpoint on a real socket, as each sender calls it."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import httpx
import pytest

from deployments.uploads.endpoint import LONGEST_BODY, Endpoint
from tasks.errors import BadInput
from tests.uploads import samples
from tests.uploads.desk import Server, listening, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from deployments.uploads.listener import Listener

SECRET = "correct horse battery"
INBOX = "s3://photos/in"
KNOWN = {"Authorization": f"Bearer {SECRET}"}


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
async def endpoint(server: Server) -> AsyncIterator[tuple[httpx.AsyncClient, Listener]]:
    """A client of an endpoint that serves, and its listener."""
    source = Endpoint(0, secret=SECRET)
    async with listening(INBOX, server, source, longest_s=1) as listener:
        await source.serving.wait()
        async with httpx.AsyncClient(base_url=source.url, timeout=30) as client:
            yield client, listener


Running = tuple[httpx.AsyncClient, "Listener"]


@pytest.mark.parametrize(
    "message",
    [
        samples.s3(),
        samples.topic(samples.s3()),
        samples.minio(),
        samples.pubsub(),
        samples.grid(),
        samples.cloud_event(),
    ],
    ids=["s3", "sns", "minio", "pub/sub", "event grid", "cloud event"],
)
async def test_every_sender_s_notification_becomes_an_event(endpoint: Running, server: Server, message: object) -> None:
    """The answer comes after Prefect has accepted it, and a repeat changes nothing."""
    client, _ = endpoint
    for _ in range(2):
        answer = await client.post("/uploads", json=message, headers=KNOWN)
        assert (answer.status_code, answer.content) == (204, b"")
        assert server.folders == ["hug/anna and ben"]


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        (KNOWN, ""),
        ({"Authorization": f"bearer  {SECRET}"}, ""),
        ({"Authorization": httpx.BasicAuth("sns", SECRET)._auth_header}, ""),
        ({}, f"?token={SECRET.replace(' ', '%20')}"),
        ({"Authorization": "Bearer another.jwt"}, f"?token={SECRET.replace(' ', '+')}"),
    ],
)
async def test_ways_to_tell_the_secret(endpoint: Running, headers: dict[str, str], query: str) -> None:
    """MinIO has a bearer token, a topic a login in its URL, Pub/Sub and Event Grid nothing but a URL."""
    client, _ = endpoint
    answer = await client.post(f"/uploads{query}", json=samples.s3(), headers=headers)
    assert answer.status_code == 204


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({}, ""),
        ({}, "?token="),
        ({}, "?token=wrong"),
        ({"Authorization": "Bearer wrong"}, ""),
        ({"Authorization": "Bearer"}, ""),
        ({"Authorization": "Basic !!!"}, ""),
        ({"Authorization": "Basic /w=="}, ""),
        ({"Authorization": f"Digest {SECRET}"}, ""),
        ({"Authorization": b"Bearer \xff"}, ""),
    ],
)
async def test_without_the_secret_nothing_is_read(
    endpoint: Running, server: Server, headers: dict[str, str], query: str
) -> None:
    """Neither a notification nor a handshake; it is counted."""
    client, listener = endpoint
    for message in (samples.s3(), samples.grid_validation()):
        assert (await client.post(f"/uploads{query}", json=message, headers=headers)).status_code == 401
    origin = {"WebHook-Request-Origin": "eventgrid.azure.net"}
    assert (await client.options(f"/uploads{query}", headers=headers | origin)).status_code == 401
    assert listener.counters.refused == 3
    assert not server.events


async def test_event_grid_s_handshakes(endpoint: Running) -> None:
    """In its own schema the code comes back; in CloudEvents' the origin does."""
    client, _ = endpoint
    answer = await client.post("/uploads", json=samples.grid_validation(), headers=KNOWN)
    assert (answer.status_code, answer.json()) == (
        200,
        {"validationResponse": "512d38b6-c7b8-40c8-89fe-f46f9e9622b6"},
    )
    asked = {"WebHook-Request-Origin": "eventgrid.azure.net", "WebHook-Request-Rate": "120"}
    answer = await client.options("/uploads", headers=KNOWN | asked)
    assert answer.status_code == 200
    assert answer.headers["WebHook-Allowed-Origin"] == "eventgrid.azure.net"
    assert answer.headers["WebHook-Allowed-Rate"] == "*"
    assert (await client.options("/uploads", headers=KNOWN)).status_code == 400


async def test_what_is_no_notification_is_refused_and_the_next_one_is_not(endpoint: Running, server: Server) -> None:
    """400 with what is wrong, 413 for what is too long, and it goes on."""
    client, listener = endpoint
    answer = await client.post("/uploads", content=b"{", headers=KNOWN)
    assert answer.status_code == 400
    assert "no JSON" in answer.json()["problems"][0]
    assert (await client.post("/uploads", json={"hello": 1}, headers=KNOWN)).status_code == 400
    assert (await client.post("/uploads", content=b" " * (LONGEST_BODY + 1), headers=KNOWN)).status_code == 413
    assert (await client.get("/uploads", headers=KNOWN)).status_code == 405
    assert (await client.get("/other")).status_code == 404
    assert listener.counters.malformed == 2
    assert (await client.post("/uploads", json=samples.s3(samples.s3_record(), {}), headers=KNOWN)).status_code == 204
    assert (await client.post("/uploads", json=samples.s3_test(), headers=KNOWN)).status_code == 204
    assert server.folders == ["hug/anna and ben"]


async def test_senders_are_told_to_come_again_while_nobody_accepts_events(endpoint: Running, server: Server) -> None:
    """503; when they do, the answer is 204, and it is one event."""
    client, listener = endpoint
    server.away = True
    answer = await client.post("/uploads", json=samples.s3(), headers=KNOWN)
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert (await client.get("/health")).json()["prefect"] == "does not answer"
    server.away = False
    await listener.answers()
    assert (await client.post("/uploads", json=samples.s3(), headers=KNOWN)).status_code == 204
    assert len(server.events) == 1


async def test_health_tells_how_it_goes(endpoint: Running) -> None:
    """Without the secret, and without anything that is one."""
    client, _ = endpoint
    await client.post(
        "/uploads", json=samples.s3(samples.s3_record(), samples.s3_record("videos/1.mp4")), headers=KNOWN
    )
    await client.post("/uploads", json=samples.s3(), headers=KNOWN)
    answer = await client.get("/health")
    assert answer.json() == {
        "prefect": "answers",
        "pending": 0,
        "arrivals": 1,
        "repeated": 1,
        "ignored": 1,
        "malformed": 0,
        "refused": 0,
        "events": 1,
        "not_accepted": 0,
    }


async def test_a_burst_over_http_is_a_few_events(endpoint: Running, server: Server) -> None:
    """Two hundred senders at once, each answered."""
    client, _ = endpoint
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=client.base_url, limits=limits, timeout=60, headers=KNOWN) as senders:
        answers = await asyncio.gather(
            *(
                senders.post("/uploads", json=samples.s3(samples.s3_record(f"in/squish/{number}.jpg")))
                for number in range(200)
            )
        )
    assert {answer.status_code for answer in answers} == {204}
    assert len(server.folders) == 200
    assert len(server.events) <= 20


async def test_who_waits_when_it_is_stopped_is_told_to_come_again(server: Server) -> None:
    """Nobody is left without an answer, and it ends soon all the same."""
    source = Endpoint(0, secret=SECRET)
    async with httpx.AsyncClient(timeout=30, headers=KNOWN) as client:
        async with listening(INBOX, server, source, quiet_s=60, longest_s=60) as listener:
            await source.serving.wait()
            idle = await asyncio.open_connection(*source.url.removeprefix("http://").split(":"))
            sent = asyncio.create_task(client.post(f"{source.url}/uploads", json=samples.s3()))
            await until(lambda: listener.pending == 1)
        assert (await sent).status_code == 503
        assert "stopped" in (await sent).json()["reason"]
    idle[1].close()


async def test_health_alone(server: Server) -> None:
    """For a listener that has its notifications from elsewhere: no secret, and nothing to post to."""
    source = Endpoint(0, secret=None)
    async with listening(INBOX, server, source), httpx.AsyncClient() as client:
        await source.serving.wait()
        assert (await client.get(f"{source.url}/health")).status_code == 200
        assert (await client.post(f"{source.url}/uploads?token=", content=json.dumps(samples.s3()))).status_code == 404


async def test_where_it_cannot_listen(server: Server) -> None:
    """One line that names the port; a secret that is none is refused too."""
    first = Endpoint(0, secret=SECRET)
    async with listening(INBOX, server, first) as listener:
        await first.serving.wait()
        port = int(first.url.rpartition(":")[2])
        with pytest.raises(BadInput, match=str(port)):
            await Endpoint(port, secret=SECRET).listen(listener)
    with pytest.raises(BadInput, match="16 characters"):
        Endpoint(0, secret="short")
