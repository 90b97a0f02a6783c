"""Every shape that stores send, and everything else that might come in its place."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.uploads.arrival import Arrival
from deployments.uploads.notification import read_notification
from tests.uploads import samples

SHAPES: dict[str, tuple[Any, str, str]] = {
    "s3": (samples.s3(), "s3", "0055AED6DCD90281E5"),
    "s3 through sns": (samples.topic(samples.s3()), "s3", "0055AED6DCD90281E5"),
    "eventbridge": (samples.bridge(), "s3", "0055AED6DCD90281E5"),
    "eventbridge through sns": (samples.topic(samples.bridge()), "s3", "0055AED6DCD90281E5"),
    "minio": (samples.minio(), "s3", "0055AED6DCD90281E5"),
    "pub/sub": (samples.pubsub(), "gcs", "1761350400000000"),
    "event grid": (samples.grid(), "azure", "00000000000004420000000000028963"),
    "cloud event": (samples.cloud_event(), "azure", "00000000000004420000000000028963"),
    "cloud events": ([samples.cloud_event()], "azure", "00000000000004420000000000028963"),
}


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_comes_down_to_the_same(name: str) -> None:
    """Bucket, decoded key and version, whatever a store calls them and however it encodes the key."""
    message, source, version = SHAPES[name]
    said = read_notification(json.dumps(message))
    assert said.arrivals == (Arrival(source, "photos", "in/hug/anna and ben/1.jpg", version),)
    assert (said.ignored, said.problems, said.handshake) == (0, (), None)


def test_the_same_upload_told_by_two_ways_is_the_same() -> None:
    """A bucket may send to a queue and to EventBridge too."""
    [one] = read_notification(json.dumps(samples.s3())).arrivals
    [other] = read_notification(json.dumps(samples.bridge())).arrivals
    assert one.id == other.id


@pytest.mark.parametrize("told", ["Zo%C3%AB+%26+J%C3%BCrgen%2B1.jpg", "Zo%C3%AB%20%26%20J%C3%BCrgen%2B1.jpg"])
def test_keys_are_decoded_where_they_are_encoded_and_nowhere_else(told: str) -> None:
    """S3 encodes keys as in a form; the others tell them as they are, percent signs and all."""
    [from_s3] = read_notification(json.dumps(samples.s3(samples.s3_record(told)))).arrivals
    assert from_s3.key == "Zoë & Jürgen+1.jpg"
    for message in (samples.bridge("50%25+.jpg"), samples.pubsub("50%25+.jpg"), samples.grid("50%25+.jpg")):
        [arrival] = read_notification(json.dumps(message)).arrivals
        assert arrival.key == "50%25+.jpg"


@pytest.mark.parametrize(
    ("stored", "version"),
    [
        ({"versionId": "096fKKXTRTtl3on89fVO.nfljtsv6qko"}, "096fKKXTRTtl3on89fVO.nfljtsv6qko"),
        ({"versionId": "null"}, "0055AED6DCD90281E5"),  # a bucket whose versioning was suspended
        ({"sequencer": ""}, "d41d8cd98f00b204e9800998ecf8427e@2026-11-25T00:00:00.000Z"),
    ],
)
def test_what_tells_one_arrival_from_the_next(stored: dict[str, str], version: str) -> None:
    """The version where the bucket keeps some, else what differs for every write to a key."""
    [arrival] = read_notification(json.dumps(samples.s3(samples.s3_record(**stored)))).arrivals
    assert arrival.version == version


@pytest.mark.parametrize(
    "message",
    [
        samples.s3_test(),
        samples.topic(samples.s3_test()),
        samples.s3(samples.s3_record(event="ObjectRemoved:Delete")),
        samples.s3(samples.s3_record(event="s3:ObjectRemoved:DeleteMarkerCreated")),
        samples.s3(samples.s3_record(event="ObjectTagging:Put")),
        samples.bridge(kind="Object Deleted"),
        {**samples.bridge(), "source": "my.own"},
        samples.pubsub(event="OBJECT_DELETE"),
        samples.pubsub(event="OBJECT_METADATA_UPDATE"),
        samples.grid(kind="Microsoft.Storage.BlobDeleted"),
        samples.topic({}, "UnsubscribeConfirmation"),
    ],
)
def test_what_is_understood_and_no_arrival_is_ignored(message: object) -> None:
    """Removals, tests and the like are no trouble."""
    said = read_notification(json.dumps(message))
    assert (said.arrivals, said.ignored, said.problems) == ((), 1, ())


def test_what_senders_want_to_hear_first() -> None:
    """Event Grid's code is to be sent back; a topic's address is to be opened by a person."""
    assert read_notification(json.dumps(samples.grid_validation())).handshake == "512d38b6-c7b8-40c8-89fe-f46f9e9622b6"
    asked = read_notification(json.dumps(samples.topic({}, "SubscriptionConfirmation")))
    assert asked.confirm == "https://sns.eu-central-1.amazonaws.com/?Action=Confirm"
    forged = samples.topic({}, "SubscriptionConfirmation") | {"SubscribeURL": "https://x/\n2026 ERROR"}
    assert read_notification(json.dumps(forged)).confirm == "https://x/?2026 ERROR"


def test_one_bad_record_does_not_spoil_the_others() -> None:
    """What can be read counts; each part that cannot is told by itself."""
    bad = samples.s3_record()
    del bad["s3"]["bucket"]["name"]
    removed = samples.s3_record(event="ObjectRemoved:Delete")
    said = read_notification(json.dumps(samples.s3(samples.s3_record(), bad, removed, samples.s3_record("b.jpg"))))
    assert [arrival.key for arrival in said.arrivals] == ["in/hug/anna and ben/1.jpg", "b.jpg"]
    assert said.ignored == 1
    assert said.problems == ("s3.bucket.name: Field required",)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b'"text"',
        b"null",
        b"[1, 2]",
        b"{}",
        b'{"Records": {}}',
        b'{"Records": [null]}',
        b"[]",
        b'{"Records": []}',
        json.dumps(samples.s3(samples.s3_record(""))).encode(),
        json.dumps(samples.s3(samples.s3_record("\ud800"))).encode(),
        b'{"Type": "Notification", "Message": "no json"}',
        b'{"Type": "Other", "Message": "{}"}',
        b'{"detail-type": "Object Created", "source": "aws.s3", "detail": 7}',
        b'{"message": {"data": "aGVsbG8="}, "subscription": "projects/p/subscriptions/s"}',
        b'[{"eventType": "Microsoft.Storage.BlobCreated", "id": "1", "subject": "/elsewhere", "data": {}}]',
        b'{"specversion": "1.0", "id": "1"}',
        b"[" * 100_000,
        b"1" * 10_000,
        json.dumps(samples.topic(samples.topic(samples.s3()))).encode(),
    ],
)
def test_what_cannot_be_read_is_told_in_one_plain_line(body: bytes) -> None:
    """Never an error, never silence, and nothing in the line that a log or a terminal would take as more than text."""
    said = read_notification(body)
    assert said.arrivals == ()
    assert said.problems
    for problem in said.problems:
        assert problem.isascii()
        assert problem.isprintable()
        assert len(problem) <= 200


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(st.binary() | st.text() | ANYTHING.map(json.dumps))
def test_nothing_that_arrives_is_an_error(body: bytes | str) -> None:
    """Whatever the bytes are."""
    read_notification(body)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:  # noqa: ANN401 - JSON
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [deeper for key, inner in inside for deeper in _paths(inner, (*path, key))]


@given(st.data(), st.sampled_from(sorted(SHAPES)), ANYTHING)
def test_no_part_of_a_known_shape_can_be_so_wrong_as_to_be_an_error(
    data: st.DataObject, name: str, wrong: object
) -> None:
    """Any one part replaced by anything: arrivals with text in them, something ignored, or a problem told."""
    message = copy.deepcopy(SHAPES[name][0])
    *above, last = data.draw(st.sampled_from(_paths(message)))
    at = message
    for key in above:
        at = at[key]
    at[last] = wrong
    said = read_notification(json.dumps(message))
    assert said.arrivals or said.ignored or said.problems
    for arrival in said.arrivals:
        assert arrival.key
        assert arrival.id == Arrival(arrival.source, arrival.bucket, arrival.key, arrival.version).id
        arrival.key.encode()
