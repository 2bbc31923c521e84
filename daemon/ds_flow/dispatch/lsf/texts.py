"""The arguments of LSF's commands, and what they print: IBM's, and older ones without -json."""

import json
import math
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ds_flow.core import FailureClass, JobState, LsfSite
from ds_flow.dispatch.cluster import Row, Terms, end_of_term
from ds_flow.dispatch.exit_codes import RUN_LIMIT_REACHED, End, of_exit_code, signal_of
from ds_flow.dispatch.rounds import RUN_JOB, JobSpec

# IBM's bjobs(1), lsf_admin/terms. UNKWN and ZOMBI: its host is out of sight, it may be alive.
STATES: dict[str, JobState] = {
    **dict.fromkeys(("PEND", "PROV", "WAIT", "PSUSP"), JobState.PENDING),
    **dict.fromkeys(("RUN", "USUSP", "SSUSP"), JobState.RUNNING),
    **dict.fromkeys(("UNKWN", "ZOMBI"), JobState.UNKNOWN),
    **dict.fromkeys(("DONE", "PDONE", "POST_DONE"), JobState.SUCCEEDED),
    **dict.fromkeys(("EXIT", "PERR", "POST_ERR"), JobState.FAILED),
}

# lsf_admin/termination_reasons_lsf. Any other reason counts as infrastructure.
REASONS: Terms = {
    "TERM_MEMLIMIT": (FailureClass.MEMORY, "memory limit reached"),
    "TERM_SWAP": (FailureClass.MEMORY, "the site's swap limit reached"),
    "TERM_RUNLIMIT": (FailureClass.LIMIT, RUN_LIMIT_REACHED),
    "TERM_CPULIMIT": (FailureClass.LIMIT, "the site's CPU limit reached"),
    "TERM_DEADLINE": (FailureClass.LIMIT, "the site's deadline for this queue reached"),
    "TERM_OWNER": (FailureClass.BY_HAND, "ended by its owner (bkill)"),
    "TERM_FORCE_OWNER": (FailureClass.BY_HAND, "ended by its owner (bkill -r)"),
    "TERM_ADMIN": (FailureClass.BY_HAND, "ended by an administrator (bkill)"),
    "TERM_FORCE_ADMIN": (FailureClass.BY_HAND, "ended by an administrator (bkill -r)"),
    "TERM_EXTERNAL_SIGNAL": (FailureClass.KILLED, "killed by a signal from outside LSF"),
}
RUN_LIMIT_EXIT_CODE = 140  # 128 + SIGUSR2, which comes at the run limit
START_EXIT_CODES = frozenset({126, 127})  # not executable; not there: a file system is missing

ACCEPTED = re.compile(r"Job <(\d+)> is submitted")
TOO_LARGE = re.compile(r"index too large|array.{0,40}(too large|exceed)", re.IGNORECASE)
# It quotes the value with its unit, or speaks of memory or resources: openlava says "MEMLIMT".
BAD_UNIT = re.compile(r"\b\d+MB\b|MEMLIM|memory|resource requirement", re.IGNORECASE)
BEYOND_LIMIT = re.compile(r"MEMLIM\w*:.*exceed", re.IGNORECASE)  # more than the queue gives
NO_SUCH_OPTION = re.compile(r"(illegal|invalid|unknown|unrecognized) option|Usage:", re.IGNORECASE)
REFUSED = re.compile(rf"not submitted|{NO_SUCH_OPTION.pattern}", re.IGNORECASE)
NOT_THERE = re.compile(r"is not found|No (unfinished |matching )?job found", re.IGNORECASE)

REASONS_KEPT, REASON_CHARACTERS = 5, 200  # of a round, and of each
MAXMEM = 5  # HOST_NAME type model cpuf ncpus maxmem ...; lshosts(1)
SIZE = re.compile(r"(\d+(?:\.\d+)?)([MGT])")
IDLE = frozenset({"PEND", "PROV", "WAIT", "PSUSP", "USUSP", "SSUSP"})  # no progress, and no fault
UNITS_MB = {"M": 1, "G": 2**10, "T": 2**20}

