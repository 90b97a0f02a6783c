"""`python -m deployments.uploads`: listen to uploads, and wake Prefect's flows."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

from deployments.uploads.folder import Folder
from deployments.uploads.listener import listen
from tasks.errors import BadInput
from tasks.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deployments.uploads.listener import Source

DONE, BAD_INPUT = 0, 2


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line and exit code 2, in place of argparse's three."""
        self.exit(BAD_INPUT, f"uploads: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Listen until Ctrl-C or SIGTERM; returns the exit code: 0, or 2 where something does not fit."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    logging.getLogger("effects").setLevel(logging.INFO)
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
    sources: list[Source] = [Folder()] if options.folder else []
    if not sources:
        raise BadInput("nothing to listen to: give --folder")
    listening = asyncio.create_task(listen(settings.inbox, sources))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, listening.cancel)
    try:
        await listening
    except asyncio.CancelledError:
        logging.getLogger("effects").info("uploads: stopped")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m deployments.uploads",
        description="Turn uploads to the inbox into Prefect events, which wake the flow that looks at the inbox.",
    )
    parser.add_argument("--inbox", metavar="URL", help="what is uploaded to; default: EFFECTS_INBOX")
    parser.add_argument("--folder", action="store_true", help="watch the inbox itself, where it is a local folder")
    return parser


if __name__ == "__main__":
    sys.exit(main())
