"""`python -m deployments.sandbox`: a stand-in for the provider, to try everything without a key and without money."""

import argparse
import errno
import signal
import sys
import threading
from pathlib import Path
from typing import NoReturn

from pydantic import ValidationError

from deployments.sandbox.faults import KINDS, Fault
from deployments.sandbox.knobs import Knobs
from deployments.sandbox.server import Sandbox

_MAX_PORT = 65_535


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line and exit code 2, in place of argparse's three."""
        self.exit(2, f"sandbox: {message}\n")


def main(arguments: list[str] | None = None) -> int:
    """Serve until Ctrl-C or SIGTERM; returns the exit code: 0, or 1 when it cannot listen or use its directory."""
    options = _parser().parse_args(arguments)
    knobs = Knobs(
        generate_seconds=options.generate_seconds,
        sigma=options.sigma,
        render=not options.no_render,
        api_key=options.key,
        balance_usd=options.balance_usd,
        faults=options.fault,
    )
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        with Sandbox(knobs, port=options.port, state=options.state) as sandbox:
            key = options.key or "sandbox"
            sys.stdout.write(f"Sandbox provider: {sandbox.url} (Ctrl-C stops it)\n")
            sys.stdout.write(f"EFFECTS_API_URL={sandbox.url} EFFECTS_API_KEY={key} EFFECTS_POLL_INTERVAL_S=1\n")
            sys.stdout.flush()
            stop.wait()
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        reason = f"port {options.port} is taken; choose another with --port" if taken else str(error)
        sys.stderr.write(f"sandbox: cannot start: {reason}\n")
        return 1
    except ValidationError as error:
        sys.stderr.write(f"sandbox: {options.state} holds what is no generation: {error.errors()[0]['msg']}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m deployments.sandbox",
        description="A stand-in for the video provider: it renders, bills and fails as told, and costs nothing.",
        epilog=f"Kinds of faults: {', '.join(KINDS)}.",
    )
    parser.add_argument("--port", type=_port, default=8787, help="default: %(default)s; 0 takes a free one")
    parser.add_argument("--state", type=Path, metavar="DIR", help="remember everything there, even over kill -9")
    parser.add_argument(
        "--generate-seconds", type=_amount, default=3.0, metavar="S", help="median time to generate; default: 3"
    )
    parser.add_argument("--sigma", type=_amount, default=0.0, help="log-normal spread of that time; default: 0")
    parser.add_argument("--no-render", action="store_true", help="serve a tiny MP4 in place of rendered ones")
    parser.add_argument("--key", help="the only API key to accept; default: any")
    parser.add_argument("--balance-usd", type=_amount, default=50.0, metavar="USD", help="default: 50")
    parser.add_argument(
        "--fault",
        type=_fault,
        action="append",
        default=[],
        metavar="KIND[@ROUTE][:RATE]",
        help="a fault, such as 503:0.1 or reset@submit; may be repeated",
    )
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > _MAX_PORT:
        raise argparse.ArgumentTypeError(f"not a port: {text!r}")
    return int(text)


def _amount(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"not a number of at least 0: {text!r}")
    return number


def _fault(text: str) -> Fault:
    try:
        return Fault.parse(text)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise argparse.ArgumentTypeError(f"{text!r}: {reason}") from error


if __name__ == "__main__":
    sys.exit(main())
