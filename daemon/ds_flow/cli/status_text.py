"""`ds-flow status` as people read it: lines for a terminal of a given width."""

import shlex
import textwrap
from collections.abc import Iterable, Iterator, Mapping

from ds_flow.core import Document, counted, moment
from ds_flow.dispatch import StageJobs, told
from ds_flow.inbox import told as how_far

LABEL = 11  # columns before the text of a line
NAMED = 5  # large files that are being read; fires
DETAIL = 200  # characters of what a fire says; it may name many files

VERDICTS = {"ok": "all is well", "attention": "needs a person", "down": "down"}
BAD = frozenset({"failed", "timed_out", "lost", "stopped"})


def status_lines(
    status: Document, width: int | None = None, config: str | None = None
) -> Iterator[str]:
    """Write the document for people; `width`: where long lines are folded, None for nowhere.

    Commands are for the project of `config`: the file that the person has named, if any.
    """
    for label, text in _facts(status):
        yield from _folded(label, text, width)
    for number, one in enumerate(status["problems"], 1):
        yield ""
        yield from _problem(number, _for_project(one, config), width)


def _folded(label: str, text: str, width: int | None) -> Iterator[str]:
    start = f"{label:<{LABEL}}"
    if width is None or len(start) + len(text) <= width:
        yield f"{start}{text}".rstrip()
        return
    yield from textwrap.wrap(
        text,
        width,
        initial_indent=start,
        subsequent_indent=" " * LABEL,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _for_project(one: Document, config: str | None) -> Document:
    name, space, rest = one["command"].partition(" ")
    if config is None or name != "ds-flow":
        return one
    return {**one, "command": f"{name} --config {shlex.quote(config)}{space}{rest}"}


def _problem(number: int, one: Document, width: int | None) -> Iterator[str]:
    """Write what, what to do, and what to type. A command is never folded: it is to be copied."""
    label = f"{number:>2} {'do now' if one['needs_person'] else 'note'}"
    since = f" (since {moment(one['since'])})" if one["since"] else ""
    yield from _folded(label, f"{' '.join(one['text'].split())}{since}", width)
    if one["remedy"]:
        yield from _folded("   remedy", one["remedy"], width)
    if one["command"]:
        yield f"   type    {one['command']}"


# --------------------------------------------------------------------------- facts


def _facts(status: Document) -> Iterator[tuple[str, str]]:
    """Give each line of the upper part: its label and its text."""
    daemon = status["daemon"]
    yield "status", _verdict(status)
    yield "daemon", f"running, pid {daemon['pid']}" if daemon["running"] else "not running"
    if paused := status["paused"]:
        yield "paused", _paused(paused)
    yield from _engine(status["engine"])
    yield "files", f"{status['discovered']}{_counts(status['files'])}"
    yield from _inbox(status)
    yield from (("set", one["text"]) for one in status["sets"][:NAMED])
    yield "batches", f"{sum(status['batches'].values())}{_counts(_batches(status))}"
    yield "runs", f"{sum(status['runs'].values())}{_counts(status['runs'])}"
    yield "accounted", "yes" if status["accounted"] else f"no: {status['reason']}"
    yield from (("", path) for path in status["unaccounted"])
    yield from (("jobs", words) for words in _jobs_told(status["jobs"]))
    if status["low_space"]:
        yield "low space", f"{status['low_space']}; no new batch starts"
    yield from (("held back", why) for why in status["held_back"])
    yield from _analyses(status)
    yield from _drift(status)
    yield from _night(status)


def _verdict(status: Document) -> str:
    urgent = sum(one["needs_person"] for one in status["problems"])
    words = VERDICTS[status["verdict"]]
    return f"{words}: {counted(urgent, 'thing')} to do, below" if urgent else words


def _paused(pause: Document) -> str:
    until = f"until {moment(pause['until_at'])}" if pause["until_at"] else "until `ds-flow resume`"
    why = f": {pause['why']}" if pause["why"] else ""
    return f"since {moment(pause['since_at'])} by {pause['who']}, {until}{why}"


def _engine(engine: Document) -> Iterator[tuple[str, str]]:
    for one in engine["backends"]:
        if one["backend"] == "local":
            continue
        state = {"answers": "answers", "silent": "DOES NOT ANSWER", "unknown": "not asked yet"}
        since = f" since {moment(one['since'])}" if one["since"] else ""
        why = f": {' '.join(one['why'].split())}" if one["why"] else ""
        stages = ", ".join(one["stages"])
        yield "engine", f"{one['backend']} ({stages}) {state[one['state']]}{since}{why}"


def _batches(status: Document) -> dict[str, int]:
    """Count dead batches that were made up for as what they are."""
    repaired = status["batches_repaired"]
    counts = dict(status["batches"])
    if repaired:
        counts["dead"] -= repaired
        counts["repaired"] = repaired
    return counts


def _inbox(status: Document) -> Iterator[tuple[str, str]]:
    if status["arriving"]:
        unmarked = status["unmarked"]
        waits = f", {counted(unmarked, 'file')} without a marker" if unmarked else ""
        yield "arriving", f"{status['arriving']}{waits}"
    if status["ignored"]:
        yield "ignored", str(status["ignored"])
    if status["ignored_paths"]:
        names = [one["path"] for one in status["ignored_paths"]]
        more = f", and {len(names) - NAMED} more" if len(names) > NAMED else ""
        yield "no input", f"{', '.join(names[:NAMED])}{more}: no pattern matches"
    if status["looked_at"]:
        yield "looked", f"{status['looked_at']}, by the daemon: the inbox is large"
    for one in status["reading"][:NAMED]:
        yield "reading", f"{one['path']}: {how_far(one['read_bytes'], one['size_bytes'])}"


def _jobs_told(jobs: Iterable[Document]) -> Iterator[str]:
    for row in jobs:
        stage = {name: row[name] for name in row if name not in {"batch", "run_id"}}
        yield f"{row['batch']}: {told(StageJobs(**stage))}"


def _analyses(status: Document) -> Iterator[tuple[str, str]]:
    if status["analyses_failed"]:
        yield "analyses", f"{status['analyses_failed']} failed"
    for one in status["failed_analyses"]:
        yield "", f"run {one['run_id']}: {one['analysis_error']}"


def _drift(status: Document) -> Iterator[tuple[str, str]]:
    """Count them; the notes below name them."""
    if status["drifted"]:
        yield "drift", f"{counted(status['drifted'], 'file')} unlike those before, in a week"


def _night(status: Document) -> Iterator[tuple[str, str]]:
    night = status["last_night"]
    runs = counted(night["runs"], "run")
    parts = [
        runs,
        f"{counted(night['files'], 'file')} and {counted(night['rows'], 'row')} published",
    ]
    if night["failures"]:
        repaired = f", {night['repaired']} of them repaired" if night["repaired"] else ""
        parts.append(f"{counted(night['failures'], 'failure')}{repaired}")
    if night["set_aside"]:
        parts.append(f"{counted(night['set_aside'], 'file')} set aside")
    yield "last 24 h", "; ".join(parts)
    for fire in night["fires"][:NAMED]:
        yield "fired", _fire(fire)
    if coming := status["next_fire"]:
        yield "next fire", f"{coming['schedule']} at {moment(coming['at'])}"
    if newest := status["newest_combined"]:
        rows = counted(newest["rows"], "row")
        yield "newest", f"{newest['file']}, {rows}, {moment(newest['published_at'])}"


def _fire(fire: Document) -> str:
    run = f" {fire['run_id']} {fire['run_state']}" if fire["run_id"] else ""
    said = fire["detail"] or ""
    cut = f"{said[:DETAIL]}… (all of it: `ds-flow schedule`)" if len(said) > DETAIL else said
    detail = f": {cut}" if cut else ""
    return f"{fire['schedule']} at {moment(fire['at'])}: {fire['outcome']}{run}{detail}"


def _counts(counts: Mapping[str, int]) -> str:
    listed = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    return f": {listed}" if listed else ""
