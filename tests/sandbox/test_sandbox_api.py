"""What a client of the stand-in provider sees on a real socket when nothing goes wrong, or when it is wrong itself."""

import asyncio
import base64
import threading
import time
from collections.abc import Iterator
from io import BytesIO
from urllib.parse import urlsplit

import av
import httpx
import pytest
from PIL import Image

from deployments.sandbox import models
from deployments.sandbox.knobs import Knobs
from deployments.sandbox.provider import PATHS, Provider
from deployments.sandbox.server import Sandbox

PRO = "klingai/kling-video-v1.6-pro-effects"
STANDARD = "klingai/kling-video-v1.6-standard-effects"


def photo(color: str = "teal") -> str:
    """A small PNG, as a data URI."""
    buffer = BytesIO()
    Image.new("RGB", (8, 8), color).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def order(**changes: object) -> dict[str, object]:
    return {"model": PRO, "effect_scene": "squish", "image_url": photo(), **changes}


def ended(api: httpx.Client, generation_id: str) -> dict[str, object]:
    """The generation's last state, when it has one."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        state: dict[str, object] = api.get(PATHS[0], params={"generation_id": generation_id}).json()
        if state["status"] not in {"queued", "generating"}:
            return state
        time.sleep(0.02)
    raise AssertionError("it does not end")


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(generate_seconds=0, render=False) as running:
        yield running


@pytest.fixture(scope="module")
def refusing() -> Iterator[Sandbox]:
    """One for all tests that only see refusals: starting and stopping takes a fifth of a second."""
    with Sandbox(render=False, api_key="key") as running:
        yield running
        assert running.counters.billed == 0


@pytest.fixture
def api(sandbox: Sandbox) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=sandbox.url, headers={"Authorization": "Bearer key"}) as client:
        yield client


@pytest.mark.parametrize("path", PATHS)
def test_a_submission_becomes_a_video(sandbox: Sandbox, api: httpx.Client, path: str) -> None:
    """Both routes take the same order; the answer tells its price and id, the look a link that leads to an MP4."""
    answer = api.post(path, json=order(duration=10), headers={"X-Client-Request-Id": "job.0.1"})
    assert answer.is_success
    body = answer.json()
    assert body["status"] == "queued"
    assert body["meta"]["usage"] == {"credits_used": 2_060_000, "usd_spent": 1.03}
    assert answer.headers["x-inference-id"] == body["id"]
    assert answer.headers["x-client-request-id"] == "job.0.1"

    state = ended(api, body["id"])
    assert state["id"] == body["id"]
    assert state["status"] == "completed"
    video = state["video"]
    assert isinstance(video, dict)
    assert video["content_type"] == "video/mp4"
    hop = httpx.get(video["url"])
    assert hop.status_code == 302
    assert urlsplit(hop.headers["location"]).path.startswith("/storage/")
    data = httpx.get(video["url"], follow_redirects=True).content
    assert len(data) == video["file_size"]
    with av.open(BytesIO(data), "r") as container:
        assert container.duration == 10_000_000
        assert container.streams.video[0].codec_context.name == "h264"
    assert sandbox.counters.keys_leaked == 0


def test_statuses_follow_the_clock() -> None:
    """Queued for its share of the time, then generating, then completed."""
    now = [1_000.0]
    with (
        Sandbox(Knobs(render=False), generate_seconds=100, queue_fraction=0.3, clock=lambda: now[0]) as sandbox,
        httpx.Client(base_url=sandbox.url, headers={"Authorization": "Bearer key"}) as api,
    ):
        generation_id = api.post(PATHS[0], json=order()).json()["id"]
        seen = []
        for moment in (1_000, 1_029, 1_031, 1_099):
            now[0] = moment
            seen.append(api.get(PATHS[0], params={"generation_id": generation_id}).json()["status"])
        now[0] = 1_100
        assert seen == ["queued", "queued", "generating", "generating"]
        assert ended(api, generation_id)["status"] == "completed"


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Basic a2V5", "Bearer wrong"])
def test_a_key_is_needed(refusing: Sandbox, authorization: str | None) -> None:
    """No key, no Bearer or the wrong key: 401 everywhere but where the catalogue is public, and nothing is billed."""
    headers = {} if authorization is None else {"Authorization": authorization}
    with httpx.Client(base_url=refusing.url, headers=headers) as client:
        assert client.post(PATHS[0], json=order()).status_code == 401
        for path in (PATHS[0], "/v2/logs", "/v2/billing", "/v2/billing/transactions"):
            assert client.get(path).status_code == 401
        assert client.get("/v1/models").status_code == 200
        assert client.get("/v1/models/deprecations").status_code == 200


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"effect_scene": "hugg"}, ["effect_scene"]),
        ({"effect_scene": None}, ["effect_scene"]),
        ({"effect_scene": "hug"}, ["image_url"]),
        ({"image_url": [photo(), photo()]}, ["image_url"]),
        ({"image_url": []}, ["image_url"]),
        ({"image_url": None}, ["image_url"]),
        ({"image_url": "photos/me.jpg"}, ["image_url"]),
        ({"image_url": "http://[::bad"}, ["image_url"]),
        ({"image_url": [7]}, ["image_url"]),
        ({"duration": 7}, ["duration"]),
        ({"duration": "5"}, ["duration"]),
        ({"model": None}, ["model"]),
        ({"effect_scene": "hugg", "duration": 7, "image_url": {}}, ["duration", "effect_scene", "image_url"]),
    ],
)
def test_a_wrong_body_is_told_all_that_is_wrong(
    refusing: Sandbox, changes: dict[str, object], fields: list[str]
) -> None:
    """400 as problem+json with every issue in error.data, each with path, message and code; nothing is billed."""
    answer = httpx.post(refusing.url + PATHS[1], json=order(**changes), headers={"Authorization": "Bearer key"})
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body.keys() == {"title", "status", "message", "instance", "requestId", "timestamp", "error"}
    assert (body["title"], body["status"], body["instance"]) == ("Bad Request", 400, PATHS[1])
    issues = body["error"]["data"]
    assert sorted(issue["path"][0] for issue in issues) == fields
    assert all(issue["message"] and issue["code"] for issue in issues)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff"])
def test_a_body_that_is_no_json_object(refusing: Sandbox, body: bytes) -> None:
    """400 with one issue."""
    answer = httpx.post(refusing.url + PATHS[0], content=body, headers={"Authorization": "Bearer key"})
    assert answer.status_code == 400
    assert len(answer.json()["error"]["data"]) == 1


def test_every_scene_with_its_number_of_images(sandbox: Sandbox, api: httpx.Client) -> None:
    """80 scenes; hug, kiss, heart_gesture and fight take two images, all others one, as a string or a list."""
    assert len(set(models.SCENES)) == 80
    sandbox.knobs.balance_usd = 1_000
    for scene in models.SCENES:
        pair = scene in {"hug", "kiss", "heart_gesture", "fight"}
        answer = api.post(PATHS[0], json=order(effect_scene=scene, image_url=[photo()] * (2 if pair else 1)))
        assert answer.is_success, scene
    assert sandbox.counters.billed == 80


def test_a_model_that_is_not_served(sandbox: Sandbox, api: httpx.Client) -> None:
    """404 on submit for an unknown and for a withdrawn model, which the catalogue does not list either."""
    assert api.post(PATHS[0], json=order(model="klingai/other")).status_code == 404
    sandbox.knobs.withdrawn_models = [PRO]
    sandbox.knobs.deprecations = [{"id": PRO, "aliases": [], "status": "withdrawn", "replaced_by": STANDARD}]
    assert api.post(PATHS[0], json=order()).status_code == 404
    assert api.post(PATHS[0], json=order(model=STANDARD)).is_success
    assert api.get("/v1/models", params={"id": PRO, "include": "pricing"}).json()["data"] == []
    (row,) = api.get("/v1/models", params={"id": STANDARD, "include": "pricing"}).json()["data"]
    assert row["pricing"]["usd"] == 0.048
    feed = api.get("/v1/models/deprecations").json()
    assert feed["data"] == sandbox.knobs.deprecations


def test_an_unknown_generation(api: httpx.Client) -> None:
    """404 for an id nobody knows, 400 for none, 404 for a route that is not there; all in the same envelope."""
    unknown = api.get(PATHS[0], params={"generation_id": "x"})
    assert (unknown.status_code, unknown.json()["error"]["message"]) == (404, "Inference not found")
    assert api.get(PATHS[0]).status_code == 400
    assert api.get("/v3/nothing").json()["title"] == "Not Found"
    assert httpx.get(str(api.base_url) + "/cdn/nothing/output.mp4").status_code == 404


def test_a_key_that_is_sent_to_the_cdn_is_noticed(sandbox: Sandbox, api: httpx.Client) -> None:
    """Link and storage count each request that carries an Authorization header."""
    state = ended(api, api.post(PATHS[0], json=order()).json()["id"])
    video = state["video"]
    assert isinstance(video, dict)
    httpx.get(video["url"], follow_redirects=True)
    assert sandbox.counters.keys_leaked == 0
    api.get(video["url"], follow_redirects=True)
    assert sandbox.counters.keys_leaked == 2
    assert (sandbox.counters.downloads, sandbox.counters.files) == (2, 2)


def test_knobs_and_counters_over_http(sandbox: Sandbox) -> None:
    """Knobs are patched whole or not at all, counters are read, and none of that takes a key."""
    with httpx.Client(base_url=sandbox.url) as client:
        assert client.post("/sandbox/knobs", json={"generate_seconds": 9, "balance_usd": 1}).is_success
        assert (sandbox.knobs.generate_seconds, sandbox.knobs.balance_usd) == (9, 1)
        for wrong in ({"generate_seconds": -1, "balance_usd": 2}, {"nothing": 1}, [1], "x"):
            answer = client.post("/sandbox/knobs", json=wrong)
            assert answer.status_code == 400
            assert answer.json()["message"]
        assert (sandbox.knobs.generate_seconds, sandbox.knobs.balance_usd) == (9, 1)
        assert client.get("/sandbox/knobs").json()["generate_seconds"] == 9
        client.post(PATHS[0], json=order())
        assert client.get("/sandbox/counters").json()["submissions"] == 1


def test_it_leaves_nothing_running() -> None:
    """After the `with`, no thread is left and the port is free for the next, which may be the same sandbox."""
    before = set(threading.enumerate())
    sandbox = Sandbox(render=False)
    for _ in range(2):
        with sandbox:
            assert httpx.get(f"{sandbox.url}/v1/models").is_success
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{sandbox.url}/v1/models")
    assert set(threading.enumerate()) == before


def test_it_hangs_up_on_those_who_wait(capfd: pytest.CaptureFixture[str]) -> None:
    """A stop does not wait for slow answers, and says nothing about them: their clients lose the connection."""
    lost: list[Exception] = []

    def wait(url: str) -> None:
        try:
            httpx.get(f"{url}/v1/models", timeout=30)
        except httpx.TransportError as error:
            lost.append(error)

    start = time.monotonic()
    with Sandbox(render=False, faults=[{"kind": "slow", "seconds": 60}]) as sandbox:
        client = threading.Thread(target=wait, args=(sandbox.url,))
        client.start()
        while not sandbox.counters.faults:
            time.sleep(0.01)
    client.join()
    assert len(lost) == 1
    assert time.monotonic() - start < 10
    assert capfd.readouterr() == ("", "")


def test_a_taken_port() -> None:
    """OSError, at once."""
    with Sandbox(render=False) as sandbox, pytest.raises(OSError, match="in use"), sandbox_at(sandbox.url):
        pass


def sandbox_at(url: str) -> Sandbox:
    return Sandbox(render=False, port=urlsplit(url).port or 0)


async def test_without_a_socket() -> None:
    """The same application driven in-process, by a clock that is moved by hand; slow answers move nothing real."""
    now, slept = [0.0], []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    knobs = Knobs(render=False, fetch_images=False, generate_seconds=120, seed=1)
    provider = Provider(knobs, clock=lambda: now[0], sleep=sleep)
    transport = httpx.ASGITransport(provider)
    headers = {"Authorization": "Bearer key"}
    async with httpx.AsyncClient(transport=transport, base_url="http://sandbox", headers=headers) as client:
        generation_id = (await client.post(PATHS[0], json=order(image_url="https://example.org/a.jpg"))).json()["id"]
        await asyncio.sleep(0)
        assert (await client.get(PATHS[0], params={"generation_id": generation_id})).json()["status"] == "queued"
        await client.post("/sandbox/faults", json=[{"kind": "slow", "seconds": 60, "count": 1}])
        now[0] = 120
        state = (await client.get(PATHS[0], params={"generation_id": generation_id})).json()
        assert (state["status"], slept) == ("completed", [60])
        await client.post("/sandbox/faults", json=["reset", "cdn_truncated"])
        with pytest.raises(httpx.ReadError):
            await client.get(PATHS[0], params={"generation_id": generation_id})
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get(state["video"]["url"], follow_redirects=True)
    await provider.close()
