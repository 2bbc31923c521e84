"""What a person asks for: it is recorded in the ledger, then done by the daemon or here."""

from collections.abc import Callable, Collection, Iterable
from typing import TypeVar

from ds_flow.cli.process_now import process_now
from ds_flow.core import RequestError
from ds_flow.settings import Settings
from ds_flow.system import DONE, put, running_pid, say, wake_daemon

Item = TypeVar("Item")


def record_each(items: Iterable[Item], record: Callable[[Item], str]) -> tuple[int, int]:
    """Record one request for each item and print the result; how many were taken, and refused."""
    recorded = refused = 0
    for item in items:
        try:
            put(record(item))
            recorded += 1
        except RequestError as error:
            say(str(error))
            refused += 1
    return recorded, refused


def carry_out(settings: Settings, *, no_wait: bool, released: Collection[int] = ()) -> int:
    """Have recorded requests done, by the daemon or else here; the exit code."""
    if wake(settings):
        return DONE
    if no_wait:
        say("no daemon is running; the next `ds-flow serve` or `ds-flow once` does this")
        return DONE
    return process_now(settings, released)


def wake(settings: Settings) -> bool:
    """Wake the daemon; False if there is none."""
    try:
        return wake_daemon(settings)
    except PermissionError:
        pid = running_pid(settings)
        say(f"the daemon (pid {pid}) belongs to another user; it does this when it next wakes up")
        return True
