"""`ds-flow pause`: start nothing new for a while."""

import argparse
import re
from datetime import UTC, datetime, timedelta

from ds_flow.cli.arguments import Arguments, UsageError, argument
from ds_flow.core import Pause, moment_of
from ds_flow.system import DONE, put

HELP = "start nothing new for a while; running work ends by itself"
UNTIL = argument(
    "--until", metavar="TIME", help="when it ends: 06:30, 2026-05-01T06:30, or in 90m, 8h, 2d"
)
WHY = argument("--why", metavar="TEXT", default="", help="the reason, for people")
ARGUMENTS: Arguments = (UNTIL, WHY)

LONGEST_WHY = 200
UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}


def run(args: argparse.Namespace) -> int:
    from ds_flow.cli.project import load, now, open_ledger
    from ds_flow.cli.requests import wake, who
    from ds_flow.ledger import LINE

    settings, at = load(args), now()
    with open_ledger(settings, at) as ledger:
        pause = ledger.pauses.begin(LINE, asked_pause(args, who(), at), at)
        live = ledger.read.live_runs()
    put(pause.sentence)
    if live:
        put(f"work that runs ends by itself: {', '.join(run.run_id or run.batch for run in live)}")
    wake(settings)
    return DONE


def asked_pause(args: argparse.Namespace, user: str, at: datetime) -> Pause:
    """Read the terms of a pause. Raises UsageError if they make no sense."""
    why = " ".join(args.why.split())
    if len(why) > LONGEST_WHY or not why.isprintable():
        raise UsageError(f"pause: --why: at most {LONGEST_WHY} characters that can be printed")
    until_at = time_of(args.until, at) if args.until else None
    if until_at is not None and until_at <= at:
        raise UsageError(f"pause: --until {args.until} is not in the future")
    return Pause(since_at=at, until_at=until_at, who=user, why=why)


def time_of(words: str, at: datetime) -> datetime:
    """Read a time: of this day or the next, with its date, or as a span from now.

    A time without a zone is by this machine's clock. Raises UsageError if it is none.
    """
    if found := re.fullmatch(r"([1-9][0-9]{0,4})([mhd])", words):
        return at + int(found[1]) * UNITS[found[2]]
    try:
        if found := re.fullmatch(r"([0-2]?\d):([0-5]\d)", words):
            today = at.astimezone().replace(second=0, microsecond=0, tzinfo=None)
            shown = today.replace(hour=int(found[1]), minute=int(found[2]))
            until_at = moment_of(shown)
            return until_at if until_at > at else moment_of(shown + timedelta(days=1))
        given = datetime.fromisoformat(words)
    except (ValueError, OverflowError):
        raise UsageError(
            f"pause: --until {words!r} is no time; write 06:30, 2026-05-01T06:30, 90m, 8h or 2d"
        ) from None
    return given.astimezone(UTC) if given.tzinfo else moment_of(given)
