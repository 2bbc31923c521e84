"""What can be wrong with a cluster: each fault is switched on and off while it runs."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lsf_emulator.elements import STARTED, Element, View

Name = Literal[
    "down",  # mbatchd is out of reach: mode=wait|fail, stream=stderr|stdout, commands=[...]
    "hung",  # it is silent, and does what it was asked when mended: commands=[...]
    "reply_lost",  # bsub is accepted, and the client does not say so: how=hang|exit|kill
    "twice",  # bsub is accepted twice
    "rejected",  # bsub is refused: text=
    "noise",  # lines before the answer: stdout=, stderr=, commands=[...]
    "empty",  # bjobs says nothing and exits 0
    "shuffled",  # bjobs' rows come in random order
    "fresh_hidden",  # jobs are missing from bjobs for so long: seconds=
    "forgotten",  # jobs are gone from bjobs and bhist: job=, indices=
    "unknown",  # hosts have lost contact: UNKWN, or ZOMBI once killed: job=, indices=
    "shown",  # another state is told: status=, exit_code=, reason=, instead_of=[...]
    "in_progress",  # bkill of a whole array says that it is in progress, and exits 255
    "late_exit",  # a job's *.exit file is seen late: seconds=
]

COMMANDS = ("bsub", "bjobs", "bkill", "bhist")

SLOW_MV = """#!/bin/sh
# A file system that shows a job's exit code late: mv returns, and the file is not there yet.
for last; do :; done
case $last in
*.exit) (trap '' HUP && sleep {seconds} && exec {mv} "$@") </dev/null >/dev/null 2>&1 & ;;
*) exec {mv} "$@" ;;
esac
"""


@dataclass(slots=True)
class Fault:
    name: str
    arguments: dict[str, Any]
    since: float = field(default_factory=time.time)

    def concerns(self, element: Element) -> bool:
        """Whether it is about this element; about all where none is named."""
        of_these: bool = element.index in self.arguments.get("indices", [element.index])
        job_id: int = self.arguments.get("job", element.job_id)
        return of_these and element.job_id == job_id


class Faults:
    """The faults that are on now."""

    def __init__(self) -> None:
        self._on: dict[str, Fault] = {}

    def put(self, name: str, arguments: dict[str, Any]) -> None:
        self._on[name] = Fault(name, arguments)

    def mend(self, name: str) -> None:
        self._on.pop(name, None)

    def get(self, name: Name, element: Element | None = None) -> Fault | None:
        """A fault that is on, and is about this element if one is given."""
        fault = self._on.get(name)
        return None if fault and element and not fault.concerns(element) else fault

    def strike(self, name: Name, command: str) -> Fault | None:
        """A fault that befalls this call; it counts down those that are on for some `times`."""
        fault = self._on.get(name)
        if fault is None or command not in fault.arguments.get("commands", COMMANDS):
            return None
        if "times" in fault.arguments:
            fault.arguments["times"] -= 1
            if fault.arguments["times"] <= 0:
                self.mend(name)
        return fault

    def view(self, element: Element) -> View:
        """What the scheduler says of an element."""
        status = element.status
        if self.is_out_of_contact(element):
            return View(element, "ZOMBI" if element.reason else "UNKWN", None, "")
        shown = self.get("shown", element)
        if shown and status in shown.arguments.get("instead_of", [status]):
            wrong = shown.arguments
            return View(element, wrong["status"], wrong.get("exit_code"), wrong.get("reason", ""))
        return View(element, status, element.exit_code, element.reason if element.has_ended else "")

    def is_out_of_contact(self, element: Element) -> bool:
        """Whether the element's host is lost: what happens there is learnt when it is mended."""
        fault = self.get("unknown", element)
        if fault is None or not element.started_at:
            return False
        return element.status in STARTED or element.ended_at >= fault.since

    def is_hidden(self, element: Element, now: float) -> bool:
        """Whether bjobs leaves the element out."""
        fresh = self.get("fresh_hidden", element)
        return fresh is not None and now - element.submitted_at < fresh.arguments["seconds"]


def write_slow_mv(folder: Path, mv: str, seconds: float) -> None:
    """Put a slow `mv` where jobs that start from now on find it first."""
    folder.mkdir(exist_ok=True)
    part = folder / ".mv"
    part.write_text(SLOW_MV.format(mv=mv, seconds=seconds), encoding="utf-8")
    part.chmod(0o755)
    part.replace(folder / "mv")
