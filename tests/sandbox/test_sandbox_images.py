"""How the stand-in gets at images, and what becomes of a generation whose image is not to be had."""

import base64
import hashlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import av
import httpx
import pytest
from PIL import Image

from deployments.sandbox.provider import PATHS
from deployments.sandbox.server import Sandbox

PHOTOS = sorted((Path(__file__).parents[2] / "deployments" / "photos").glob("*.jpg"))


def png(size: int = 8) -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (size, size), "teal").save(buffer, "PNG")
    return buffer.getvalue()


def inline(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


class Host(BaseHTTPRequestHandler):
    """A web server with a photo, a photo that moved, a page, half a photo and a file that is too large."""

    def do_GET(self) -> None:
        """Answer by the path alone."""
        body = {"/photo": png(), "/page": b"<html>", "/half": png(200)[:80], "/large": bytes(11 * 1024 * 1024)}
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("location", "/photo")
            self.end_headers()
            return
        data = body.get(self.path)
        self.send_response(404 if data is None else 200)
        self.end_headers()
        self.wfile.write(data or b"")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Host)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(generate_seconds=0, render=False, balance_usd=1_000) as running:
        yield running


@pytest.fixture
def api(sandbox: Sandbox) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=sandbox.url, headers={"Authorization": "Bearer key"}) as client:
        yield client


def outcome(api: httpx.Client, scene: str, *urls: str) -> dict[str, object]:
    """Submit, and the state in which it ends."""
    body = {"model": "klingai/kling-video-v1.6-pro-effects", "effect_scene": scene, "image_url": list(urls)}
    answer = api.post(PATHS[1], json=body)
    assert answer.is_success
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        state: dict[str, object] = api.get(PATHS[1], params={"generation_id": answer.json()["id"]}).json()
        if state["status"] not in {"queued", "generating"}:
            return state
        time.sleep(0.02)
    raise AssertionError("it does not end")


def test_images_that_it_can_fetch(sandbox: Sandbox, api: httpx.Client, host: str) -> None:
    """Over http, behind a redirect, and out of a data URI; their hashes are kept in order."""
    fetched = sandbox.counters.image_fetches
    assert outcome(api, "hug", f"{host}/moved", inline(png(9)))["status"] == "completed"
    assert sandbox.counters.image_fetches - fetched == 2
    generation = next(iter(sandbox.book))
    assert generation.image_sha256 == [hashlib.sha256(data).hexdigest() for data in (png(), png(9))]


def test_images_that_make_the_generation_fail(api: httpx.Client, host: str, tmp_path: Path) -> None:
    """The submission is accepted, the generation ends in an error that says what and which image it was."""
    local = tmp_path / "photo.png"
    local.write_bytes(png())
    for url, kind in {
        f"{host}/nothing": "file_download_error",
        "http://127.0.0.1:9/photo": "file_download_error",
        local.as_uri(): "file_download_error",
        "data:image/png;base64,not base64": "file_download_error",
        "data:image/png": "file_download_error",
        f"{host}/page": "image_load_error",
        f"{host}/half": "image_load_error",
        inline(b"GIF89a?"): "image_load_error",
        f"{host}/large": "image_too_large",
    }.items():
        state = outcome(api, "squish", url)
        assert state["status"] == "error", url
        error = state["error"]
        assert isinstance(error, dict)
        (blamed,) = error["detail"]
        assert (blamed["type"], blamed["loc"]) == (kind, ["body", "image_url"])
        assert blamed["input"] == url[:100]


def test_videos_are_rendered_of_the_images(tmp_path: Path) -> None:
    """With rendering on, a completed generation is a playable video, kept in the state directory over a restart."""
    sandbox = Sandbox(generate_seconds=0, state=tmp_path)
    with sandbox, httpx.Client(base_url=sandbox.url, headers={"Authorization": "Bearer key"}) as api:
        urls = [inline(path.read_bytes()) for path in PHOTOS[:2]]
        video = outcome(api, "hug", *urls)["video"]
    assert isinstance(video, dict)
    with sandbox:
        data = httpx.get(video["url"], follow_redirects=True).content
    assert len(data) == video["file_size"]
    with av.open(BytesIO(data), "r") as container:
        assert container.duration == 5_000_000
        assert container.streams.video[0].width > 300
