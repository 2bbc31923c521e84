"""Reports: one run, or all of a span, as one document and as one HTML file."""

import base64
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime, timedelta
from importlib.resources import files

from ds_flow.core import Document, DsFlowError, RunState, counted, for_file, moment
from ds_flow.ledger import Ledger, RunOutput, RunRow
from ds_flow.settings import Settings
from ds_flow.system import read_json
from ds_flow.views.charts import Column, columns, gantt
from ds_flow.views.run import whole_run
from ds_flow.work import find_manifest

LISTED = 500  # rows of each table; the others are counted
READ = 1000  # manifests of a span
COLUMNS = 24  # of a chart
BARS = 20
PREVIEWS = 20  # of inputs

Lists = dict[str, list[Document]]


def run_report(settings: Settings, ledger: Ledger, row: RunRow, now: datetime) -> Document:
    """Tell of one run."""
    run = whole_run(settings, ledger, row)
    manifest = run["manifest"] or {}
    outputs = manifest.get("outputs", [])
    lists = {
        "inputs": manifest.get("inputs") or [{"path": path} for path in run["inputs"]],
        "set_aside": [_told(one) for one in manifest.get("rejected", ())],
        "drift": manifest.get("drift", []),
        "changes": _changes(outputs),
        "runs": [],
    }
    own = [one for one in outputs if one["source"]]
    return {
        "kind": "run",
        "title": f"Run {run['run_id'] or row.batch}",
        **_head(settings, now),
        "problems": [
            *_run_problems(run),
            *_problems(len(lists["set_aside"]), len(lists["drift"])),
        ],
        "facts": [
            _fact("state", row.state),
            _fact("trigger", row.trigger),
            _fact("started", _when(row.started_at)),
            _fact("took", _took(row.started_at, row.ended_at or now.isoformat())),
            *_sizes(len(run["inputs"]), len(lists["set_aside"]), own, outputs),
            _fact("batch", f"{row.batch}, attempt {row.attempt}"),
        ],
        "charts": [*_rows_chart(own), *gantt("Jobs", run["jobs"])],
        "profile": _previews(run["profile"]),
        "analysis": (run["analysis"] or {}).get("stdout", ""),
        "note": "",
        **_cut(lists),
    }


def _sizes(
    files_in: int, aside: int, own: Sequence[Document], outputs: Sequence[Document]
) -> Iterator[Document]:
    yield _fact("files in", files_in)
    yield _fact("set aside", aside)
    yield _fact("rows", sum(one["rows"] for one in own))
    yield _fact("bytes published", sum(one["bytes"] for one in outputs))


def span_report(settings: Settings, ledger: Ledger, since: datetime, now: datetime) -> Document:
    """Tell of all that happened after a time."""
    runs, outputs = ledger.figures.runs(since), ledger.figures.outputs(since)
    count, aside = ledger.figures.set_aside(since, LISTED)
    manifests = [*_manifests(settings, runs)]
    lists: Lists = {
        "runs": [asdict(row) for row in runs],
        "set_aside": [_told(asdict(one)) for one in aside],
        "drift": [one for manifest in manifests for one in manifest.get("drift", ())],
        "changes": [one for manifest in manifests for one in _changes(manifest["outputs"])],
        "inputs": [],
    }
    failed = _failed(runs)
    rows = [(one.ended_at, one.rows) for one in outputs]
    files_out = [(one.ended_at, one.files) for one in outputs]
    cut = _cut(lists)
    return {
        "kind": "span",
        "title": f"{_when(since.isoformat())} to {_when(now.isoformat())}",
        **_head(settings, now),
        "problems": [
            *(f"{counted(number, 'run')} {state}" for state, number in failed.items()),
            *_problems(count, len(lists["drift"])),
        ],
        "facts": [
            _fact("files arrived", ledger.figures.arrived(since)),
            _fact("set aside", count),
            *_span_facts(outputs),
            _fact("runs", len(runs)),
            _fact("runs without success", failed.total()),
            _fact("runs repaired by a later one", _failed_at_first(runs) - failed.total()),
        ],
        "charts": [
            *_over_time("Rows published", rows, since, now),
            *_over_time("Files published", files_out, since, now),
        ],
        "profile": None,
        "analysis": "",
        "note": _left_unread(runs),
        **cut,
        "more": {**cut["more"], "set_aside": count - len(aside)},
    }


def _previews(profile: Document | None) -> Document | None:
    """The combined file and the first inputs, with the number of the others."""
    if profile is None:
        return None
    shown = profile["inputs"][:PREVIEWS]
    left_out = profile["left_out"] + len(profile["inputs"]) - len(shown)
    return {**profile, "inputs": shown, "left_out": left_out}


