"""A hostile provider: whatever it answers, each job ends in the right state and is billed at most once an attempt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from deployments.sandbox.faults import Fault
from flows.generate import generate
from flows.outcomes import outcome_of
from tests.conftest import CHELSEA, COLLINS, HOPPER

if TYPE_CHECKING:
    from deployments.sandbox.server import Sandbox
    from tasks.jobs import Outcome

pytestmark = pytest.mark.usefixtures("prefect_api")


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of things is tested here, not the length of the pauses between them."""
    monkeypatch.setattr("tasks.submit.SEND_PAUSES_S", (0.05,))
    monkeypatch.setattr("tasks.reconcile.RECONCILE_PAUSES_S", (0.0, 0.1))
    monkeypatch.setattr("tasks.persist.persist_video.retry_delay_seconds", [0.1])


async def _hug(**changes: Any) -> Outcome:  # noqa: ANN401 - any parameter of the flow
    return outcome_of(await generate("hug", [COLLINS, HOPPER], **changes, return_state=True))


SURVIVED: dict[str, list[dict[str, Any]]] = {
    "429 without Retry-After": [{"kind": "429", "route": "submit", "count": 2}],
    "429 with Retry-After in seconds": [{"kind": "429", "route": "submit", "count": 1, "retry_after": 1}],
    "429 with Retry-After as a date": [
        {"kind": "429", "route": "submit", "count": 1, "retry_after": 1, "retry_after_date": True}
    ],
    "looks refused with 429": [{"kind": "429", "route": "poll", "count": 2, "retry_after": 1}],
    "looks answered 500, 502, 524": [
        {"kind": kind, "route": "poll", "count": 1} for kind in ("500", "502", "524", "408", "503", "504")
    ],
    "looks answered with HTML": [
        {"kind": "html_200", "route": "poll", "count": 1},
        {"kind": "html_502", "route": "poll", "count": 1},
    ],
    "looks reset": [{"kind": "reset", "route": "poll", "count": 2}],
    "looks slow": [{"kind": "slow", "route": "poll", "count": 1, "seconds": 1.0}],
    "looks with malformed JSON": [{"kind": "malformed_json", "route": "poll", "count": 2}],
    "looks that do not find it": [{"kind": "not_found", "route": "poll", "count": 3}],
    "a slow submission": [{"kind": "slow", "route": "submit", "count": 1, "seconds": 1.0}],
    "`succeeded`": [{"kind": "status_succeeded", "route": "poll"}],
    "an unknown word": [{"kind": "status_unknown", "route": "poll"}],
    "a list-shaped video": [{"kind": "video_list", "route": "poll"}],
    "a video that is only a link": [{"kind": "video_bare", "route": "poll"}],
    "no meta": [{"kind": "no_meta"}],
    "`generation_id` in place of `id`": [{"kind": "generation_id_key"}],
    "an id that begins with -": [{"kind": "id_dash"}],
    "an id with / and :": [{"kind": "id_uuid"}],
    "a link that answers 503 at first": [{"kind": "cdn_503", "count": 1}],
    "a link that has expired": [{"kind": "cdn_expired", "count": 1}],
    "an HTML page in place of the video": [{"kind": "cdn_html", "count": 1}],
    "a download that breaks off": [{"kind": "cdn_truncated", "count": 1}],
    "a file cut in half": [{"kind": "cdn_short", "count": 1}],
    "a file that is no video": [{"kind": "cdn_not_video", "count": 1}],
}


@pytest.mark.parametrize("trouble", SURVIVED)
async def test_trouble_that_passes_costs_time_and_never_money(trouble: str, sandbox: Sandbox) -> None:
    """The video is there, and one submission was billed."""
    sandbox.knobs.faults = [Fault(**fault) for fault in SURVIVED[trouble]]
    outcome = await _hug()
    assert (outcome.state, outcome.reason) == ("completed", None)
    assert sandbox.counters.billed == 1
    assert list(sandbox.counters.billed_by_client_request_id.values()) == [1]
    assert sandbox.counters.keys_leaked == 0
    assert sandbox.counters.faults


