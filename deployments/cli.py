"""The `effects` command: a thin door to the flows.

Everything heavy is imported inside the command that needs it: `effects --help` must not wait for Prefect.
Exit codes: 0 done, 1 something failed or stays open, 2 the input does not fit.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; errors come out as one line each."""
    options = _parser().parse_args(arguments)
    from tasks.errors import EffectsError

    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except EffectsError as error:
        return _fail(error)
    except KeyboardInterrupt:
        print("effects: stopped; nothing new was sent, and `effects resume` finishes what was", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return FAILED


def _fail(error: Exception) -> int:
    from tasks.errors import BadInput, EffectsError

    if isinstance(error, BadInput):
        for problem in error.problems:
            print(f"effects: {problem}", file=sys.stderr)
        return BAD_INPUT
    move = f" → {error.next_move}" if isinstance(error, EffectsError) else ""
    print(f"effects: {error}{move}", file=sys.stderr)
    return BAD_INPUT if isinstance(error, EffectsError) and error.state == "rejected" else FAILED


def _demo(options: argparse.Namespace) -> int:
    from deployments.demo import demo

    return demo(options.target, as_json=options.json)


def _generate(options: argparse.Namespace) -> int:
    from deployments.commands import generate
    from tasks.jobs import Job

    job = Job(effect=options.effect, images=tuple(options.image), duration=options.duration, take=options.take)
    return generate(job, target=options.target, dry_run=options.dry_run, as_json=options.json)


def _batch(options: argparse.Namespace) -> int:
    from deployments.batch import batch

    changes = {"target": options.target, "max_in_flight": options.max_in_flight, "budget_usd": options.budget_usd}
    return batch(options.manifest, changes, dry_run=options.dry_run, as_json=options.json)


def _inbox(options: argparse.Namespace) -> int:
    from deployments.inbox import inbox

    return inbox(options.url, target=options.target, as_json=options.json)


def _resume(options: argparse.Namespace) -> int:
    from deployments.bookkeeping import resume

    return resume(target=options.target, resubmit_unknown=options.resubmit_unknown, as_json=options.json)


def _status(options: argparse.Namespace) -> int:
    from deployments.bookkeeping import status

    return status(target=options.target, as_json=options.json)


def _up(options: argparse.Namespace) -> int:
    from deployments.up import up

    return up({"target": options.target, "inbox": options.inbox}, port=options.port, as_json=options.json)


def _effects(options: argparse.Namespace) -> int:
    from deployments.commands import show_effects

    return show_effects(as_json=options.json)


def _doctor(options: argparse.Namespace) -> int:
    from deployments.doctor import doctor

    return doctor(as_json=options.json)


class _Parser(argparse.ArgumentParser):
    """One clear line for a wrong call, and where the help is."""

    def error(self, message: str) -> None:  # type: ignore[override]
        self.exit(BAD_INPUT, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _whole(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError(text)
    return number


def _port(text: str) -> int:
    if not 0 <= int(text) < 65_536:  # noqa: PLR2004
        raise ValueError(text)
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="effects",
        description="AI video effects from photos: never paid for twice, never lost, all of it in Prefect's dashboard.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(command=run)
        command.add_argument("--json", action="store_true", help="print one JSON document on stdout and nothing else")
        return command

    demo = add("demo", _demo, "make all five core effects from real photos with the sandbox provider: free, no key")
    demo.add_argument("--target", metavar="URL", help="where the videos go (default ./demo-videos)")

    generate = add("generate", _generate, "make one video")
    generate.add_argument("effect", metavar="EFFECT", help="a scene, such as hug; `effects effects` lists all")
    generate.add_argument("image", metavar="IMAGE", nargs="+", help="URL or path; the first is the person on the left")
    generate.add_argument("--duration", type=_whole, default=5, metavar="SECONDS", help="5 or 10 (default 5)")
    generate.add_argument("--take", type=_whole, default=0, metavar="N", help="another variation of the same photos")
    generate.add_argument("--target", metavar="URL", help="where the video goes (default EFFECTS_TARGET or ./videos)")
    generate.add_argument("--dry-run", action="store_true", help="check everything and show the price; send nothing")

    batch = add("batch", _batch, "make many videos, from a manifest: JSONL or CSV with effect, images, …, name")
    batch.add_argument("manifest", metavar="MANIFEST", help="path or URL of the manifest")
    batch.add_argument("--target", metavar="URL", help="where the videos go (default EFFECTS_TARGET or ./videos)")
    batch.add_argument("--max-in-flight", type=_whole, metavar="N", help="jobs under way at once (default 20)")
    batch.add_argument("--budget-usd", type=float, metavar="X", help="spend no more than this, US$")
    batch.add_argument("--dry-run", action="store_true", help="check every row and show the price; send nothing")

    inbox = add("inbox", _inbox, "make the videos of what was uploaded and is not done yet")
    inbox.add_argument("url", metavar="URL", nargs="?", help="where photos are uploaded (default EFFECTS_INBOX)")
    inbox.add_argument("--target", metavar="URL", help="where the videos go (default EFFECTS_TARGET or ./videos)")

    resume = add("resume", _resume, "finish what is open: lost answers, dead processes, waits that were too short")
    resume.add_argument(
        "--resubmit-unknown",
        action="store_true",
        help="also send again what may have been paid for already, where the provider's log does not show it",
    )
    resume.add_argument("--target", metavar="URL", help="where the ledger is (default EFFECTS_TARGET or ./videos)")

    status = add("status", _status, "show the ledger: what is done, and what is not and why; needs no key")
    status.add_argument("--target", metavar="URL", help="where the ledger is (default EFFECTS_TARGET or ./videos)")

    up = add("up", _up, "be up: dashboard, deployments, watched inbox; with no key set the sandbox provider")
    up.add_argument("--inbox", metavar="URL", help="where photos are dropped (default EFFECTS_INBOX or ./inbox)")
    up.add_argument("--target", metavar="URL", help="where the videos go (default EFFECTS_TARGET or ./videos)")
    up.add_argument(
        "--port", type=_port, metavar="N", help="the dashboard's; 0 takes a free one (default 4200, or a free one)"
    )

    add("effects", _effects, "list the effects: how many photos, how long, what they cost")
    add("doctor", _doctor, "check key, model, balance, target and delivery, and say what to do")
    return parser


if __name__ == "__main__":
    sys.exit(main())
