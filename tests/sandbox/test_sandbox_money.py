"""What the stand-in bills, logs and remembers: the records that a client finds its lost submissions by."""

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import httpx
import pytest
from PIL import Image

from deployments.sandbox.faults import Fault
from deployments.sandbox.provider import PATHS
from deployments.sandbox.server import Sandbox

PRO = "klingai/kling-video-v1.6-pro-effects"
STANDARD = "klingai/kling-video-v1.6-standard-effects"


def photo() -> str:
    """A small PNG, as a data URI."""
    buffer = BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def submit(api: httpx.Client, client_request_id: str | None = None, **changes: object) -> httpx.Response:
    body = {"model": PRO, "effect_scene": "squish", "image_url": photo(), **changes}
    headers = {} if client_request_id is None else {"X-Client-Request-Id": client_request_id}
    return api.post(PATHS[0], json=body, headers=headers)


def state(api: httpx.Client, answer: httpx.Response) -> str:
    return str(api.get(PATHS[0], params={"generation_id": answer.json()["id"]}).json()["status"])


def rows(api: httpx.Client, **params: object) -> list[dict[str, object]]:
    answer = api.get("/v2/logs", params={"period": "1h", **params})  # type: ignore[dict-item]  # numbers and words
    found: list[dict[str, object]] = answer.json()["data"]
    return found


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Hands:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        """The time it shows."""
        return self.now


@pytest.fixture
def hands() -> Hands:
    return Hands()


@pytest.fixture
def sandbox(hands: Hands) -> Iterator[Sandbox]:
    with Sandbox(generate_seconds=60, render=False, clock=hands) as running:
        yield running


@pytest.fixture
def api(sandbox: Sandbox) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=sandbox.url, headers={"Authorization": "Bearer key"}) as client:
        yield client


def balance(api: httpx.Client) -> float:
    body = api.get("/v2/billing").json()
    assert body["currency"] == "USD"
    return float(body["current_balance"])


def test_a_failed_generation_costs_nothing(sandbox: Sandbox, api: httpx.Client, hands: Hands) -> None:
    """The price is held at submit, stays off when the video is there, and comes back when the generation fails."""
    sandbox.knobs.balance_usd = 2
    sandbox.knobs.faults = [Fault(kind="error_text", match="bad")]
    good, bad = submit(api, "good"), submit(api, "bad")
    assert balance(api) == pytest.approx(2 - 2 * 0.515)
    hands.now += 61
    until(lambda: state(api, good) == "completed")
    assert state(api, bad) == "error"
    assert balance(api) == pytest.approx(2 - 0.515)
    lines = {line["reference_id"]: line for line in api.get("/v2/billing/transactions").json()["data"]}
    assert lines[good.json()["id"]]["amount"] == pytest.approx(-0.515)
    assert lines[bad.json()["id"]]["amount"] == 0
    # What came back can be spent.
    assert submit(api).is_success
    assert submit(api).is_success
    assert submit(api).status_code == 403


def test_out_of_credits(sandbox: Sandbox, api: httpx.Client) -> None:
    """403 with the provider's own spelling of the kind; nothing is billed; a top-up lets the next one through."""
    sandbox.knobs.balance_usd = 0.3
    refused = submit(api)
    assert refused.status_code == 403
    assert refused.json()["error"]["data"] == {"kind": "err_insufficent_credits"}
    assert submit(api, model=STANDARD).json()["meta"]["usage"] == {"credits_used": 480_000, "usd_spent": 0.24}
    assert submit(api, model=STANDARD).status_code == 403
    assert sandbox.counters.billed == 1
    sandbox.knobs.balance_usd = 1
    assert submit(api).is_success
    sandbox.knobs.unverified_card = True
    assert submit(api).json()["error"]["data"] == {"kind": "err_unverified_card"}


def test_billed_by_client_request_id(sandbox: Sandbox, api: httpx.Client) -> None:
    """Each accepted submission counts under its id, a repeated one twice: there is no idempotency."""
    for _ in range(2):
        submit(api, "job.0.1")
    submit(api, "job.0.2")
    submit(api, duration=7)
    submit(api)
    assert (sandbox.counters.submissions, sandbox.counters.billed) == (5, 4)
    assert sandbox.counters.billed_by_client_request_id == {"job.0.1": 2, "job.0.2": 1}
    assert sandbox.counters.peak_open == 4


def test_an_invalid_client_request_id_is_dropped_in_silence(sandbox: Sandbox, api: httpx.Client) -> None:
    """The call is billed all the same, and its row in the logs has no client request id."""
    body = {"model": PRO, "effect_scene": "squish", "image_url": photo()}
    invalid = [b"a b", b"a/b", b"x" * 129, b"\xe9", b""]
    for name in invalid:
        answer = api.post(PATHS[0], json=body, headers=[(b"X-Client-Request-Id", name)])
        assert answer.is_success
        assert "x-client-request-id" not in answer.headers
    assert sandbox.counters.billed == len(invalid)
    assert sandbox.counters.billed_by_client_request_id == {}
    assert {row["client_request_id"] for row in rows(api)} == {None}
    assert submit(api, "x" * 128).headers["x-client-request-id"] == "x" * 128


