"""`python -m deployments.uploads`: turn uploads into Prefect events, until stopped."""

from __future__ import annotations

import argparse
import asyncio
import logging
import math
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

from deployments.uploads.endpoint import Endpoint
from deployments.uploads.folder import Folder
from deployments.uploads.listener import listen
from deployments.uploads.sqs import Queue
from deployments.uploads.window import LONGEST_S, QUIET_S
from tasks.errors import BadInput
from tasks.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from deployments.uploads.listener import Source
    from tasks.settings import Settings

DONE, BAD_INPUT = 0, 2
_MAX_PORT = 65_535
_SET = ""
"""Of an option that was given without a value: the setting holds it."""

log = logging.getLogger("effects")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line and exit code 2, in place of argparse's three."""
        self.exit(BAD_INPUT, f"uploads: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Listen until Ctrl-C or SIGTERM; returns the exit code: 0, or 2 where something does not fit."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    log.setLevel(logging.INFO)
    try:
        asyncio.run(_until_stopped(options))
    except BadInput as error:
        for problem in error.problems:
            sys.stderr.write(f"uploads: {problem}\n")
        return BAD_INPUT
    return DONE


async def _until_stopped(options: argparse.Namespace) -> None:
    settings = load_settings(inbox=options.inbox)
    if not settings.inbox:
        raise BadInput("no inbox is set: give --inbox URL, or set EFFECTS_INBOX")
    if not options.folder and options.sqs is None and options.http is None:
        raise BadInput("there is nothing to listen to: give --folder, --sqs or --http PORT")
    sources = list(_sources(options, settings))
    listening = asyncio.create_task(
        listen(settings.inbox, sources, quiet_s=options.quiet_s, longest_s=max(options.longest_s, options.quiet_s))
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, listening.cancel)
    try:
        await listening
    except asyncio.CancelledError:
        log.info("uploads: stopped")


def _sources(options: argparse.Namespace, settings: Settings) -> Iterator[Source]:
    if options.folder:
        yield Folder()
    if options.sqs is not None:
        queue = options.sqs or settings.uploads_queue
        if not queue:
            raise BadInput("no queue is set: give --sqs URL, or set EFFECTS_UPLOADS_QUEUE")
        yield Queue(queue)
    if options.http is not None:
        if settings.uploads_secret is None:
            raise BadInput("no secret is set for --http: set EFFECTS_UPLOADS_SECRET, which its senders have to know")
        yield Endpoint(options.http, secret=settings.uploads_secret.get_secret_value(), host=options.host)
    if options.health is not None:
        yield Endpoint(options.health, secret=None, host=options.host)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m deployments.uploads",
        description="Turn uploads to the inbox into Prefect events, which wake the flow that looks at the inbox.",
        epilog="Several sources may be given. Events go to the Prefect server at PREFECT_API_URL.",
    )
    parser.add_argument("--inbox", metavar="URL", help="what is uploaded to; default: EFFECTS_INBOX")
    parser.add_argument("--folder", action="store_true", help="watch the inbox itself, where it is a local folder")
    parser.add_argument(
        "--sqs",
        nargs="?",
        const=_SET,
        metavar="URL",
        help="take S3's notifications from a queue; without URL: EFFECTS_UPLOADS_QUEUE",
    )
    parser.add_argument(
        "--http",
        type=_port,
        metavar="PORT",
        help="POST /uploads takes notifications of S3, MinIO, Pub/Sub and Event Grid from who knows "
        "EFFECTS_UPLOADS_SECRET: as a bearer token, a basic login's password, or ?token=…; GET /health counts",
    )
    parser.add_argument("--health", type=_port, metavar="PORT", help="GET /health alone, without a secret")
    parser.add_argument("--host", default="127.0.0.1", help="where --http and --health listen; default: %(default)s")
    parser.add_argument(
        "--quiet-s", type=_seconds, default=QUIET_S, metavar="S", help="tell when no more came for so long; default: 2"
    )
    parser.add_argument(
        "--longest-s", type=_seconds, default=LONGEST_S, metavar="S", help="and at the latest then; default: 8"
    )
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > _MAX_PORT:
        raise argparse.ArgumentTypeError(f"not a port: {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"not a number of at least 0: {text!r}")
    return number


if __name__ == "__main__":
    sys.exit(main())
