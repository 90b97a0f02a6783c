"""Fetching photos: from any URL into a scratch file, never more than a photo may hold, never from where it must not."""

from __future__ import annotations

import gzip
import hashlib
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tasks.errors import BadInput
from tasks.fetch import fetch, fetch_images, forget
from tasks.hosts import is_public
from tasks.jobs import public_url
from tests.conftest import CHELSEA, COLLINS, HOPPER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tasks.jobs import SourceImage
    from tasks.workspace import Workspace

    Answer = Callable[[BaseHTTPRequestHandler], None]

MB = 1_000_000
CAT = Path(CHELSEA).read_bytes()


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Those who hang up are no news."""


class Web:
    """A web server whose every page is a function; it notes what was asked for, and how much it sent without end."""

    def __init__(self) -> None:
        web = self
        self.pages: dict[str, Answer] = {"/cat.jpg": page(CAT)}
        self.seen: list[str] = []
        self.sent = 0

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                web.seen.append(self.path)
                path = self.path.partition("?")[0]
                web.pages.get(path, page(b"", int(path[1:]) if path[1:].isdigit() else 404))(self)

            do_HEAD = do_GET  # noqa: N815 - named by the server

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.pages["/endless"] = self._endless

    def _endless(self, handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/html")  # as which fsspec would look for links in it
        handler.end_headers()
        while self.sent < 500 * MB:
            handler.wfile.write(bytes(64 * 1024))
            self.sent += 64 * 1024


def page(body: bytes, status: int = 200, **headers: str) -> Answer:
    """The same answer for everybody."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"content_length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        if handler.command == "GET":
            handler.wfile.write(body)

    return answer


def parts(body: bytes) -> Answer:
    """Any part that is asked for, as archives need it."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers["Range"]
        if asked is None:
            page(body)(handler)
            return
        start, _, end = asked.removeprefix("bytes=").partition("-")
        page(body[int(start) : int(end) + 1], 206, content_range=f"bytes {start}-{end}/{len(body)}")(handler)

    return answer


def in_turn(*answers: Answer) -> Answer:
    """One answer after the other; the last for ever."""
    left = list(answers)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        now = left.pop(0) if len(left) > 1 else left[0]
        now(handler)

    return answer


def late(seconds: float, then: Answer) -> Answer:
    """The answer takes its time."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(seconds)
        then(handler)

    return answer


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    """Close the connection in place of an answer."""
    handler.close_connection = True


def _serve() -> Iterator[Web]:
    web = Web()
    thread = threading.Thread(target=web.server.serve_forever, args=(0.01,))
    thread.start()
    yield web
    web.server.shutdown()
    thread.join()
    web.server.server_close()


web = pytest.fixture(_serve, name="web")
inner = pytest.fixture(_serve, name="inner")
"""Two servers, the second of which stands for one that only this machine can reach."""


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


@pytest.fixture
def public_web(web: Web, monkeypatch: pytest.MonkeyPatch) -> Web:
    """The first server counts as public, everything else does not."""

    async def by_port(url: str) -> bool:
        return urlsplit(url).port == web.server.server_port

    monkeypatch.setattr("tasks.fetch.is_public", by_port)
    return web


async def fetched(*urls: str, to: Path, max_bytes: int = 10 * MB, private_hosts: bool = True) -> list[SourceImage]:
    return list(await fetch(urls, to, max_bytes=max_bytes, private_hosts=private_hosts))


async def refusal(*urls: str, to: Path, max_bytes: int = 10 * MB, private_hosts: bool = True) -> BadInput:
    """Why the images are refused; whatever the reason, nothing is left behind."""
    with pytest.raises(BadInput) as caught:
        await fetch(urls, to, max_bytes=max_bytes, private_hosts=private_hosts)
    assert list(to.iterdir()) == []
    return caught.value


