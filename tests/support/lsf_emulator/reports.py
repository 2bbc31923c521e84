"""The texts of the commands' answers, in both dialects."""

import getpass
import json
import os
import re
import time
from collections.abc import Callable, Sequence

from lsf_emulator.config import DISPLAY_ENH, Config
from lsf_emulator.elements import PENDING, REASONS, Element, View
from lsf_emulator.words import Refused

USER = getpass.getuser()
HOST = os.uname().nodename
RULE = "-" * 78

HEADER = "JOBID   USER    STAT  QUEUE      FROM_HOST   EXEC_HOST   JOB_NAME   SUBMIT_TIME"
WIDE = "{:<7} {:<7} {:<5.5} {:<10} {:<11} {:<11} {:<10} {}"
NARROW = "{:<7} {:<7.7} {:<5.5} {:<10.10} {:<11.11} {:<11.11} {:<10} {}"
NAME_COLUMNS = 10


def minute(at: float) -> str:
    return time.strftime("%b %e %H:%M", time.localtime(at)) if at else ""


def second(at: float) -> str:
    return time.strftime("%a %b %e %H:%M:%S", time.localtime(at))


def exec_host(view: View) -> str:
    slots = view.element.submission.slots
    return f"{slots}*{view.element.host}" if slots > 1 and view.element.host else view.element.host


FIELDS: dict[str, Callable[[View], str]] = {
    "jobindex": lambda view: str(view.element.index),
    "stat": lambda view: view.status,
    "user": lambda _: USER,
    "queue": lambda view: view.element.submission.queue,
    "job_name": lambda view: view.element.name,
    "proj_name": lambda view: view.element.submission.project,
    "exit_code": lambda view: view.exit_code_text,
    "exit_reason": lambda view: view.reason_text,
    "pend_reason": lambda view: (
        "New job is waiting for scheduling;" if view.status == "PEND" else ""
    ),
    "from_host": lambda _: HOST,
    "exec_host": exec_host,
    "slots": lambda view: str(view.element.submission.slots),
    "submit_time": lambda view: minute(view.element.submitted_at),
    "start_time": lambda view: minute(view.element.started_at),
    "finish_time": lambda view: minute(view.element.ended_at),
}
ALIASES = {"id": "jobid", "name": "job_name", "stat": "stat", "proj": "proj_name"}


def shown_id(element: Element, config: Config) -> str:
    """The JOBID column: without an element's index, unless the site's display is enhanced."""
    return element.native_id if config.is_on(DISPLAY_ENH) else str(element.job_id)


def table(views: Sequence[View], config: Config, *, wide: bool, reasons: bool = False) -> str:
    """The rows of a plain bjobs; long names lose their beginning where it is not wide."""
    lines = [HEADER] if views else []
    for view in views:
        name = view.element.name
        if not wide and len(name) > NAME_COLUMNS:
            name = "*" + name[1 - NAME_COLUMNS :]
        pending = "   -    " if wide else ""
        row = (WIDE if wide else NARROW).format(
            shown_id(view.element, config),
            USER,
            view.status,
            view.element.submission.queue,
            HOST,
            pending if view.status in PENDING else exec_host(view),
            name,
            minute(view.element.submitted_at),
        )
        lines.append(row.rstrip())
        if reasons:
            lines.append(" New job is waiting for scheduling;")
    return "".join(f"{line}\n" for line in lines)


def read_format(text: str) -> tuple[list[str], str]:
    """The fields of a -o argument, and its delimiter. Raises: Refused for an unknown field."""
    found = re.search(r"delimiter='(.)'", text)
    names = (text[: found.start()] + text[found.end() :] if found else text).split()
    fields = [name.partition(":")[0].lower() for name in names]
    fields = [ALIASES.get(field, field) for field in fields]
    for field in fields:
        if field not in FIELDS and field != "jobid":
            raise Refused(f"{field}: Unknown field name.\n")
    return fields, found[1] if found else " "


def values(view: View, fields: Sequence[str], config: Config) -> list[str]:
    return [
        shown_id(view.element, config) if field == "jobid" else FIELDS[field](view)
        for field in fields
    ]


