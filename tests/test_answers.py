"""Every shape of answer that was documented or recorded is understood, and nothing else is mistaken for one."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.answers import FAILED, RETRY_AFTER_CAP_S, read_look, read_submission, refusal_kind, retry_after_s, summary
from tasks.errors import SubmitUnknown

URL = "https://cdn.example/eagle/output.mp4"


def _answer(body: object, status: int = 200, headers: dict[str, str] | None = None) -> httpx.Response:
    return httpx.Response(status, json=body, headers=headers)


@pytest.mark.parametrize(
    ("body", "generation_id", "cost"),
    [
        (
            {"id": "XXLhM", "status": "queued", "meta": {"usage": {"credits_used": 1040000, "usd_spent": 0.52}}},
            "XXLhM",
            0.52,
        ),
        ({"id": "-starts-with-dash"}, "-starts-with-dash", None),
        ({"generation_id": "91bc:kling-video/v1.6", "status": "queued"}, "91bc:kling-video/v1.6", None),
        ({"id": "a", "meta": None}, "a", None),
        ({"id": 7, "meta": {"usage": {"usd_spent": 10**400}}}, "7", None),
        ({"id": "a", "meta": {"usage": {"usd_spent": "0.5"}}}, "a", None),
    ],
)
def test_a_submission_is_accepted_in_every_recorded_shape(body: object, generation_id: str, cost: float | None) -> None:
    """`id` or `generation_id`, with or without the cost."""
    submission = read_submission(_answer(body))
    assert (submission.id, submission.cost_usd) == (generation_id, cost)


def test_the_id_may_stand_in_a_header_alone() -> None:
    """`x-inference-id` is the same id."""
    assert read_submission(_answer({}, headers={"x-inference-id": "abc"})).id == "abc"


@pytest.mark.parametrize("content", [b"<html>ok</html>", b"", b"{", b"[]", b'{"id": ""}', b'{"id": true}', b"null"])
def test_an_accepted_submission_without_an_id_is_unknown(content: bytes) -> None:
    """It may have been paid for: never taken for a failure that could be repeated."""
    with pytest.raises(SubmitUnknown):
        read_submission(httpx.Response(200, content=content))


@pytest.mark.parametrize("status", ["completed", "succeeded", "unknown", "finalised"])
@pytest.mark.parametrize("video", [{"url": URL}, {"url": URL, "file_size": 5}, [URL], [{"url": URL}], URL])
def test_a_video_with_any_word_of_success_is_a_success(status: str, video: object) -> None:
    """Object, list or plain link; an unknown word with a video counts too."""
    look = read_look({"status": status, "video": video})
    assert look.video_url == URL
    assert look.failed is None


@pytest.mark.parametrize(
    "body",
    [
        {"status": "queued"},
        {"status": "generating", "video": {"url": URL}},
        {"status": "active"},
        {"status": "waiting", "video": None},
        {"status": "finalised"},
        {"status": "completed"},
        {"status": "completed", "video": {}},
        {"status": "completed", "video": []},
        {},
        {"status": None},
    ],
)
def test_everything_else_is_still_under_way(body: dict[str, object]) -> None:
    """No word, an unknown word, or success without a video: look again until the deadline."""
    look = read_look(body)
    assert look.video_url is None
    assert look.failed is None


@pytest.mark.parametrize(
    ("error", "reason", "kind", "input_fault"),
    [
        (
            {
                "detail": [
                    {
                        "loc": ["body", "image_url"],
                        "msg": "Could not detect face in the image",
                        "type": "face_detection_error",
                    }
                ]
            },
            "Could not detect face in the image",
            "face_detection_error",
            True,
        ),
        ({"detail": "Upstream is down"}, "Upstream is down", "unspecified", False),
        ({"name": "ServerError", "message": "Try later", "data": {}}, "Try later", "ServerError", False),
        (
            {"name": "x", "message": "policy", "type": "content_policy_violation"},
            "policy",
            "content_policy_violation",
            True,
        ),
        ("Something broke", "Something broke", "unspecified", False),
        (None, "the provider ended it as 'error' and gave no reason", "unspecified", False),
        ({}, "unspecified", "unspecified", False),
        ([], "the provider ended it as 'error' and gave no reason", "unspecified", False),
    ],
)
def test_a_failure_is_understood_in_every_shape(error: object, reason: str, kind: str, *, input_fault: bool) -> None:
    """A reason for a person, the stable word, and whether other photos are the remedy."""
    failed = read_look({"status": "error", "error": error}).failed
    assert failed is not None
    assert (failed.reason, failed.kind, failed.input_fault) == (reason, kind, input_fault)


@pytest.mark.parametrize("status", sorted(FAILED))
def test_every_word_of_failure_ends_the_wait(status: str) -> None:
    """Even with a video beside it."""
    assert read_look({"status": status, "video": {"url": URL}}).failed is not None


def test_a_signed_link_in_a_reason_loses_its_signature() -> None:
    """Reasons reach the dashboard and the ledger."""
    failed = read_look({"status": "error", "error": "no face in https://b.s3/x.jpg?X-Amz-Signature=abc&a=1"}).failed
    assert failed is not None
    assert failed.reason == "no face in https://b.s3/x.jpg"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("3", 3.0),
        ("0", 0.0),
        ("1.5", 1.5),
        ("86400", RETRY_AFTER_CAP_S),
        ("Thu, 01 Jan 1970 00:00:10 GMT", 10.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Fri, 01 Jan 2038 00:00:00 GMT", RETRY_AFTER_CAP_S),
        ("soon", None),
        ("-1", None),
        ("", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_capped(value: str, seconds: float | None) -> None:
    """RFC 9110, section 10.2.3."""
    assert retry_after_s({"retry-after": value}, wall_clock=0.0) == seconds


def test_a_refusal_shows_every_issue_and_keeps_the_machine_word() -> None:
    """The new envelope, the older one, and none."""
    issues = [
        {"path": ["image_url"], "message": "Invalid url", "code": "x"},
        {"path": "duration", "message": "5 or 10"},
    ]
    said = summary(_answer({"title": "Bad", "error": {"name": "BadRequest", "data": issues}}, 400))
    assert said == "HTTP 400: image_url: Invalid url; duration: 5 or 10"
    assert summary(_answer({"message": "slow down", "statusCode": "429"}, 429)) == "HTTP 429: slow down"
    assert summary(httpx.Response(502, content=b"<html>Bad gateway</html>")) == "HTTP 502"
    assert (
        refusal_kind(_answer({"error": {"data": {"kind": "err_insufficent_credits"}}}, 403))
        == "err_insufficent_credits"
    )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.fixed_dictionaries(
        {}, optional={"status": json_values, "video": json_values, "error": json_values, "id": json_values}
    )
)
def test_no_answer_can_break_the_reader(body: dict[str, Any]) -> None:
    """Whatever JSON comes, a look is pending, failed or a video: never an exception."""
    look = read_look(body)
    assert look.video_url is None or look.failed is None


@given(
    status=st.integers(200, 599),
    content=st.binary(max_size=200) | json_values.map(lambda v: httpx.Response(200, json=v).content),
)
def test_no_body_can_break_the_summary(status: int, content: bytes) -> None:
    """A summary is one bounded line."""
    said = summary(httpx.Response(status, content=content))
    assert "\n" not in said
    assert len(said) < 500
