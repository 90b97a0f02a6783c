"""How photos reach the provider: as links, signed, or inline; and that staged copies do not outlive their job."""

from __future__ import annotations

import asyncio
import base64
import functools
import logging
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import fsspec
import httpx
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tasks.delivery import deliver, withdraw
from tasks.effects import load_catalogue
from tasks.errors import BadInput, StorageError
from tasks.fetch import fetch
from tasks.jobs import Job, Request
from tasks.settings import load_settings
from tasks.storage import Storage
from tasks.validate import validate
from tests.conftest import CHELSEA, COLLINS, HOPPER, PHOTOS

if TYPE_CHECKING:
    from collections.abc import Iterator

CAT = Path(CHELSEA).read_bytes()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def web() -> Iterator[str]:
    """A web server with the photos, on a host that is not public."""
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(PHOTOS))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def everywhere_public(monkeypatch: pytest.MonkeyPatch) -> None:
    async def yes(_url: str) -> bool:
        return True

    monkeypatch.setattr("tasks.delivery.is_public", yes)


async def _looked_at(tmp_path: Path, *images: str, take: int = 0) -> Request:
    job = Job(effect="hug" if len(images) == 2 else "squish", images=images, take=take)
    catalogue = load_catalogue()
    sources = await fetch(images, tmp_path, max_bytes=catalogue.provider.images.max_bytes, private_hosts=True)
    return await validate(sources, job, catalogue=catalogue)


async def _get(url: str) -> bytes:
    """Fetch as the provider would: without any credentials."""
    response = await asyncio.to_thread(httpx.get, url)
    assert response.status_code == 200
    return response.content


def _inline(content: bytes, media_type: str = "image/jpeg") -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


@pytest.mark.usefixtures("everywhere_public")
@pytest.mark.parametrize("delivery", ["auto", "link"])
async def test_a_public_link_passes_as_it_is(delivery: str, web: str, tmp_path: Path) -> None:
    """With its query: it may be what opens it."""
    urls = (f"{web}/collins.jpg?X-Amz-Signature=q", f"{web}/hopper.jpg")
    request = await _looked_at(tmp_path, *urls)
    assert await deliver(request, load_settings(delivery=delivery, staging="memory://staging")) == urls
    assert await Storage("memory://staging").list("") == ()


async def test_a_private_link_passes_only_to_a_provider_that_is_here_too(web: str, tmp_path: Path) -> None:
    """A sandbox on this machine can fetch what this machine can."""
    request = await _looked_at(tmp_path, f"{web}/chelsea.jpg")
    settings = load_settings(delivery="link", api_url="http://127.0.0.1:8787")
    assert await deliver(request, settings) == (f"{web}/chelsea.jpg",)
    with pytest.raises(BadInput, match=r"image 1 \(http.*chelsea\.jpg\): its host is not public"):
        await deliver(request, load_settings(delivery="link"))


async def test_a_local_photo_has_no_link(tmp_path: Path) -> None:
    """The message names the photo and the setting."""
    request = await _looked_at(tmp_path, CHELSEA)
    with pytest.raises(BadInput, match=r"chelsea\.jpg\): EFFECTS_DELIVERY=link needs"):
        await deliver(request, load_settings(delivery="link", staging="memory://staging"))