def _failed(runs: Sequence[RunRow]) -> Counter[str]:
    """The runs without success, by their end, except those whose batch was published all the same.

    A batch that is tried again until it succeeds needs nobody.
    """
    published = {row.batch for row in runs if row.state == RunState.SUCCEEDED}
    return Counter(
        row.state for row in runs if row.error and row.ended_at and row.batch not in published
    )


def _failed_at_first(runs: Sequence[RunRow]) -> int:
    return sum(bool(row.error and row.ended_at) for row in runs)


def _left_unread(runs: Sequence[RunRow]) -> str:
    published = sum(row.state == RunState.SUCCEEDED for row in runs)
    if published <= READ:
        return ""
    return f"Drift and changes are those of the newest {READ:,} of {published:,} published runs."


def _span_facts(outputs: Sequence[RunOutput]) -> Iterator[Document]:
    yield _fact("files published", sum(one.files for one in outputs))
    yield _fact("rows", sum(one.rows for one in outputs))
    yield _fact("bytes published", sum(one.size_bytes for one in outputs))


def report_html(document: Document) -> str:
    """Write a report as one HTML file that loads nothing, and in which nothing runs."""
    from jinja2 import Environment, PackageLoader, StrictUndefined  # only a report needs it

    templates = Environment(
        loader=PackageLoader("ds_flow.views"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"when": _when, "moment": moment, "number": _number}
    style = files("ds_flow.views").joinpath("templates/report.css").read_text()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    page = templates.get_template("report.html")
    return page.render(report=document, style=style, style_hash=f"sha256-{digest}")


# --------------------------------------------------------------------------- parts


def _head(settings: Settings, now: datetime) -> Document:
    return {"project": settings.project_name, "made_at": now.isoformat()}


def _fact(name: str, value: object) -> Document:
    return {"name": name, "value": value}


def _problems(aside: int, drift: int) -> Iterator[str]:
    if aside:
        yield f"{counted(aside, 'file')} set aside"
    if drift:
        yield f"{counted(drift, 'difference')} from earlier files"


def _run_problems(run: Document) -> Iterator[str]:
    if run["error"]:
        yield f"{run['state']}: {run['error']}"
    if run["analysis_error"]:
        yield f"the analysis failed: {run['analysis_error']}"


def _changes(outputs: Sequence[Document]) -> list[Document]:
    """The outputs that differ from those of the last run of the same selection."""
    return [one for one in outputs if one["compared"] in {"changed", "new"}]


def _cut(lists: Lists) -> Document:
    """Each list up to a number of rows, and how many more there are."""
    more = {name: max(0, len(rows) - LISTED) for name, rows in lists.items()}
    return {**{name: rows[:LISTED] for name, rows in lists.items()}, "more": more}


def _manifests(settings: Settings, runs: Sequence[RunRow]) -> Iterator[Document]:
    published = [row for row in runs if row.state == RunState.SUCCEEDED]
    for row in published[:READ]:
        with suppress(DsFlowError, OSError):
            if path := find_manifest(settings.output_dir, row.run_id or ""):
                yield read_json(path)


def _took(since: str, until: str) -> str:
    took = datetime.fromisoformat(until) - datetime.fromisoformat(since)
    return str(timedelta(seconds=round(took.total_seconds())))


def _when(words: str) -> str:
    """A time as people write it, in local time; anything else as it is."""
    try:
        return datetime.fromisoformat(words).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return words


def _told(aside: Document) -> Document:
    """A file that was set aside, with its line in the reason, and what a person can do."""
    line = f"line {aside['line']}: " if aside.get("line") is not None else ""
    remedy = for_file(aside["cause"], aside["path"])
    told = {"reason": line + aside["reason"], "remedy": remedy.text, "command": remedy.command}
    return {**aside, **told}


def _number(value: object) -> object:
    """A number with its thousands apart; anything else as it is."""
    return f"{value:,}" if isinstance(value, int) else value


def _rows_chart(own: Sequence[Document]) -> Iterator[Document]:
    largest = sorted(own, key=lambda one: -one["rows"])[:BARS]
    if len(largest) > 1:
        few = f" of the {BARS} largest files" if len(own) > BARS else " by file"
        told = [Column(one["source"], one["rows"]) for one in largest]
        yield columns(f"Rows{few}", told)


def _over_time(
    title: str, values: Sequence[tuple[str, int]], since: datetime, now: datetime
) -> Iterator[Document]:
    """Add up values in as many equal parts of the span as a chart has columns."""
    if not values:
        return
    step = (now - since) / COLUMNS
    sums = [0] * COLUMNS
    for at, value in values:
        place = int((datetime.fromisoformat(at) - since) / step)
        sums[min(max(place, 0), COLUMNS - 1)] += value
    starts = ((since + step * place).isoformat() for place in range(COLUMNS))
    yield columns(title, [Column(*both) for both in zip(starts, sums, strict=True)])