FIELDS = "jobid jobindex stat exit_code exit_reason job_name"


# --------------------------------------------------------------------------- arguments


def bsub_command(
    name: str, count: int, job: JobSpec, folder: Path, site: LsfSite, *, plain: bool
) -> list[str]:
    """The arguments of a bsub whose script comes on standard input. -W has no seconds."""
    throttle = f"%{site.throttle}" if site.throttle else ""
    slots = job.cpus if site.memory_per == "slot" else 1
    unit = "" if plain else "MB"
    reserved = f"{math.ceil(job.memory_mb / slots)}{unit}"
    limit = f"{job.memory_mb * 1024}" if plain else f"{job.memory_mb}MB"  # KB without a unit
    return [
        "bsub",
        *("-J", f"{name}[1-{count}]{throttle}"),
        *("-q", job.queue),
        *("-n", f"{job.cpus}"),
        *("-R", f"span[hosts=1] rusage[mem={reserved}]"),
        *("-M", limit),
        *("-W", f"{math.ceil(job.limit_minutes)}"),
        *("-o", str(folder / "lsf.out")),
        *(("-P", site.project) if site.project else ()),
        *site.extra,
        *job.extra,
    ]


def bsub_script(folder: Path, offset: int) -> str:
    """The script of a chunk: element i runs job i + offset of the round."""
    words = ("exec", "bash", shlex.quote(str(RUN_JOB)), shlex.quote(str(folder)))
    return f"#!/bin/sh\n{' '.join(words)} $((LSB_JOBINDEX + {offset}))\n"


# --------------------------------------------------------------------------- output


def rows_in_json(text: str) -> list[Row] | None:
    """The rows of `bjobs -json`, with any text before and after it. None if there is no JSON."""
    for start in re.finditer(r"^\s*\{", text, re.MULTILINE):
        try:
            found, _ = json.JSONDecoder().raw_decode(text, start.end() - 1)
        except ValueError:
            continue
        records = found.get("RECORDS") if isinstance(found, dict) else None
        if isinstance(records, list):
            return [row for record in records for row in _json_row(record)]
    return None


def _json_row(record: Any) -> Iterator[Row]:
    """The row of a record, if it is an array element. Its index is in one of three places."""
    if not isinstance(record, dict):
        return
    words = {str(key): str(value) for key, value in record.items()}
    job_id, _, shown = words.get("JOBID", "").partition("[")
    named = re.search(r"\[(\d+)\]$", words.get("JOB_NAME", ""))
    for text in (words.get("JOBINDEX", ""), shown.removesuffix("]"), named[1] if named else ""):
        if text.isdecimal() and int(text) and job_id.isdecimal():
            yield _row(
                job_id,
                int(text),
                words.get("STAT", ""),
                words.get("EXIT_CODE", ""),
                words.get("EXIT_REASON", ""),
            )
            return


def rows_in_table(text: str, name: str) -> list[Row]:
    """The rows of `bjobs -w` for the elements of one name."""
    pattern = re.compile(
        rf"^(\d+)(?:\[\d+\])?\s+\S+\s+([A-Z_]+)\s.*\s{re.escape(name)}\[(\d+)\]", re.MULTILINE
    )
    return [
        _row(found[1], int(found[3]), found[2])
        for found in map(pattern.match, text.splitlines())
        if found
    ]


def _row(job_id: str, index: int, status: str, exit_code: str = "", reason: str = "") -> Row:
    term = re.match(r"TERM_[A-Z_]+", reason.strip())
    return Row(
        job_id=job_id,
        index=index,
        state=STATES.get(status, JobState.UNKNOWN),  # a word that the manual does not have
        status=status,
        is_idle=status in IDLE,
        exit_code=int(exit_code) if exit_code.strip().isdecimal() else None,
        term=term[0] if term else "",
    )


