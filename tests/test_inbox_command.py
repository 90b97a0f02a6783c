"""`effects inbox` as a person meets it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from deployments.cli import main
from deployments.sandbox.faults import Fault
from tests.conftest import COLLINS
from tests.inboxes import Uploads

if TYPE_CHECKING:
    from deployments.sandbox.server import Sandbox

KEYS = ["state", "job_id", "effect", "generation_id", "attempt", "video", "metadata", "cost_usd", "seconds", "reason"]


@pytest.fixture
def uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Uploads:
    """An empty inbox on a disk."""
    return Uploads(str(tmp_path / "store"), monkeypatch)


@pytest.mark.usefixtures("prefect_api")
def test_the_command_prints_one_document(
    uploads: Uploads, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the shape of a batch's, with the uploads' paths as names; the URL may be given in place of the setting."""
    uploads.pair("hug/anna and ben")
    uploads.put("squish/text.jpg", b"hello")
    monkeypatch.delenv("EFFECTS_INBOX")
    monkeypatch.delenv("EFFECTS_TARGET")
    assert main(["inbox", uploads.inbox, "--target", uploads.target, "--json"]) == 2
    told = capsys.readouterr()
    document = json.loads(told.out)
    assert list(document) == ["counts", "cost_usd", "rows"]
    assert document["counts"] == {"completed": 1, "rejected": 1}
    assert [row["name"] for row in document["rows"]] == ["hug/anna and ben", "squish/text.jpg"]
    assert set(document["rows"][0]) == {*KEYS, "name", "row"}
    assert document["rows"][0]["video"].startswith(f"{uploads.target}/hug/")
    assert "hug/anna and ben: completed" in told.err
    assert sandbox.counters.billed == 1


@pytest.mark.usefixtures("prefect_api", "sandbox")
def test_waiting_is_no_failure(uploads: Uploads, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 0, and a line that says what is missing."""
    uploads.put("hug/anna/1.jpg", COLLINS)
    assert main(["inbox"]) == 0
    assert "waiting hug/anna: 1 of 2 images so far" in capsys.readouterr().out


@pytest.mark.usefixtures("prefect_api")
def test_what_failed_is_exit_code_1(uploads: Uploads, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    """Told once: then the inbox has nothing new."""
    sandbox.knobs.faults = [Fault(kind="error_detail", error_type="face_detection_error")]
    uploads.put("squish/a.jpg")
    assert main(["inbox"]) == 1
    assert "failed squish/a.jpg:" in capsys.readouterr().out
    assert main(["inbox"]) == 0
    assert capsys.readouterr().out == "nothing to do · $0.00\n"


@pytest.mark.usefixtures("sandbox", "uploads")
def test_where_nothing_is_new_no_server_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Most looks find nothing."""
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    assert main(["inbox", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"counts": {}, "cost_usd": 0.0, "rows": []}


@pytest.mark.parametrize(
    ("arguments", "variables", "line"),
    [
        ([], {"EFFECTS_INBOX": ""}, "no inbox is named: give its URL, or set EFFECTS_INBOX"),
        (["nowhere"], {}, "nowhere: there is no such file or bucket"),
        (["nowhere://x"], {}, "the inbox does not fit: nowhere://x"),
        (["photo.jpg"], {}, "photo.jpg: a part of the path is a file, not a folder"),
        (["store/out/in"], {}, "lie inside each other; separate them"),
        (["store"], {}, "lie inside each other; separate them"),
        (["memory://x"], {"EFFECTS_TARGET": "memory://x"}, "the inbox memory://x and the target memory://x lie inside"),
        ([], {"EFFECTS_STAGING": "store/in/staged"}, "and the staging area store/in/staged lie inside each other"),
        ([], {"EFFECTS_MODEL": "klong"}, "unknown model 'klong'"),
        ([], {"EFFECTS_API_KEY": ""}, "no key is set"),
    ],
)
@pytest.mark.usefixtures("sandbox", "uploads")
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str],
    variables: dict[str, str],
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Before any server is started."""
    Path("photo.jpg").write_bytes(b"1")
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert main(["inbox", *arguments]) == 2
    told = capsys.readouterr()
    assert line in told.err
    assert len(told.err.splitlines()) == 1
    assert told.out == ""


@pytest.mark.usefixtures("sandbox")
def test_a_bucket_that_is_not_there_is_bad_input(s3: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty one is an inbox like any other."""
    assert main(["inbox", f"{s3}-nowhere/in"]) == 2
    assert "there is no such file or bucket" in capsys.readouterr().err
    assert main(["inbox", f"{s3}/in"]) == 0


@pytest.mark.usefixtures("sandbox")
def test_credentials_in_the_url_are_never_shown(
    uploads: Uploads, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not where the inbox cannot be reached, nor where it does not fit."""
    assert main(["inbox", "ftp://me:secret@127.0.0.1:9/in"]) == 1
    assert "ftp://127.0.0.1:9/in cannot be reached" in (told := capsys.readouterr().err)
    assert "secret" not in told
    monkeypatch.setenv("EFFECTS_TARGET", "memory://me:secret@x/in/out")
    assert main(["inbox", "memory://me:secret@x/in"]) == 2
    assert "lie inside each other" in (told := capsys.readouterr().err)
    assert "secret" not in told
    assert uploads.videos() == 0