async def test_a_photo_comes_whole_with_the_hash_of_its_bytes(web: Web, scratch: Path) -> None:
    """In the order asked for, however long each takes; from the web it is asked for once."""
    web.pages["/cat.jpg"] = late(0.2, page(CAT))
    sources = await fetched(f"{web.url}/cat.jpg?v=2", COLLINS, f"file://{HOPPER}", to=scratch)
    assert [source.url for source in sources] == [f"{web.url}/cat.jpg?v=2", COLLINS, f"file://{HOPPER}"]
    for source, original in zip(sources, (CHELSEA, COLLINS, HOPPER), strict=True):
        content = Path(original).read_bytes()
        assert source.path is not None
        assert source.path.read_bytes() == content
        assert (source.sha256, source.size) == (hashlib.sha256(content).hexdigest(), len(content))
    assert web.seen == ["/cat.jpg?v=2"]
    forget(sources)
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("over", [0, 1])
async def test_the_largest_photo_passes_and_one_byte_more_does_not(over: int, tmp_path: Path, scratch: Path) -> None:
    """The limit is the provider's, to the byte."""
    (tmp_path / "a.jpg").write_bytes(bytes(MB + over))
    if over:
        assert "more than 1 MB" in (await refusal(str(tmp_path / "a.jpg"), to=scratch, max_bytes=MB)).reason
    else:
        assert (await fetched(str(tmp_path / "a.jpg"), to=scratch, max_bytes=MB))[0].size == MB


async def test_a_page_without_end_is_cut_off(web: Web, scratch: Path) -> None:
    """What is read beyond the limit is what the sockets hold, not what the server has."""
    error = await refusal(f"{web.url}/endless", to=scratch, max_bytes=MB)
    assert "more than 1 MB" in error.reason
    assert not error.transient
    assert web.sent < 50 * MB


async def test_a_page_that_unpacks_without_end_is_cut_off(web: Web, scratch: Path) -> None:
    """A web server may compress; what counts is what it unpacks to."""
    web.pages["/bomb"] = page(gzip.compress(bytes(100 * MB)), content_encoding="gzip")
    assert "more than 1 MB" in (await refusal(f"{web.url}/bomb", to=scratch, max_bytes=MB)).reason


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
async def test_a_refusal_of_the_web_server_lasts(status: int, web: Web, scratch: Path) -> None:
    """Asking again would not change it."""
    error = await refusal(f"{web.url}/{status}", to=scratch)
    assert not error.transient
    assert "no such file" in error.reason if status == 404 else f"HTTP {status}" in error.reason
    assert len(web.seen) == 1


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_a_web_server_in_trouble_may_be_asked_again(status: int, web: Web, scratch: Path) -> None:
    """It may answer in a moment."""
    error = await refusal(f"{web.url}/{status}", to=scratch)
    assert error.transient
    assert f"HTTP {status}" in error.reason