async def test_a_private_link_goes_another_way_by_itself(
    web: str, s3: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Through the staging area where there is one, else inline."""
    request = await _looked_at(tmp_path, f"{web}/chelsea.jpg")
    [url] = await deliver(request, load_settings(staging=f"{s3}/staging"))
    assert "chelsea" not in url
    assert await _get(url) == CAT
    with caplog.at_level(logging.WARNING, logger="effects"):
        assert await deliver(request, load_settings()) == (_inline(CAT),)
    assert "does not document" in caplog.text


@pytest.mark.parametrize("delivery", ["auto", "sign"])
async def test_a_photo_in_a_bucket_is_signed_where_it_is(delivery: str, s3: str, tmp_path: Path) -> None:
    """No copy is made; anyone can fetch the link, for an hour at least."""
    fsspec.filesystem("s3").put_file(CHELSEA, f"{s3}/in/cat.jpg")
    request = await _looked_at(tmp_path, f"{s3}/in/cat.jpg")
    [url] = await deliver(request, load_settings(delivery=delivery, staging=f"{s3}/staging"))
    assert urlsplit(url).path.endswith("/in/cat.jpg")
    assert await _get(url) == CAT
    lifetimes = parse_qs(urlsplit(url).query)
    assert "X-Amz-Expires" in lifetimes or "Expires" in lifetimes
    assert all(int(seconds) >= 3600 for seconds in lifetimes.get("X-Amz-Expires", []))
    assert await Storage(f"{s3}/staging").list("") == ()


@pytest.mark.parametrize("delivery", ["auto", "sign"])
async def test_a_local_photo_is_copied_to_the_staging_area_and_signed_there(
    delivery: str, s3: str, tmp_path: Path
) -> None:
    """In order; and nothing in the link tells how the photo was called."""
    (tmp_path / "grandma at home.jpg").write_bytes(CAT)
    request = await _looked_at(tmp_path, str(tmp_path / "grandma at home.jpg"), HOPPER)
    urls = await deliver(request, load_settings(delivery=delivery, staging=f"{s3}/staging"))
    assert [await _get(url) for url in urls] == [CAT, Path(HOPPER).read_bytes()]
    assert not any(word in url for url in urls for word in ("grandma", "hopper"))
    assert await Storage(f"{s3}/staging").list("") == tuple(
        f"{request.job_id}/{number}-{source.sha256}.jpg" for number, source in enumerate(request.sources, start=1)
    )


async def test_two_jobs_with_the_same_photo_have_copies_of_their_own(s3: str, tmp_path: Path) -> None:
    """When one job ends, its copies go, and those of the other can still be fetched."""
    settings = load_settings(staging=f"{s3}/staging")
    jobs = [await _looked_at(tmp_path, COLLINS, HOPPER, take=take) for take in range(2)]
    first, second = [await deliver(job, settings) for job in jobs]
    assert not set(first) & set(second)
    await withdraw(jobs[0], settings)
    assert (await asyncio.to_thread(httpx.get, first[0])).status_code == 404
    assert [await _get(url) for url in second] == [Path(path).read_bytes() for path in (COLLINS, HOPPER)]
    await withdraw(jobs[1], settings)
    await withdraw(jobs[1], settings)
    assert await Storage(f"{s3}/staging").list("") == ()


async def test_nothing_is_withdrawn_where_nothing_is_staged(s3: str, tmp_path: Path) -> None:
    """Photos in their own bucket stay, with a staging area or without one."""
    fsspec.filesystem("s3").put_file(CHELSEA, f"{s3}/in/cat.jpg")
    request = await _looked_at(tmp_path, f"{s3}/in/cat.jpg")
    await withdraw(request, load_settings())
    await withdraw(request, load_settings(staging=f"{s3}/in"))
    assert await Storage(s3).list("") == ("in/cat.jpg",)


async def test_signing_without_a_place_that_signs_names_the_setting(tmp_path: Path) -> None:
    """A staging area that cannot sign is none; no copy of a photo is left in it."""
    request = await _looked_at(tmp_path, COLLINS, HOPPER)
    for staging in (None, "memory://staging", str(tmp_path / "staging")):
        with pytest.raises(BadInput, match=r"collins\.jpg\): its filesystem cannot sign URLs; set EFFECTS_STAGING"):
            await deliver(request, load_settings(delivery="sign", staging=staging))
    assert await Storage("memory://staging").list("") == ()
    assert not (tmp_path / "staging").exists()


async def test_credentials_that_cannot_sign_lead_to_the_staging_area(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some clouds sign with a private key alone, and say so by an error of their own."""

    def sign(*_: object, **__: object) -> str:
        raise AttributeError("you need a private key to sign credentials")

    monkeypatch.setattr(MemoryFileSystem, "sign", sign, raising=False)
    fsspec.filesystem("memory").put_file(CHELSEA, "/in/cat.jpg")
    request = await _looked_at(tmp_path, "memory://in/cat.jpg")
    [url] = await deliver(request, load_settings(delivery="sign", staging=f"{s3}/staging"))
    assert await _get(url) == CAT
    with pytest.raises(BadInput, match="EFFECTS_STAGING"):
        await deliver(request, load_settings(delivery="sign"))


@pytest.mark.usefixtures("s3")
async def test_a_staging_area_that_is_not_there_is_named(tmp_path: Path) -> None:
    """One line, before anything is paid for."""
    request = await _looked_at(tmp_path, CHELSEA)
    with pytest.raises(StorageError, match="no-such-bucket-here") as caught:
        await deliver(request, load_settings(staging="s3://no-such-bucket-here"))
    assert caught.value.lasting


@pytest.mark.parametrize("settings", [{"delivery": "inline", "staging": "memory://staging"}, {}])
async def test_inline_puts_the_photo_into_the_request(
    settings: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A data URI of the photo's own kind; who did not ask for it is told that the provider does not document it."""
    from PIL import Image  # noqa: PLC0415 - one picture

    Image.effect_noise((400, 400), 90).save(tmp_path / "photo.jpg", "PNG")
    request = await _looked_at(tmp_path, str(tmp_path / "photo.jpg"), CHELSEA)
    with caplog.at_level(logging.WARNING, logger="effects"):
        urls = await deliver(request, load_settings(**settings))
    assert urls == (_inline((tmp_path / "photo.jpg").read_bytes(), "image/png"), _inline(CAT))
    warnings = [record.getMessage() for record in caplog.records if record.name == "effects"]
    if settings:
        assert warnings == []
    else:
        assert len(warnings) == 2
        assert all("does not document" in line and "EFFECTS_STAGING" in line for line in warnings)
        assert "photo.jpg" in warnings[0]


async def test_a_photo_of_a_process_that_is_gone_cannot_go_inline(tmp_path: Path) -> None:
    """The ledger keeps no scratch paths; the message names the photo."""
    request = (await _looked_at(tmp_path, CHELSEA)).model_copy(
        update={"sources": ((await _looked_at(tmp_path, CHELSEA)).sources[0].model_copy(update={"path": None}),)}
    )
    with pytest.raises(BadInput, match=r"chelsea\.jpg was not fetched"):
        await deliver(request, load_settings(delivery="inline"))