def rows_in_history(text: str) -> list[Row]:
    """The rows of `bhist -l`, which breaks lines anywhere."""
    unfolded = re.sub(r"\n {21}", "", text)
    blocks = re.split(r"^-{20,}$", unfolded, flags=re.MULTILINE)
    return [row for block in blocks if (row := _history_row(block))]


def _history_row(block: str) -> Row | None:
    job = re.search(r"^\s*Job <(\d+)\[(\d+)\]>", block, re.MULTILINE)
    if job is None:
        return None
    end = re.search(r"Done successfully|Exited(?: with exit code (\d+)| by signal (\d+))?", block)
    term = re.search(r"TERM_[A-Z_]+", block)
    code, number = (end[1], end[2]) if end else (None, None)
    ended = JobState.FAILED if end and end[0].startswith("Exited") else JobState.SUCCEEDED
    return Row(
        job_id=job[1],
        index=int(job[2]),
        state=ended if end else JobState.UNKNOWN,
        status="bhist",
        exit_code=int(code) if code else 128 + int(number) if number else None,
        term=term[0] if term else "",
    )


def pending_reasons(text: str) -> list[str]:
    """The reasons in the output of `bjobs -p`: the indented lines below each job's row.

    IBM's may be headings, each with the reasons of some hosts below it, so the order is kept.
    """
    lines = (line.strip().rstrip(";") for line in text.splitlines() if line[:1].isspace())
    found = dict.fromkeys(line[:REASON_CHARACTERS] for line in lines if line)
    return list(found)[:REASONS_KEPT]


def largest_host_mb(text: str) -> int | None:
    """The memory of the largest host in the output of `lshosts -w`. None if it names none."""
    rows = (line.split() for line in text.splitlines())
    sizes = [SIZE.fullmatch(row[MAXMEM]) for row in rows if len(row) > MAXMEM]
    found = [int(float(size[1]) * UNITS_MB[size[2]]) for size in sizes if size]
    return max(found, default=None)


def ids_in(text: str) -> set[str]:
    """Every job id in the output of bjobs or bhist."""
    return set(re.findall(r"^(?:\s*Job <)?(\d+)(?=[\s\[>])", text, re.MULTILINE))


# --------------------------------------------------------------------------- ends


def end_with_code(code: int, row: Row | None) -> End:
    """Why a job with an exit code ended. LSF's reason distinguishes kinds of kills."""
    if code and row and (known := end_of_term(row.term, REASONS)):
        return known
    if code == RUN_LIMIT_EXIT_CODE:
        return REASONS["TERM_RUNLIMIT"]
    return of_exit_code(code)


def end_without_code(row: Row | None) -> End:
    """Why a job without an exit code ended. It has not succeeded, whatever LSF says."""
    if row is None:
        return FailureClass.INFRASTRUCTURE, "LSF no longer knows it, and it left no exit code"
    if known := end_of_term(row.term, REASONS):
        return known
    if row.term:
        return FailureClass.INFRASTRUCTURE, f"LSF ended it: {row.term}"
    if row.state == JobState.SUCCEEDED:
        why = "LSF says done, but it left no exit code: is the work directory seen from its host?"
        return FailureClass.INFRASTRUCTURE, why
    if row.exit_code == RUN_LIMIT_EXIT_CODE:
        return REASONS["TERM_RUNLIMIT"]
    if row.exit_code in START_EXIT_CODES:
        why = f"it could not be started on its host (exit code {row.exit_code}): is bash there?"
        return FailureClass.INFRASTRUCTURE, why
    if row.exit_code is not None and signal_of(row.exit_code):
        return of_exit_code(row.exit_code)
    return FailureClass.INFRASTRUCTURE, f"exit code {row.exit_code}, and none was left on disk"