async def test_a_connection_that_fails_may_be_tried_again(
    web: Web, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hung up on, broken off in the middle, slow, refused: each is told in one line, and leaves no half photo."""
    monkeypatch.setattr("tasks.fetch.HTTP_TIMEOUT_S", 0.3)
    web.pages["/reset"] = hang_up
    web.pages["/half"] = page(CAT[:1000], content_length=str(len(CAT)))
    web.pages["/slow"] = late(0.6, page(CAT))
    for url in (f"{web.url}/reset", f"{web.url}/half", f"{web.url}/slow", "http://127.0.0.1:9/cat.jpg"):
        error = await refusal(url, to=scratch)
        assert error.transient, error.reason
        assert "\n" not in error.reason
    assert "in time" in (await refusal(f"{web.url}/slow", to=scratch)).reason


async def test_an_archive_on_a_web_server_in_trouble_may_be_asked_for_again(web: Web, scratch: Path) -> None:
    """The photo is in the archive, the trouble is the server's."""
    error = await refusal(f"zip://cat.jpg::{web.url}/503", f"zip://cat.jpg::{web.url}/502?a=b", to=scratch)
    assert error.transient
    assert "HTTP 503" in error.problems[0]
    assert "HTTP 502" in error.problems[1]


async def test_a_photo_comes_out_of_an_archive_on_the_web(web: Web, tmp_path: Path, scratch: Path) -> None:
    """A chained URL."""
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.write(CHELSEA, "in/cat.jpg")
    web.pages["/photos.zip"] = parts((tmp_path / "photos.zip").read_bytes())
    [source] = await fetched(f"zip://in/cat.jpg::{web.url}/photos.zip", to=scratch)
    assert source.sha256 == hashlib.sha256(CAT).hexdigest()


async def test_every_problem_of_every_photo_is_told_at_once(web: Web, tmp_path: Path, scratch: Path) -> None:
    """Each by its number and its URL; the photos that were fine are removed again."""
    urls = [
        str(tmp_path / "missing.jpg"),
        f"{web.url}/cat.jpg",
        str(tmp_path),
        f"{web.url}/500",
        "nowhere://a.jpg",
        COLLINS,
    ]
    error = await refusal(*urls, to=scratch)
    assert [problem.partition(":")[0].partition(" (")[0] for problem in error.problems] == [
        f"image {number}" for number in (1, 3, 4, 5)
    ]
    for problem, url, word in zip(
        error.problems,
        (urls[0], urls[2], urls[3], urls[4]),
        ("no such file", "a folder", "HTTP 500", "nowhere"),
        strict=True,
    ):
        assert f"({url}): " in problem
        assert word in problem
    assert not error.transient, "one lasting problem makes all of it lasting"


@pytest.mark.usefixtures("s3")
async def test_a_bucket_that_is_not_there_is_a_lasting_problem(scratch: Path) -> None:
    """A typing mistake in a bucket's name."""
    error = await refusal("s3://no-such-bucket-here/a.jpg", to=scratch)
    assert "no such file or bucket" in error.reason
    assert not error.transient


@pytest.mark.parametrize(
    "url",
    [
        "{web}/403?X-Amz-Signature=s3cret&X-Amz-Credential=s3cret",
        "{web}/404?sig=s3cret",
        "{web}/500?token=s3cret",
        "http://me:s3cret@127.0.0.1:9/a.jpg",
        "http://me:s3cret@[oops/a.jpg",
        "http://me:s3cret@127.0.0.1:99999/a.jpg",
        "http://me:s3cret@/a.jpg",
        "nowhere://me:s3cret@host/a.jpg?Signature=s3cret",
        "zip://a.jpg::http://me:s3cret@127.0.0.1:9/a.zip?X-Amz-Signature=s3cret",
        "zip://a.jpg::simplecache::http://me:s3cret@127.0.0.1:9/a.zip?X-Amz-Signature=s3cret",
        "{web}/to-nowhere?X-Amz-Signature=s3cret",
        "data:image/png;base64,s3cret=x",
    ],
)
@pytest.mark.parametrize("private_hosts", [True, False])
async def test_what_is_secret_in_a_url_is_never_told(private_hosts: bool, url: str, web: Web, scratch: Path) -> None:
    """Neither credentials nor signatures reach a message, whatever is wrong with the URL."""
    web.pages["/to-nowhere"] = page(b"", 302, location="ftp://me:s3cret@host/a.jpg?X-Amz-Signature=s3cret")
    error = await refusal(url.format(web=web.url), to=scratch, private_hosts=private_hosts)
    assert "s3cret" not in str(error)
    assert "s3cret" not in repr(error)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://host/a.jpg", "https://host/a.jpg"),
        ("https://me:pw@host/a.jpg#part", "https://host/a.jpg"),
        ("https://host/a.jpg?X-Amz-Signature=q", "https://host/a.jpg"),
        ("https://host/a.jpg?any=thing", "https://host/a.jpg"),
        ("s3://bucket/a?b#c.jpg", "s3://bucket/a?b#c.jpg"),
        ("zip://a.jpg::https://me:pw@host/a.zip?sig=q", "zip://a.jpg::https://host/a.zip"),
        ("zip://a.jpg::simplecache::s3://me:pw@bucket/a.zip", "zip://a.jpg::simplecache::s3://bucket/a.zip"),
        ("http://[::1]:80/a.jpg", "http://[::1]:80/a.jpg"),
        ("http://me:pw@[oops/a.jpg", "http://…"),
        ("data:image/png;base64,AAAA", "data:image/png;base64,…"),
        ("/photos/a::b@c.jpg", "/photos/a::b@c.jpg"),
    ],
)
def test_a_url_is_shown_without_what_is_secret_in_it(url: str, shown: str) -> None:
    """In messages, logs, dashboards and the ledger."""
    assert public_url(url) == shown


async def test_a_private_host_is_refused_before_anything_is_asked_of_it(web: Web, scratch: Path) -> None:
    """Directly, or inside of a chained URL; the message says what would allow it."""
    for url in (f"{web.url}/cat.jpg", f"zip://cat.jpg::{web.url}/photos.zip"):
        error = await refusal(url, to=scratch, private_hosts=False)
        assert "127.0.0.1 is not public" in error.reason
        assert "EFFECTS_ALLOW_PRIVATE_HOSTS" in error.reason
        assert not error.transient
    assert web.seen == []


