"""Which keys concern the inbox, and which upload each is a part of."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.uploads.place import Place
from tasks.errors import BadInput


@pytest.mark.parametrize(
    ("key", "folder"),
    [
        ("in/hug/anna and ben/1.jpg", "hug/anna and ben"),
        ("in/hug/anna/job.json", "hug/anna"),
        ("in/hug/anna/deeper/1.jpg", "hug/anna"),
        ("in/squish/cat.jpg", "squish/cat.jpg"),
        ("in/cat.jpg", "cat.jpg"),  # where it lies is wrong: the flow says so
        ("in/squish/Zoë.HEIC", "squish/Zoë.HEIC"),
        ("in/hug/anna/", None),  # a folder, as consoles make them
        ("in/", None),
        ("in", None),
        ("in/hug//1.jpg", None),
        ("inside/hug/anna/1.jpg", None),
        ("videos/hug/1.mp4", None),
        ("in/hug/anna/.DS_Store", None),
        ("in/.trash/anna/1.jpg", None),
        ("in/hug/anna/Thumbs.db", None),
        ("in/hug/anna/1.jpg.part", None),
        ("in/hug/anna/1.jpg.crdownload", None),
        ("in/hug/anna\0/1.jpg", None),
        (f"in/hug/{'x' * 2000}/1.jpg", None),
    ],
)
def test_which_upload_a_file_is_a_part_of(key: str, folder: str | None) -> None:
    """By the convention of the inbox; what is nobody's photo wakes nobody."""
    assert Place.of("s3://photos/in").folder_of("photos", key) == folder


@pytest.mark.parametrize(
    ("inbox", "bucket", "key"),
    [
        ("s3://photos", "photos", "hug/anna/1.jpg"),
        ("s3://photos/", "photos", "hug/anna/1.jpg"),
        ("gs://photos/a/b/", "photos", "a/b/hug/anna/1.jpg"),
        ("az://photos/a", "photos", "a/hug/anna/1.jpg"),
        ("abfs://photos@account.dfs.core.windows.net/a", "photos", "a/hug/anna/1.jpg"),
    ],
)
def test_an_inbox_is_a_bucket_and_a_prefix_whatever_its_url(inbox: str, bucket: str, key: str) -> None:
    """As notifications name it; another bucket's keys are not its own."""
    place = Place.of(inbox)
    assert place.folder_of(bucket, key) == "hug/anna"
    assert place.folder_of("other", key) is None
    assert place.url == inbox.rstrip("/")
    assert not place.local


@pytest.mark.parametrize("form", ["{}", "file://{}", "local://{}"])
def test_a_local_inbox_is_an_absolute_path(form: str, tmp_path: Path) -> None:
    """The flow may run in another working directory."""
    place = Place.of(form.format(tmp_path / "in"))
    assert (place.url, place.local) == (str(tmp_path / "in"), True)
    assert Place.of("in").url == str(Path.cwd() / "in")
    assert place.folder_of(place.bucket, "hug/anna/1.jpg") == "hug/anna"


@pytest.mark.parametrize("inbox", ["s3://", "s3:///in", "ftp://user:secret@host/in"])
def test_what_cannot_be_an_inbox(inbox: str) -> None:
    """One line, and no password in it."""
    with pytest.raises(BadInput) as refused:
        Place.of(inbox)
    assert len(refused.value.problems) == 1
    assert "secret" not in str(refused.value)
