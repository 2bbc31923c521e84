"""Alerts as a person reads them: what happened to what, why, what to do, and what to type.

Much of that text was written by strangers, in file names and cells. It goes to chats, where some
of it would be a link, an image or a call of everybody. So it is tamed first.
"""

import re
import socket

from ds_flow.core import for_event, moment, printable
from ds_flow.ledger import Alert, Told
from ds_flow.settings import Settings
from ds_flow.system import mask

SAID = {
    "analysis.failed": "an analysis failed; the data is published",
    "backend.silent": "a backend does not answer; runs wait for it",
    "batch.dead": "a batch has used up its attempts",
    "batch.drifted": "files differ from those before them; they are published all the same",
    "batch.held_back": "a batch cannot start; it goes on by itself once the cause is removed",
    "delivery.failing": "a published run cannot be handed over; later ones wait behind it",
    "file.left_out": "a rerun left files out that were published before",
    "file.misnamed": "files came that are not read, because of their names",
    "file.quarantined": "files were set aside",
    "file.unmarked": "files wait for their markers",
    "files.missing": "expected files did not come",
    "marker.alone": "markers came without their files",
    "line.paused": "nothing new starts: a pause began, or its terms were changed",
    "line.resumed": "a pause is over; what waited starts",
    "report.written": "the daily report was written",
    "schedule.caught_up": "a schedule was missed, and has been caught up",
    "schedule.missed": "a schedule was missed",
    "schedule.paused": "a schedule does not fire: a pause began, or its terms were changed",
    "schedule.resumed": "the pause of a schedule is over",
    "set.incomplete": "sets were formed although files of them are missing",
    "settings.refused": "changed settings were refused; the old ones are in force",
    "space.low": "space is low; no new batch starts",
}
"""The kinds of events that people are alerted to, each with a sentence."""

LINE_CHARACTERS = 300  # of what a stranger may have written
SUBJECT_CHARACTERS = 150
SAFE_COMMAND = re.compile(r"[\w ./+=:-]{1,200}", re.ASCII)
"""A command that says in every chat what it says here. Others name no file."""

GAP = "\u200b"  # a space of no width: it parts what a chat would take together
TAMED = (
    (re.compile(r"<"), "\u2039"),
    (re.compile(r">"), "\u203a"),
    (re.compile(r"`"), "'"),
    (re.compile(r"([@#!])(?=\S)"), rf"\1{GAP}"),
    (re.compile(r"(?<=\])(?=[(\[:])"), GAP),
    (re.compile(r"(?<=:)(?=//)"), GAP),
    (re.compile(r"(?i)(www|mailto)(?=[.:])"), rf"\1{GAP}"),
)


def tame(text: str, most: int = LINE_CHARACTERS) -> str:
    """Make one short line of a text in which no chat finds a mention, a link, an image or code."""
    line = printable(" ".join(text.split()))
    line = f"{line[:most]}…" if len(line) > most else line
    for found, instead in TAMED:
        line = found.sub(instead, line)
    return line


def subject_of(settings: Settings, alert: Alert) -> str:
    """Write the alert in one line, such as for the subject of a mail."""
    first = alert.examples[0] if alert.examples else ""
    said = f"{settings.project_name}: {SAID[alert.kind]}"
    masked = mask(first, settings.secrets)
    return tame(f"{said}: {masked}" if masked else said, SUBJECT_CHARACTERS)


def text_of(settings: Settings, alert: Alert) -> str:
    """Write the alert for a person, in lines."""
    times = f" ({alert.count} times)" if alert.count > 1 else ""
    where = tame(f"{settings.project_name} on {socket.gethostname()}")
    lines = [f"ds-flow, {where}: {SAID[alert.kind]}{times}."]
    told = alert.told or tuple(Told("", None, "", "", one) for one in alert.examples)
    for one in told:
        lines += _event(settings, alert.kind, one)
    if alert.count > len(told):
        more = f"{alert.count - len(told)} more since {_time(alert.first_at)}"
        lines.append(f"And {more}: `{_list_of(alert.kind)}`")
    return "\n".join(lines)


def _event(settings: Settings, kind: str, one: Told) -> list[str]:
    """Say of one event what happened, what to do, and what to type."""
    remedy = for_event(kind, one.path, one.cause, one.batch, one.run_id)
    what = one.path or (f"batch {one.batch}" if one.batch else "")
    said = ": ".join(filter(None, (what, mask(one.detail, settings.secrets))))
    is_safe = SAFE_COMMAND.fullmatch(remedy.command) is not None
    return [
        f"• {tame(said)}",
        f"   To do: {remedy.text}.",
        f"   Type: `{remedy.command if is_safe else _list_of(kind)}`",
    ]


def _list_of(kind: str) -> str:
    """The command that shows all things of a kind."""
    is_of_files = kind in {"file.quarantined", "file.left_out"}
    return "ds-flow files --state quarantined" if is_of_files else "ds-flow status"


def _time(at: str) -> str:
    try:
        return moment(at)
    except ValueError:
        return at
