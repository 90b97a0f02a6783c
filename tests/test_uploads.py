"""The inbox's convention: what a listing shows is read as jobs, and no file of it goes unmentioned."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.effects import load_catalogue
from tasks.errors import BadInput
from tasks.listing import Found
from tasks.uploads import MAX_NOTE_BYTES, SETTLE_S, Convention, Upload

if TYPE_CHECKING:
    from pathlib import Path

CATALOGUE = load_catalogue()
NOW = 1_800_000_000.0


def _file(path: str, size: int = 1000, version: str = "1", modified: float | None = None) -> Found:
    return Found(path, size, version, modified)


def _read(*files: Found | str, inbox: str = "s3://in", model: str | None = None) -> list[Upload]:
    found = [file if isinstance(file, Found) else _file(file) for file in files]
    return list(Convention(inbox, CATALOGUE, model).uploads(found, (), NOW))


def _one(*files: Found | str, model: str | None = None) -> Upload:
    [upload] = _read(*files, model=model)
    return upload


def test_a_folder_is_one_job_with_its_images_by_name() -> None:
    """The first is the person on the left; `job.json` is no image."""
    upload = _one("hug/anna and ben/b.jpg", "hug/anna and ben/job.json", "hug/anna and ben/a.jpg")
    assert (upload.name, upload.effect) == ("hug/anna and ben", "hug")
    assert upload.images == ("hug/anna and ben/a.jpg", "hug/anna and ben/b.jpg")
    assert upload.note == "hug/anna and ben/job.json"
    assert (upload.problems, upload.waits) == ((), "")


def test_a_file_is_a_job_by_itself_where_the_effect_takes_one_image() -> None:
    """Each of them; a folder with one image is the same."""
    uploads = _read("squish/a.jpg", "squish/b #1 100%?.jpg", "squish/c/photo.jpg")
    assert [upload.name for upload in uploads] == ["squish/a.jpg", "squish/b #1 100%?.jpg", "squish/c"]
    assert [upload.images for upload in uploads] == [
        ("squish/a.jpg",),
        ("squish/b #1 100%?.jpg",),
        ("squish/c/photo.jpg",),
    ]
    assert not any(upload.problems or upload.waits for upload in uploads)


@pytest.mark.parametrize(
    ("files", "waits"),
    [
        (["hug/a/1.jpg"], "1 of 2 images so far"),
        (["hug/a/1.jpg", "hug/a/job.json"], "1 of 2 images so far"),
        (["hug/a/job.json"], "0 of 2 images so far"),
        (["squish/a/job.json"], "0 of 1 images so far"),
    ],
)
def test_what_is_not_complete_waits(files: list[str], waits: str) -> None:
    """A pair with one image; a wish without its images."""
    upload = _one(*files)
    assert upload.waits == waits
    assert not upload.problems


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["hugg/a/1.jpg"], ["unknown effect 'hugg': did you mean 'hug'?"]),
        (["Hug/a/1.jpg"], ["did you mean 'hug'?"]),
        (["nothing like it/1.jpg"], ["unknown effect", "`effects effects` lists all"]),
        (["hug/1.jpg"], ["hug takes 2 images: put them together into a folder hug/<name>/"]),
        (["hug/a/1.jpg", "hug/a/2.jpg", "hug/a/x.txt"], ["hug needs two images", "three", "1.jpg, 2.jpg, x.txt"]),
        (["squish/a/1.jpg", "squish/a/2.jpg"], ["squish needs one image", "there are 1.jpg, 2.jpg"]),
        (["photo.jpg"], ["no effect's folder"]),
        (["job.json"], ["no effect's folder"]),
        (["squish/job.json"], ["is about the images beside it"]),
        (["squish/a/raw/1.jpg"], ["raw/1.jpg: the images of a job lie in one folder"]),
        (["squish//1.jpg"], ["a folder without a name"]),
        (["/1.jpg"], ["a folder without a name"]),
        (["squish/a::b.jpg"], ["a name with ::", "rename it"]),
        (["squish/\udcff.jpg"], [r"squish/\udcff.jpg: its name is not in UTF-8"]),
        ([_file("squish/a.jpg", 0)], ["a.jpg: the file is empty"]),
        ([_file("squish/a.jpg", 10_000_001)], ["a.jpg: 10.01 MB; at most 10 MB"]),
        ([_file("squish/a/job.json", MAX_NOTE_BYTES + 1), "squish/a/1.jpg"], ["job.json: over 10 kB"]),
        ([Found("squish/a.jpg", 0, "", fault="access is not allowed")], ["a.jpg: access is not allowed"]),
    ],
)
def test_what_cannot_be_a_job_is_rejected_with_the_reason(files: list[str | Found], words: list[str]) -> None:
    """As far as a listing shows it, without a byte being read."""
    upload = _one(*files)
    assert not upload.waits
    for word in words:
        assert word in "; ".join(upload.problems)


def test_all_problems_are_told_at_once() -> None:
    """Those of the folder and of every file."""
    upload = _one("hug/a/1.jpg", _file("hug/a/2.jpg", 0), "hug/a/3.jpg", _file("hug/a/4.jpg", 20_000_000))
    assert upload.problems == (
        "hug needs two images (the first is the person on the left); four were given",
        "there are 1.jpg, 2.jpg, 3.jpg, 4.jpg",
        "2.jpg: the file is empty",
        "4.jpg: 20 MB; at most 10 MB",
    )


def test_what_a_catalogue_or_a_setting_mends_is_looked_at_again(tmp_path: Path) -> None:
    """What is wrong is part of the key: an effect that is added, another model."""
    more = tmp_path / "more.toml"
    made_by = "klingai/kling-video-v1.6-standard-effects"
    more.write_text(f'[effects.hug_pro]\nimages = 2\ndurations = [5]\nmodels = ["{made_by}"]\n')
    catalogue = load_catalogue(str(more))
    files = [_file("hug_pro/a/1.jpg"), _file("hug_pro/a/2.jpg")]
    [unknown], [not_made], [fits] = (
        Convention("s3://in", *setting).uploads(files, (), NOW)
        for setting in ((CATALOGUE,), (catalogue,), (catalogue, made_by))
    )
    assert "unknown effect 'hug_pro'" in unknown.problems[0]
    assert "set EFFECTS_MODEL to" in not_made.problems[0]
    assert not fits.problems
    assert len({unknown.key, not_made.key, fits.key}) == 3


def test_an_unknown_default_model_is_told_once_and_not_of_every_upload() -> None:
    """It is nothing that an upload could mend."""
    with pytest.raises(BadInput, match="unknown model"):
        Convention("s3://in", CATALOGUE, "klong")


@pytest.mark.parametrize(
    ("modified", "growing"),
    [(NOW - 1, True), (NOW + 1, True), (NOW - SETTLE_S - 1, False), (NOW + 3600, False), (None, False)],
)
def test_a_file_that_was_just_written_to_may_still_grow(modified: float | None, growing: bool) -> None:
    """Also where it looks wrong so far. A clock that is far ahead must not make it wait for ever."""
    for files in (["squish/a.jpg"], ["hugg/b/1.jpg"], ["hug/c/1.jpg", "hug/c/2.jpg"]):
        upload = _one(*files[:-1], _file(files[-1], modified=modified))
        assert upload.growing is growing
        assert bool(upload.waits) is growing


NAMES = st.sampled_from(["hug", "squish", "hugg", "a", "b", "1.jpg", "2.jpg", "job.json", "x::y", "ü", ""])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join).filter(bool)
TREES = st.dictionaries(PATHS, st.integers(0, 3), min_size=1, max_size=12)


@given(TREES, st.integers())
def test_every_file_belongs_to_exactly_one_upload_in_whatever_order_they_are_listed(
    tree: dict[str, int], seed: int
) -> None:
    """And each upload is ready, rejected or waiting: nothing is lost between."""
    files = [_file(path, version=str(version)) for path, version in tree.items()]
    uploads = _read(*files)
    assert sorted(file.path for upload in uploads for file in upload.files) == sorted(tree)
    assert len({upload.key for upload in uploads}) == len(uploads)
    for upload in uploads:
        assert not (upload.problems and upload.waits)
        if not (upload.problems or upload.waits):
            assert len(upload.images) == CATALOGUE.effects[upload.effect].images
    random.Random(seed).shuffle(files)  # noqa: S311
    assert {upload.key: upload for upload in _read(*files)} == {upload.key: upload for upload in uploads}


@given(TREES, st.data())
def test_the_key_changes_with_any_file_and_with_nothing_else(tree: dict[str, int], data: st.DataObject) -> None:
    """What is settled is passed over; what changed in it is looked at again, and that alone."""
    files = {path: _file(path, version=str(version)) for path, version in tree.items()}
    convention = Convention("s3://in", CATALOGUE)
    settled = {upload.key for upload in convention.uploads(files.values(), (), NOW)}
    assert not list(convention.uploads(files.values(), settled, NOW))
    path = data.draw(st.sampled_from(sorted(files)))
    changed = files | {path: files[path]._replace(version="other")}
    [again] = convention.uploads(changed.values(), settled, NOW)
    assert path in {file.path for file in again.files}


def test_another_inbox_has_other_keys() -> None:
    """Two inboxes may share a target."""
    [here], [there] = _read("squish/a.jpg"), _read("squish/a.jpg", inbox="s3://other")
    assert here.key != there.key