def chosen(
    views: Sequence[View], form: tuple[list[str], str], config: Config, *, header: bool
) -> str:
    """The rows of `bjobs -o`; what is empty is shown as -."""
    fields, delimiter = form
    rows = [[field.upper() for field in fields]] if header and views else []
    rows += [[value or "-" for value in values(view, fields, config)] for view in views]
    return "".join(f"{delimiter.join(row)}\n" for row in rows)


def json_records(
    views: Sequence[View], unknown: Sequence[str], fields: Sequence[str], config: Config
) -> str:
    """The document of `bjobs -json`: every value a string, an unknown id a record with ERROR."""
    names = [field.upper() for field in fields]
    records = [dict(zip(names, values(view, fields, config), strict=True)) for view in views]
    records += [{"JOBID": text, "ERROR": f"Job <{text}> is not found"} for text in unknown]
    content = {"COMMAND": "bjobs", "JOBS": len(records), "RECORDS": records}
    return json.dumps(content, indent=2) + "\n"


def history(view: View) -> str:
    """One element's block of `bhist -l`, in lines of 80 columns that break anywhere."""
    element, words = view.element, view.element.submission
    tag = f"[{element.index}] " if element.index else ""
    who = f"Job <{element.native_id}>, Job Name <{element.name}>, User <{USER}>"
    what = f"Project <{words.project}>, Command <{words.script.strip()[:60]}>"
    how = f"Submitted from host <{HOST}>, to Queue <{words.queue}>, CWD <{words.cwd}>;"
    lines = [f"{who}, {what}", f"{second(element.submitted_at)}: {how}"]
    if element.started_at:
        at = second(element.started_at)
        lines.append(f"{at}: {tag}Dispatched to <{element.host}>;")
        lines.append(f"{at}: {tag}Starting (Pid {element.pid});")
    if view.status in {"UNKWN", "ZOMBI"}:
        lines.append(f"{second(time.time())}: Unknown; unable to reach the execution host;")
    lines += _end_lines(view)
    return "".join(_broken(line.replace("\n", ";")) for line in lines)


def _end_lines(view: View) -> list[str]:
    element, at = view.element, second(view.element.ended_at)
    if view.status == "DONE":
        return [f"{at}: Done successfully. The CPU time used is 0.1 seconds;"]
    if view.status != "EXIT":
        return []
    reason = f"; {view.reason}: {REASONS[view.reason]}" if view.reason else ""
    if view.exit_code is None:
        return [f"{at}: Exited{reason};"]
    how = f"by signal {element.signal}" if element.signal else f"with exit code {view.exit_code}"
    return [
        f"{at}: Exited {how}. The CPU time used is 0.1 seconds;",
        f"{at}: Completed <exit>{reason};",
    ]


def _broken(line: str) -> str:
    """A line as LSF folds it: after 79 columns, in the middle of words."""
    first, rest = line[:79], line[79:]
    more = [" " * 21 + rest[start : start + 58] for start in range(0, len(rest), 58)]
    return "".join(f"{part}\n" for part in [first, *more])


def report(element: Element) -> str:
    """What stands above a job's output in its -o file."""
    end = "Done" if element.status == "DONE" else "Exited"
    verdict = (
        "Successfully completed."
        if element.status == "DONE"
        else f"Exited with exit code {element.exit_code}."
    )
    reason = f"{element.reason}: {REASONS[element.reason]}.\n" if element.reason else ""
    return (
        f"Sender: LSF System <lsfadmin@{element.host}>\n"
        f"Subject: Job {element.native_id}: <{element.name}> in cluster <emulator> {end}\n\n"
        f"Job <{element.name}> was submitted from host <{HOST}> by user <{USER}> in cluster "
        f"<emulator>.\nYour job looked like:\n\n{'-' * 60}\n# LSBATCH: User input\n"
        f"{element.submission.script}\n{'-' * 60}\n\n{reason}{verdict}\n\n"
        "The output (if any) follows:\n\n"
    )
