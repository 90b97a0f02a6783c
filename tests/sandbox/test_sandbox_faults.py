"""Each fault, as a client meets it on a real socket; and whether the submission behind it was billed."""

import base64
import random
import re
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from io import BytesIO

import av
import httpx
import pytest
from PIL import Image
from pydantic import ValidationError

from deployments.sandbox.faults import ANSWERS, KINDS, Fault, draw
from deployments.sandbox.provider import PATHS
from deployments.sandbox.server import Sandbox

STATUSES = ("408", "500", "502", "503", "504", "524")
REFUSALS = {
    "429": 429,
    "unauthorized": 401,
    "no_credits": 403,
    "unverified_card": 403,
    "withdrawn": 404,
    "invalid": 400,
}


def photo() -> str:
    """A small PNG, as a data URI."""
    buffer = BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


PHOTO = photo()


@pytest.fixture(scope="module")
def running() -> Iterator[Sandbox]:
    """One for all tests: starting and stopping takes a fifth of a second."""
    with Sandbox(generate_seconds=0, render=False, balance_usd=10_000) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running: Sandbox) -> Iterator[Sandbox]:
    yield running
    running.knobs.faults = []


@pytest.fixture
def api(sandbox: Sandbox) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=sandbox.url, headers={"Authorization": "Bearer key"}) as client:
        yield client


def submit(api: httpx.Client, client_request_id: str = "job.0.1", scene: str = "squish") -> httpx.Response:
    body = {"model": "klingai/kling-video-v1.6-pro-effects", "effect_scene": scene, "image_url": PHOTO}
    return api.post(PATHS[0], json=body, headers={"X-Client-Request-Id": client_request_id})


def look(api: httpx.Client, generation_id: str) -> httpx.Response:
    return api.get(PATHS[0], params={"generation_id": generation_id})


