"""What a person can do about each kind of trouble, in words, and what to type."""

import shlex
from typing import NamedTuple

from ds_flow.core.states import Cause


class Remedy(NamedTuple):
    """What to do, and the command that does it or tells more; "" if there is none."""

    text: str
    command: str = ""


def for_file(cause: str | None, path: str) -> Remedy:
    """Say what to do about a quarantined file. `path` is as in the ledger."""
    name = shlex.quote(path)
    release, explain = f"ds-flow release -- {name}", f"ds-flow explain -- {name}"
    match cause:
        case Cause.NAME:
            return Remedy("rename the file", explain)
        case Cause.GONE | Cause.CHANGED:
            return Remedy("put it into the inbox again", explain)
        case Cause.UNREADABLE:
            return Remedy("make it readable, then release it", release)
        case Cause.REJECTED:
            return Remedy("correct the file and put it into the inbox again, or remove it", explain)
    return Remedy("remove the cause, then release the file", release)