def test_logs(sandbox: Sandbox, api: httpx.Client, hands: Hands) -> None:
    """One row a generation, newest first, in pages, within the period; failed ones cost nothing."""
    sandbox.knobs.faults = [Fault(kind="error_null", count=1)]
    ids = [submit(api, f"job.{number}").json()["id"] for number in range(3)]
    hands.now += 61
    found = rows(api)
    assert [row["inference_id"] for row in found] == ids[::-1]
    assert found[-1].keys() == {
        *("created", "status", "origin", "model", "cost", "tokens"),
        *("request_id", "inference_id", "client_request_id"),
    }
    assert [row["status"] for row in found] == ["succeeded", "succeeded", "failed"]
    assert [row["cost"] for row in found[1:]] == [{"usd": 0.515, "credits": 1_030_000}, {"usd": 0.0, "credits": 0}]
    assert [row["inference_id"] for row in rows(api, limit=1, offset=1)] == [ids[1]]
    page = api.get("/v2/logs", params={"limit": 2}).json()["pagination"]
    assert page == {"limit": 2, "offset": 0, "total": 3, "has_more": True}
    hands.now += 3_600
    assert rows(api) == []
    assert len(rows(api, period="1d")) == 3
    for wrong in ({"limit": 0}, {"limit": 101}, {"limit": "x"}, {"offset": -1}, {"period": "soon"}):
        assert api.get("/v2/logs", params=wrong).status_code == 400


def test_rows_may_come_late(sandbox: Sandbox, api: httpx.Client, hands: Hands) -> None:
    """Not found does not prove not submitted: rows can be delayed, or missing until the generation has ended."""
    sandbox.knobs.log_delay_seconds = 10
    answer = submit(api)
    assert rows(api) == []
    hands.now += 10
    assert len(rows(api)) == 1
    sandbox.knobs.logs_running_rows = False
    assert rows(api) == []
    hands.now += 51
    until(lambda: state(api, answer) == "completed")
    assert rows(api) == []
    hands.now += 10
    assert len(rows(api)) == 1


def test_logs_are_rate_limited(sandbox: Sandbox, api: httpx.Client, hands: Hands) -> None:
    """Two hundred requests a minute, then 429 until a minute has gone by."""
    for _ in range(200):
        assert api.get("/v2/logs").status_code == 200
    limited = api.get("/v2/logs")
    assert limited.status_code == 429
    assert "retry-after" not in limited.headers
    hands.now += 60
    assert api.get("/v2/logs").status_code == 200
    assert sandbox.counters.logs == 202


def test_a_killed_process_remembers(tmp_path: Path) -> None:
    """After kill -9 a sandbox on the same directory knows every generation, bill and client request id, and goes on."""
    command = [sys.executable, "-m", "deployments.sandbox", "--port", "0", "--no-render", "--generate-seconds", "2"]
    command += ["--state", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    assert process.stdout is not None
    process.stdout.readline()
    url = process.stdout.readline().split()[0].removeprefix("EFFECTS_API_URL=")
    key = {"Authorization": "Bearer key"}
    with httpx.Client(base_url=url, headers=key) as api:
        answers = [submit(api, f"job.{number}") for number in range(5)]
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    with Sandbox(render=False, state=tmp_path) as sandbox, httpx.Client(base_url=sandbox.url, headers=key) as api:
        assert sandbox.counters.billed == 5
        assert sandbox.counters.billed_by_client_request_id == {f"job.{number}": 1 for number in range(5)}
        assert balance(api) == pytest.approx(50 - 5 * 0.515)
        assert [row["inference_id"] for row in rows(api)] == [answer.json()["id"] for answer in answers][::-1]
        for answer in answers:
            until(lambda answer=answer: state(api, answer) == "completed")  # type: ignore[misc]  # bound at once


def test_a_restart_in_the_same_process_forgets_without_a_directory(tmp_path: Path) -> None:
    """A directory makes the difference; with a seed, the ids after a restart are still new ones."""
    for folder, known in ((None, 1), (tmp_path, 2)):
        sandbox = Sandbox(render=False, generate_seconds=0, seed=7, state=folder)
        for _ in range(2):
            with sandbox, httpx.Client(base_url=sandbox.url, headers={"Authorization": "Bearer key"}) as api:
                assert submit(api).is_success
                assert sandbox.counters.billed == len(sandbox.book) == len({row["inference_id"] for row in rows(api)})
                last = sandbox.counters.billed
        assert last == known
    saved = json.loads(next((tmp_path / "generations").glob("*.json")).read_text())
    assert saved["order"]["scene"] == "squish"