LOST_ANSWERS = ["408", "500", "502", "503", "504", "524", "html_200", "html_502", "reset", "malformed_json"]


@pytest.mark.parametrize("kind", LOST_ANSWERS)
async def test_a_lost_answer_is_looked_up_and_never_sent_again(kind: str, sandbox: Sandbox) -> None:
    """The submission was accepted and billed, its answer lost: its id is found in the provider's log."""
    sandbox.knobs.faults = [Fault(kind=kind, route="submit", when="after", count=1)]
    outcome = await _hug()
    assert outcome.state == "completed"
    assert (sandbox.counters.submissions, sandbox.counters.billed) == (1, 1)


@pytest.mark.parametrize("kind", LOST_ANSWERS)
async def test_a_lost_answer_that_the_log_does_not_show_is_unknown(kind: str, sandbox: Sandbox) -> None:
    """Not found does not prove not submitted: it stays unknown, however often it is asked for."""
    sandbox.knobs.faults = [Fault(kind=kind, route="submit", when="after", count=1)]
    sandbox.knobs.log_delay_seconds = 3600
    assert (await _hug()).state == "unknown"
    assert sandbox.counters.submissions == 1


@pytest.mark.parametrize("kind", ["500", "502", "524", "html_502", "reset"])
async def test_a_server_error_before_anything_happened_is_unknown_too(kind: str, sandbox: Sandbox) -> None:
    """From outside it looks the same: a gateway may have given up on a request that went through."""
    sandbox.knobs.faults = [Fault(kind=kind, route="submit", count=1)]
    outcome = await _hug()
    assert outcome.state == "unknown"
    assert "resume" in (outcome.reason or "")
    assert (sandbox.counters.submissions, sandbox.counters.billed) == (1, 0)


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        ("no_credits", "out of credits"),
        ("unverified_card", "not verified"),
        ("unauthorized", "does not accept the key"),
        ("withdrawn", "no longer serves"),
    ],
)
async def test_account_trouble_defers_the_job_and_a_later_run_goes_on(kind: str, word: str, sandbox: Sandbox) -> None:
    """Nothing is lost: when the trouble is over, the same wish is submitted once."""
    sandbox.knobs.faults = [Fault(kind=kind, route="submit", count=1)]
    outcome = await _hug()
    assert outcome.state == "deferred"
    assert word in (outcome.reason or "")
    assert sandbox.counters.billed == 0
    assert (await _hug()).state == "completed"
    assert sandbox.counters.billed == 1


async def test_a_withdrawn_model_names_its_replacement(sandbox: Sandbox) -> None:
    """The provider's list of deprecations says what takes its place."""
    model = "klingai/kling-video-v1.6-pro-effects"
    sandbox.knobs.withdrawn_models = [model]
    sandbox.knobs.deprecations = [
        {"id": model, "aliases": [], "status": "withdrawn", "replaced_by": "klingai/next", "reason": "retired"}
    ]
    outcome = await _hug()
    assert outcome.state == "deferred"
    assert "klingai/next" in (outcome.reason or "")
    assert sandbox.counters.submissions == 1


async def test_a_refused_request_shows_every_issue_and_is_not_sent_again(sandbox: Sandbox) -> None:
    """HTTP 400: the same request would be refused for ever."""
    sandbox.knobs.faults = [Fault(kind="invalid", count=1)]
    outcome = await _hug()
    assert outcome.state == "rejected"
    assert "HTTP 400" in (outcome.reason or "")
    assert (await _hug()).state == "rejected"
    assert sandbox.counters.submissions == 1