def ended(api: httpx.Client, generation_id: str) -> dict[str, object]:
    """The generation's state as soon as it has something to show."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        state: dict[str, object] = look(api, generation_id).json()
        if "video" in state or "error" in state:
            return state
        time.sleep(0.01)
    raise AssertionError("it does not end")


def generation(api: httpx.Client) -> str:
    return str(submit(api).json()["id"])


def link(api: httpx.Client) -> str:
    video = ended(api, generation(api))["video"]
    assert isinstance(video, dict)
    return str(video["url"])


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", STATUSES)
def test_statuses_before_and_after(sandbox: Sandbox, api: httpx.Client, kind: str, when: str) -> None:
    """The answer is lost behind a status: the submission was billed only when the fault came after."""
    billed = sandbox.counters.billed
    sandbox.knobs.faults = [Fault.model_validate({"kind": kind, "route": "submit", "when": when, "count": 1})]
    answer = submit(api)
    assert answer.status_code == int(kind)
    assert answer.json()["status"] == int(kind)
    assert sandbox.counters.billed - billed == (when == "after")
    assert submit(api).is_success


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_connection_is_reset(sandbox: Sandbox, api: httpx.Client, when: str) -> None:
    """No answer at all, on any route; before or after the submission was billed."""
    billed = sandbox.counters.billed
    sandbox.knobs.faults = [Fault.model_validate({"kind": "reset", "route": "submit", "when": when})]
    with pytest.raises(httpx.ReadError, match="reset"):
        submit(api)
    assert sandbox.counters.billed - billed == (when == "after")
    sandbox.knobs.faults = [Fault(kind="reset")]
    for path in (PATHS[0], "/v2/logs", "/v2/billing", "/v1/models"):
        with pytest.raises(httpx.ReadError, match="reset"):
            api.get(path)
    sandbox.knobs.faults = []
    url = link(api)
    sandbox.knobs.faults = [Fault(kind="reset", route="cdn")]
    with pytest.raises(httpx.ReadError, match="reset"):
        httpx.get(url)


def test_html_in_place_of_json(sandbox: Sandbox, api: httpx.Client) -> None:
    """A page with 200 or with 502."""
    for kind, status in (("html_200", 200), ("html_502", 502)):
        sandbox.knobs.faults = [Fault(kind=kind)]
        for answer in (submit(api), look(api, "x"), api.get("/v2/logs")):
            assert answer.status_code == status
            assert answer.headers["content-type"].startswith("text/html")


def test_malformed_json(sandbox: Sandbox, api: httpx.Client) -> None:
    """The submission was billed and its status is a success, but the body ends in the middle."""
    billed = sandbox.counters.billed
    sandbox.knobs.faults = [Fault(kind="malformed_json", route="submit")]
    answer = submit(api)
    assert answer.is_success
    with pytest.raises(ValueError, match="line 1"):
        answer.json()
    assert sandbox.counters.billed - billed == 1


@pytest.mark.parametrize(("kind", "status"), REFUSALS.items())
def test_refusals(sandbox: Sandbox, api: httpx.Client, kind: str, status: int) -> None:
    """A refused submission is not billed, and that is so for good: a refusal cannot come after."""
    billed = sandbox.counters.billed
    sandbox.knobs.faults = [Fault(kind=kind, route="submit")]
    answer = submit(api)
    assert answer.status_code == status
    assert answer.json()["error"]["name"]
    assert sandbox.counters.billed == billed
    with pytest.raises(ValidationError, match="after"):
        Fault(kind=kind, when="after")


def test_retry_after(sandbox: Sandbox, api: httpx.Client) -> None:
    """None, seconds, or an HTTP-date; and the older envelope."""
    sandbox.knobs.faults = [Fault(kind="429", count=1)]
    assert "retry-after" not in submit(api).headers
    sandbox.knobs.faults = [Fault(kind="429", retry_after=2.5)]
    assert submit(api).headers["retry-after"] == "2.5"
    sandbox.knobs.faults = [Fault(kind="503", retry_after=30, retry_after_date=True, old_envelope=True)]
    answer = submit(api)
    assert 25 < parsedate_to_datetime(answer.headers["retry-after"]).timestamp() - time.time() <= 30
    assert answer.json().keys() == {"message", "path", "requestId", "statusCode", "timestamp"}
    assert answer.json()["statusCode"] == "503"


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_slow_answer(sandbox: Sandbox, api: httpx.Client, when: str) -> None:
    """Late, but whole; a client that hangs up meanwhile has bought a video all the same."""
    fault = {"kind": "slow", "route": "submit", "when": when, "seconds": 0.3}
    sandbox.knobs.faults = [Fault.model_validate(fault)]
    start = time.monotonic()
    assert submit(api).is_success
    assert time.monotonic() - start >= 0.3
    billed = sandbox.counters.billed
    with pytest.raises(httpx.ReadTimeout):
        api.post(PATHS[0], json=submitted_body(), timeout=0.1)
    assert sandbox.counters.billed - billed == (when == "after")
    time.sleep(0.4)
    assert sandbox.counters.billed - billed == 1


def submitted_body() -> dict[str, object]:
    return {"model": "klingai/kling-video-v1.6-pro-effects", "effect_scene": "squish", "image_url": PHOTO}


def test_shapes_of_the_submit_answer(sandbox: Sandbox, api: httpx.Client) -> None:
    """Without meta, and with generation_id in place of id."""
    sandbox.knobs.faults = [Fault(kind="no_meta"), Fault(kind="generation_id_key")]
    answer = submit(api)
    assert answer.json() == {"generation_id": answer.headers["x-inference-id"], "status": "queued"}


@pytest.mark.parametrize(
    ("kind", "pattern"),
    [
        ("id_uuid", r"[0-9a-f-]{36}:kling-video/v1\.6/pro/effects"),
        ("id_nanoid", r"[A-Za-z0-9][A-Za-z0-9_-]{20}"),
        ("id_dash", r"-[A-Za-z0-9_-]{20}"),
    ],
)
def test_styles_of_ids(sandbox: Sandbox, api: httpx.Client, kind: str, pattern: str) -> None:
    """Ids in every style that was seen, each good for looks and in the logs."""
    sandbox.knobs.faults = [Fault(kind=kind)]
    generation_id = generation(api)
    assert re.fullmatch(pattern, generation_id)
    assert ended(api, generation_id)["id"] == generation_id
    assert api.get("/v2/logs", params={"limit": 1}).json()["data"][0]["inference_id"] == generation_id


def test_words_for_a_status(sandbox: Sandbox, api: httpx.Client) -> None:
    """`succeeded` at the end only; an unknown word at any time, with a video when there is one."""
    sandbox.knobs.faults = [Fault(kind="status_succeeded")]
    state = ended(api, generation(api))
    assert (state["status"], "video" in state) == ("succeeded", True)
    sandbox.knobs.faults = [Fault(kind="status_unknown", word="active"), Fault(kind="stuck", count=1)]
    assert look(api, generation(api)).json()["status"] == "active"
    state = ended(api, generation(api))
    assert (state["status"], "video" in state) == ("active", True)


def test_shapes_of_the_video(sandbox: Sandbox, api: httpx.Client) -> None:
    """A list of links, or an object with nothing but the link."""
    sandbox.knobs.faults = [Fault(kind="video_list", count=1), Fault(kind="video_bare", count=1)]
    generation_id = generation(api)
    listed = ended(api, generation_id)["video"]
    bare = ended(api, generation_id)["video"]
    assert isinstance(listed, list)
    assert bare == {"url": listed[0]}


def test_a_generation_is_not_found_for_a_while(sandbox: Sandbox, api: httpx.Client) -> None:
    """404 "Inference not found", then the generation is there."""
    generation_id = generation(api)
    sandbox.knobs.faults = [Fault(kind="not_found", count=2)]
    assert [look(api, generation_id).status_code for _ in range(3)] == [404, 404, 200]


def test_generations_fail_in_every_shape(sandbox: Sandbox, api: httpx.Client) -> None:
    """Status error, with each shape of `error`; one that blames an image names it and says of what type it is."""
    shapes = {}
    for kind in ("error_null", "error_string", "error_named", "error_text", "error_detail"):
        sandbox.knobs.faults = [Fault(kind=kind, error_type="content_policy_violation")]
        state = ended(api, generation(api))
        assert state["status"] == "error"
        shapes[kind] = state["error"]
    assert shapes["error_null"] is None
    assert isinstance(shapes["error_string"], str)
    assert isinstance(shapes["error_named"], dict)
    assert shapes["error_named"].keys() == {"name", "message"}
    assert isinstance(shapes["error_text"], dict)
    assert isinstance(shapes["error_text"]["detail"], str)
    assert isinstance(shapes["error_detail"], dict)
    (blamed,) = shapes["error_detail"]["detail"]
    assert blamed.keys() == {"loc", "msg", "type", "input"}
    assert (blamed["type"], blamed["loc"]) == ("content_policy_violation", ["body", "image_url"])


def test_a_generation_that_never_ends(sandbox: Sandbox, api: httpx.Client) -> None:
    """It stays queued or generating."""
    sandbox.knobs.faults = [Fault(kind="stuck")]
    generation_id = generation(api)
    time.sleep(0.1)
    assert look(api, generation_id).json()["status"] == "generating"


def test_links_that_do_not_work(sandbox: Sandbox, api: httpx.Client) -> None:
    """404, 503 and expired, as often as asked for; then the video is there."""
    url = link(api)
    sandbox.knobs.faults = [Fault(kind=kind, count=1) for kind in ("cdn_404", "cdn_503", "cdn_expired")]
    answers = [httpx.get(url, follow_redirects=True) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [404, 503, 403, 200]
    assert "expired" in answers[2].text
    av.open(BytesIO(answers[3].content)).close()


def test_files_that_are_not_the_video(sandbox: Sandbox, api: httpx.Client) -> None:
    """A page, half a file with and without a truthful length, a JPEG, and a video of another length."""
    url = link(api)
    whole = httpx.get(url, follow_redirects=True).content

    def fetch(kind: str) -> httpx.Response:
        sandbox.knobs.faults = [Fault(kind=kind)]
        answer = httpx.get(url, follow_redirects=True)
        assert answer.status_code == 200
        return answer

    assert fetch("cdn_html").headers["content-type"].startswith("text/html")
    with pytest.raises(httpx.RemoteProtocolError, match=f"received {len(whole) // 2} bytes, expected {len(whole)}"):
        fetch("cdn_truncated")
    assert fetch("cdn_short").content == whole[: len(whole) // 2]
    jpeg = fetch("cdn_not_video")
    assert jpeg.headers["content-type"] == "video/mp4"
    assert jpeg.content.startswith(b"\xff\xd8")
    with av.open(BytesIO(fetch("cdn_wrong_length").content), "r") as container:
        assert container.duration == 2_000_000


def test_faults_over_http(sandbox: Sandbox, api: httpx.Client) -> None:
    """Replaced as a list, of objects or of short strings; a wrong one changes nothing; removed with DELETE."""
    wanted = [{"kind": "503", "route": "poll", "count": 2}, "reset@submit:0.25", "stuck"]
    shown = api.post("/sandbox/faults", json=wanted).json()
    assert [(fault["kind"], fault["route"], fault["rate"], fault["count"]) for fault in shown] == [
        ("503", "poll", 1.0, 2),
        ("reset", "submit", 0.25, None),
        ("stuck", None, 1.0, None),
    ]
    refused: list[object] = [
        [{"kind": "nothing"}],
        ["503@moon"],
        ["503:2"],
        [{"kind": "stuck", "route": "cdn"}],
        {},
        [3],
    ]
    for wrong in refused:
        answer = api.post("/sandbox/faults", json=wrong)
        assert answer.status_code == 400
        assert answer.json()["message"]
    look(api, "x")
    assert api.get("/sandbox/faults").json()[0]["count"] == 1
    assert api.delete("/sandbox/faults").json() == []
    assert sandbox.knobs.faults == []


def test_skip_count_and_match(sandbox: Sandbox, api: httpx.Client) -> None:
    """A fault lets the first requests pass, strikes a number of times, and only whom it is meant for."""
    sandbox.knobs.faults = [Fault(kind="503", route="submit", skip=1, count=2, match="job.7")]
    statuses = [submit(api, name).status_code for name in ("job.7", "job.1", "job.7", "job.7", "job.7")]
    assert statuses == [201, 201, 503, 503, 201]
    sandbox.knobs.faults = [Fault(kind="error_null", match="expansion")]
    squish, expansion = submit(api, scene="squish"), submit(api, scene="expansion")
    assert "video" in ended(api, squish.json()["id"])
    assert "error" in ended(api, expansion.json()["id"])


def test_rates_are_repeatable() -> None:
    """With the same seed the same requests meet the same faults, at about the rate that was asked for."""

    def struck(seed: int) -> list[bool]:
        chance = random.Random(seed)  # noqa: S311  # simulation
        faults = [Fault(kind="503", rate=0.2)]
        return [draw(faults, chance, "poll", ANSWERS) is not None for _ in range(2_000)]

    assert struck(1) == struck(1) != struck(2)
    assert 300 < sum(struck(1)) < 500


def test_every_kind_strikes_somewhere() -> None:
    """Each kind has a line for a person, and a route."""
    for kind in KINDS.values():
        assert kind.does
        assert set(kind.routes) <= set(kind.allowed)
        assert kind.routes
