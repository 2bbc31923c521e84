"""What a person asks for: it is recorded in the ledger, then done by the daemon or here."""

import os
from collections.abc import Callable, Collection, Iterable
from typing import TypeVar

from ds_flow.cli.process_now import process_now
from ds_flow.cli.project import now
from ds_flow.core import RequestError
from ds_flow.ledger import ask_ledger
from ds_flow.runs import pause_of
from ds_flow.settings import Settings
from ds_flow.system import DONE, put, running_pid, say, user_name, wake_daemon

LONGEST_NAME = 100

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
        if pause := ask_ledger(settings.ledger, lambda ledger: pause_of(settings, ledger, now())):
            say(f"{pause.sentence}; this is done after it")
        return DONE
    if no_wait:
        say("no daemon is running; the next `ds-flow serve` or `ds-flow once` does this")
        return DONE
    return process_now(settings, released)


def who() -> str:
    """Name the person at the keyboard, for people: whoever called sudo, too."""
    user, caller = user_name(os.geteuid()), os.environ.get("SUDO_USER", "")
    is_name = caller.isprintable() and 0 < len(caller) <= LONGEST_NAME
    return f"{caller} (as {user})" if is_name and caller != user else user


def wake(settings: Settings) -> bool:
    """Wake the daemon; False if there is none."""
    try:
        return wake_daemon(settings)
    except PermissionError:
        pid = running_pid(settings)
        say(f"the daemon (pid {pid}) belongs to another user; it does this when it next wakes up")
        return True