@pytest.mark.parametrize("shape", ["error_null", "error_string", "error_named", "error_text"])
async def test_a_failure_of_the_provider_is_worth_one_more_attempt(shape: str, sandbox: Sandbox) -> None:
    """Failed generations are not charged; the second attempt has an id of its own."""
    sandbox.knobs.faults = [Fault(kind=shape, count=1)]
    outcome = await _hug()
    assert (outcome.state, outcome.attempt) == ("completed", 2)
    assert sorted(name.rsplit(".", 1)[1] for name in sandbox.counters.billed_by_client_request_id) == ["1", "2"]


async def test_a_provider_that_always_fails_is_asked_as_often_as_allowed(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`EFFECTS_MAX_ATTEMPTS` bounds it, over all runs."""
    monkeypatch.setenv("EFFECTS_MAX_ATTEMPTS", "3")
    sandbox.knobs.faults = [Fault(kind="error_text")]
    outcome = await _hug()
    assert outcome.state == "failed"
    assert "3 of 3 attempts" in (outcome.reason or "")
    assert (await _hug()).state == "failed"
    assert sandbox.counters.billed == 3


async def test_a_fault_of_the_photos_is_told_and_not_tried_again(sandbox: Sandbox) -> None:
    """No face today is no face tomorrow."""
    sandbox.knobs.faults = [Fault(kind="error_detail", error_type="face_detection_error")]
    outcome = await _hug()
    assert outcome.state == "failed"
    assert sandbox.counters.billed == 1


async def test_a_generation_that_takes_too_long_stays_open_and_is_taken_up_again(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A time-out of waiting is not a failure: the next run goes on waiting, and pays nothing."""
    monkeypatch.setenv("EFFECTS_GENERATION_TIMEOUT_S", "0.5")
    sandbox.knobs.generate_seconds = 4.0
    outcome = await _hug()
    assert outcome.state == "open"
    assert outcome.generation_id
    monkeypatch.setenv("EFFECTS_GENERATION_TIMEOUT_S", "60")
    outcome = await _hug()
    assert outcome.state == "completed"
    assert sandbox.counters.billed == 1


async def test_a_generation_that_the_provider_never_finds_stays_open(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A generation that is not found is waited for a while, then told; never taken for leave to pay again."""
    monkeypatch.setenv("EFFECTS_POLL_INTERVAL_S", "0.05")
    sandbox.knobs.faults = [Fault(kind="not_found")]
    outcome = await _hug()
    assert outcome.state == "open"
    assert "did not know" in (outcome.reason or "")
    assert sandbox.counters.billed == 1


async def test_a_video_of_the_wrong_length_is_kept_but_not_called_done(sandbox: Sandbox) -> None:
    """It was paid for and plays: a person finds it beside the attempt, and no second one is bought."""
    sandbox.knobs.faults = [Fault(kind="cdn_wrong_length")]
    outcome = await _hug()
    assert outcome.state == "open"
    assert "2.0 s long where 5 s were promised" in (outcome.reason or "")
    assert "unexpected.mp4" in (outcome.reason or "")
    sandbox.knobs.faults = []
    assert (await _hug()).state == "completed"
    assert sandbox.counters.billed == 1


async def test_a_provider_that_cannot_be_reached_defers_the_job(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connection refused: surely nothing was sent, so a later run may send."""
    monkeypatch.setattr("tasks.ledger.CLAIM_VALID_S", 0.5)
    monkeypatch.setenv("EFFECTS_API_URL", "http://127.0.0.1:9")
    outcome = await _hug()
    assert outcome.state == "deferred"
    assert "cannot be reached" in (outcome.reason or "")
    monkeypatch.setenv("EFFECTS_API_URL", sandbox.url)
    monkeypatch.setattr("tasks.ledger.CLAIM_VALID_S", 60.0)
    assert (await _hug()).state == "completed"
    assert sandbox.counters.billed == 1


async def test_one_image_effects_pass_through_the_same_steps(sandbox: Sandbox) -> None:
    """A single link in place of a list."""
    outcome = outcome_of(await generate("squish", [CHELSEA], return_state=True))
    assert outcome.state == "completed"
    assert sandbox.counters.billed == 1
