"""A real Chromium before a real `effects up`, one of each for all these tests.

Each test leaves screenshots in `artifacts/dashboards/` of the repository, `v2-…` and `v1-…`, in place of those of the
run before; git ignores them. The last one of a test is named after it and shows how it ended, passed or not.
"""

from __future__ import annotations

import functools
import shutil
import threading
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect, sync_playwright

from tests.conftest import PHOTOS
from tests.local_stack import HOUSE, LocalStack, local_stack
from tests.ui.dashboard import V1, V2, Dashboard

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser

SCREENSHOTS = HOUSE / "artifacts" / "dashboards"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",  # root has none
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
]
PATIENCE_MS = 45_000
"""On a busy machine a page takes long; what is not there by then is missing."""


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Debian's Chromium: Playwright's own would have to be downloaded."""
    if CHROMIUM is None:
        pytest.skip("there is no chromium on this machine (apt-get install chromium)")
    expect.set_options(timeout=PATIENCE_MS)
    shutil.rmtree(SCREENSHOTS, ignore_errors=True)
    # Ended with these tests, not with the session: while it runs, no other event loop can in this thread.
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="package")
def stack(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:  # noqa: ARG001 - without it, none is started
    """A stack whose generations take so long that one can watch them."""
    with local_stack(tmp_path_factory.mktemp("ui")) as started:
        started.start()
        started.turn(generate_seconds=3)
        started.rest()
        yield started


@pytest.fixture(scope="package")
def photos() -> Iterator[str]:
    """Where the photos are on the web: the URL of their folder."""
    with _web_server(PHOTOS) as url:
        yield url


@pytest.fixture(params=[V2, V1], ids=["v2", "v1"])
def dashboard(request: pytest.FixtureRequest, stack: LocalStack, browser: Browser) -> Iterator[Dashboard]:
    """The one that opens by itself, and the one before it."""
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.set_default_timeout(PATIENCE_MS)
    shown: Dashboard = request.param(page, stack.said["dashboard"], SCREENSHOTS)
    yield shown
    page.screenshot(path=SCREENSHOTS / f"{shown.name}-{request.node.originalname}.png")
    page.close()


@contextmanager
def _web_server(folder: Path) -> Iterator[str]:
    handler = functools.partial(_Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing of requests."""