@pytest.mark.parametrize("header", ["location", "uri"])
@pytest.mark.parametrize("form", ["{}", "zip://cat.jpg::{}"])
async def test_a_redirect_to_a_private_host_is_not_followed(
    form: str, header: str, public_web: Web, inner: Web, scratch: Path
) -> None:
    """At the first hop or at a later one; the private host hears nothing."""
    public_web.pages["/near"] = page(b"", 302, **{header: "/away"})
    public_web.pages["/away"] = page(b"", 302, **{header: f"{inner.url}/cat.jpg"})
    for path in ("/away", "/near"):
        error = await refusal(form.format(public_web.url + path), to=scratch, private_hosts=False)
        assert "redirects to a host that is not public" in error.reason
        assert not error.transient
    assert public_web.seen
    assert inner.seen == []


async def test_redirects_are_followed_where_they_may_be(public_web: Web, inner: Web, scratch: Path) -> None:
    """From a public host to a public one; to any where private hosts are allowed; not round in circles."""
    public_web.pages["/near"] = page(b"", 302, location="/cat.jpg")
    public_web.pages["/away"] = page(b"", 302, location=f"{inner.url}/cat.jpg")
    public_web.pages["/round"] = page(b"", 302, location="/round")
    [near] = await fetched(f"{public_web.url}/near", to=scratch, private_hosts=False)
    [away] = await fetched(f"{public_web.url}/away", to=scratch)
    assert near.sha256 == away.sha256 == hashlib.sha256(CAT).hexdigest()
    assert near.url == f"{public_web.url}/near"
    forget([near, away])
    assert not (await refusal(f"{public_web.url}/round", to=scratch)).transient


@pytest.mark.parametrize(
    ("host", "public"),
    [
        ("127.0.0.1", False),
        ("127.1", False),
        ("2130706433", False),
        ("localhost", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),  # noqa: S104 - not a binding
        ("[::1]", False),
        ("[::ffff:127.0.0.1]", False),
        ("[fe80::1]", False),
        ("[fd00::1]", False),
        ("me:pw@127.0.0.1", False),
        ("1.1.1.1", True),
        ("1.1.1.1@127.0.0.1", False),
        ("[2606:4700:4700::1111]", True),
        ("no-such-host.invalid", True),
    ],
)
async def test_which_hosts_are_public(host: str, public: bool) -> None:
    """However an address is written; a host that nobody knows is left to the connection to complain about."""
    assert await is_public(f"http://{host}/a.jpg") is public


@pytest.mark.usefixtures("prefect_api")
async def test_the_step_tries_again_where_that_helps(
    web: Web, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A web server that has trouble twice, and a connection that breaks, cost a moment."""
    monkeypatch.setattr(fetch_images, "retry_delay_seconds", [0.05])
    web.pages["/moody.jpg"] = in_turn(page(b"", 503), hang_up, page(CAT))
    sources = await fetch_images([f"{web.url}/moody.jpg", COLLINS], workspace)
    assert [source.sha256 for source in sources] == [
        hashlib.sha256(content).hexdigest() for content in (CAT, Path(COLLINS).read_bytes())
    ]
    assert web.seen == ["/moody.jpg"] * 3
    assert len(list(workspace.scratch.iterdir())) == 2


@pytest.mark.usefixtures("prefect_api")
async def test_the_step_does_not_try_again_what_lasts(web: Web, workspace: Workspace) -> None:
    """A photo that is not there is told at once."""
    with pytest.raises(BadInput, match="no such file"):
        await fetch_images([f"{web.url}/missing.jpg"], workspace)
    assert web.seen == ["/missing.jpg"]


@pytest.mark.parametrize("layer", ["simplecache", "filecache", "blockcache"])
async def test_a_layer_that_would_download_everything_first_is_refused(layer: str, tmp_path: Path) -> None:
    """The cap on the size must hold before the bytes are here."""
    with pytest.raises(BadInput, match=f"{layer}:: would copy"):
        await fetch([f"{layer}::file://{COLLINS}"], tmp_path, max_bytes=10, private_hosts=True)
