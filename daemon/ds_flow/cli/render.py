"""The answers that are documents for programs, as pages for people."""

import csv
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ds_flow.core import counted
from ds_flow.system import Cell, put, put_table

Document = Mapping[str, Any]


def put_status(status: Document, dead: Iterable[str]) -> None:
    """Say what there is, whether it adds up, and what to do next; `dead` are batches."""
    daemon = status["daemon"]
    put(
        f"daemon     {'running, pid ' + str(daemon['pid']) if daemon['running'] else 'not running'}"
    )
    put(f"files      {status['discovered']}{_counts(status['files'])}")
    if status["arriving"]:
        put(f"arriving   {status['arriving']}")
    if status["ignored"]:
        put(f"ignored    {status['ignored']}")
    put(f"batches    {sum(status['batches'].values())}{_counts(status['batches'])}")
    put(f"runs       {sum(status['runs'].values())}{_counts(status['runs'])}")
    put(f"accounted  {'yes' if status['accounted'] else 'no: ' + status['reason']}")
    for path in status["unaccounted"]:
        put(f"           {path}")
    if status["low_space"]:
        put(f"low space  {status['low_space']}; no new batch starts")
    for why in status["held_back"]:
        put(f"held back  {why}")
    for advice in _advice(status, dead):
        put(f"next       {advice}")


def _counts(counts: Mapping[str, int]) -> str:
    named = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    return f": {named}" if named else ""


def _advice(status: Document, dead: Iterable[str]) -> Iterator[str]:
    files, batches = status["files"], status["batches"]
    live = files["waiting"] + status["arriving"] + len(status["unaccounted"])
    live += sum(batches.get(state, 0) for state in ("queued", "running", "retrying"))
    if live and not status["daemon"]["running"]:
        yield "start the daemon, or run `ds-flow once`"
    if files["quarantined"]:
        yield "`ds-flow files --state quarantined` says why files were set aside"
        yield from (f"`ds-flow retry {batch}` tries a dead batch again" for batch in dead)


def put_files(files: Iterable[Document]) -> None:
    """One line a version."""
    names = ("path", "version", "state", "size_bytes", "run_id", "reason")
    put_table(names, ([file[name] for name in names] for file in files))


def put_runs(runs: Iterable[Document]) -> None:
    """One line a run."""
    headings = ("run_id", "batch", "state", "trigger", "started_at", "inputs", "outputs", "error")
    put_table(headings, map(_run_row, runs))


def _run_row(run: Document) -> list[Cell]:
    batch = f"{run['batch']}/{run['attempt']}"
    first = [run["run_id"], batch, run["state"], run["trigger"], _moment(run["started_at"])]
    return [*first, len(run["inputs"]), len(run["outputs"]), run["error"]]


def _moment(at: str) -> str:
    """Shorten a time in UTC to whole seconds, in one word."""
    return f"{at[:19]}Z"


def put_schedules(schedules: Iterable[Document]) -> None:
    """One line a schedule."""
    headings = ("name", "cron", "timezone", "select", "next_at", "last_at", "outcome", "run_id")
    put_table((*headings, "detail"), map(_schedule_row, schedules))


def _schedule_row(one: Document) -> list[Cell]:
    times = [_moment(at) if (at := one[key]) else None for key in ("next_at", "last_at")]
    named = [one[key] for key in ("name", "cron", "timezone", "select")]
    return [*named, *times, *(one[key] for key in ("outcome", "run_id", "detail"))]


def put_run(run: Document) -> None:
    """One run at length."""
    _put_fields(run, RUN_FIELDS)
    manifest = run["manifest"]
    if manifest is None:
        _put_lines("inputs", run["inputs"])
        _put_lines("outputs", run["outputs"])
        return
    _put_fields(manifest, MANIFEST_FIELDS)
    for part, columns in MANIFEST_PARTS.items():
        if manifest[part]:
            put()
            put(part)
            rows = ([_cell(row.get(name)) for name in columns] for row in manifest[part])
            put_table(columns, rows)
    if analysis := manifest["analysis"]:
        why = analysis.get("error")
        heading = f"analysis failed: {why}" if why else "analysis"
        _put_lines(heading, analysis["stdout"].splitlines())


def _cell(value: Any) -> Cell:
    return ", ".join(value) if isinstance(value, list) else value


RUN_FIELDS = (
    *("run_id", "batch", "attempt", "state", "trigger", "started_at", "ended_at"),
    *("removed_at", "error"),
)
MANIFEST_FIELDS = (
    *("selection", "compared_with"),
    *("tag", "host", "user", "git_commit", "code_fingerprint", "settings_fingerprint"),
)
MANIFEST_PARTS = {
    "inputs": ("path", "version", "rows", "columns", "bytes"),
    "outputs": ("name", "rows", "bytes", "compared", "because", "sha256"),
    "rejected": ("path", "version", "cause", "line", "reason"),
    "jobs": ("stage", "backend", "round", "index", "host", "native_id", "exit_code"),
}


def _put_fields(document: Document, names: Iterable[str]) -> None:
    for name in names:
        if document.get(name) not in {None, ""}:
            put(f"{name:<22}{document[name]}")


def _put_lines(heading: str, lines: Iterable[str]) -> None:
    put()
    put(heading)
    for line in lines:
        put(f"  {line}")


def put_explanation(explanation: Document) -> None:
    """Where a file is and why, and what happened to it."""
    put(f"{explanation['path']}: {explanation['verdict']}")
    if explanation["next"]:
        put(f"next: {explanation['next']}")
    if explanation["events"]:
        put()
        rows = ([_moment(one["at"]), one["kind"], one["detail"]] for one in explanation["events"])
        put_table(("at", "kind", "detail"), rows)


def put_collected(answer: Document) -> None:
    """What was removed, or would be."""
    headings = ("would be removed" if answer["dry_run"] else "removed", "count", "MB")
    rows = (
        [what, one["count"], f"{one['bytes'] / 2**20:.1f}"]
        for what, one in answer["removed"].items()
    )
    put_table(headings, rows)
    if answer["runs"]:
        put(f"outputs of {counted(len(answer['runs']), 'run')}; --json names them")
    for why in answer["left"]:
        put(f"left: {why}")


def put_manifests(manifests: Iterable[Document]) -> None:
    """One line a published run."""
    headings = ("run_id", "published_at", "trigger", "inputs", "rows", "outputs", "rejected")
    put_table(
        headings,
        (
            [
                one["run_id"],
                _moment(one["published_at"]),
                one["trigger"],
                len(one["inputs"]),
                sum(item["rows"] for item in one["inputs"]),
                len(one["outputs"]),
                len(one["rejected"]),
            ]
            for one in manifests
        ),
    )


def put_manifests_csv(manifests: Iterable[Document]) -> None:
    """One line an output, the same columns for ever; the combined file has no source."""
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(CSV_COLUMNS)
    for one in manifests:
        versions = {item["path"]: item["version"] for item in one["inputs"]}
        for out in one["outputs"]:
            named = [out["name"], out["source"], versions.get(out["source"])]
            sizes = [out["rows"], out["bytes"], out["sha256"]]
            table.writerow([one["run_id"], one["published_at"], *named, *sizes])


CSV_COLUMNS = ("run_id", "published_at", "output", "source", "version", "rows", "bytes", "sha256")
