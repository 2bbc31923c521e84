"""The report of all that happened in a span of time, as a document."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from ds_flow.core import Document, RunState, counted
from ds_flow.reports.charts import Column, columns
from ds_flow.reports.parts import Lists, changes, cut, fact, head, problems, told, when

COLUMNS = 24  # of a chart


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """What happened in a span."""

    since: datetime
    runs: Sequence[Document]  # that were started in it
    outputs: Sequence[Document]  # `ended_at`, and in sum `files`, `rows`, `size_bytes` of each run
    arrived: int  # files
    aside: int  # files that were set aside
    set_aside: Sequence[Document]  # the newest of them
    manifests: Sequence[Document]
    note: str = ""


def span_report(project: str, span: Span, now: datetime) -> Document:
    """Tell of all that happened."""
    lists: Lists = {
        "runs": [*span.runs],
        "set_aside": [told(one) for one in span.set_aside],
        "drift": [one for manifest in span.manifests for one in manifest.get("drift", ())],
        "changes": [one for manifest in span.manifests for one in changes(manifest["outputs"])],
        "inputs": [],
    }
    failed = _failed(span.runs)
    rows = cut(lists)
    return {
        "kind": "span",
        "title": f"{when(span.since.isoformat())} to {when(now.isoformat())}",
        **head(project, now),
        "problems": [
            *(f"{counted(number, 'run')} {state}" for state, number in failed.items()),
            *problems(span.aside, len(lists["drift"])),
        ],
        "facts": [
            fact("files arrived", span.arrived),
            fact("set aside", span.aside),
            *_sums(span.outputs),
            fact("runs", len(span.runs)),
            fact("runs without success", failed.total()),
            fact("runs repaired by a later one", _failed_at_first(span.runs) - failed.total()),
        ],
        "charts": [
            *_over_time("Rows published", "rows", span, now),
            *_over_time("Files published", "files", span, now),
        ],
        "profile": None,
        "analysis": "",
        "note": span.note,
        **rows,
        "more": {**rows["more"], "set_aside": span.aside - len(span.set_aside)},
    }


def _failed(runs: Sequence[Document]) -> Counter[str]:
    """The runs without success, by their end, except those whose batch was published all the same.

    A batch that is tried again until it succeeds needs nobody.
    """
    published = {run["batch"] for run in runs if run["state"] == RunState.SUCCEEDED}
    return Counter(
        run["state"]
        for run in runs
        if run["error"] and run["ended_at"] and run["batch"] not in published
    )


def _failed_at_first(runs: Sequence[Document]) -> int:
    return sum(bool(run["error"] and run["ended_at"]) for run in runs)


def _sums(outputs: Sequence[Document]) -> Iterator[Document]:
    yield fact("files published", sum(one["files"] for one in outputs))
    yield fact("rows", sum(one["rows"] for one in outputs))
    yield fact("bytes published", sum(one["size_bytes"] for one in outputs))


def _over_time(title: str, name: str, span: Span, now: datetime) -> Iterator[Document]:
    """Add up what runs published, in as many equal parts of the span as a chart has columns."""
    if not span.outputs:
        return
    step = (now - span.since) / COLUMNS
    sums = [0] * COLUMNS
    for one in span.outputs:
        place = int((datetime.fromisoformat(one["ended_at"]) - span.since) / step)
        sums[min(max(place, 0), COLUMNS - 1)] += one[name]
    starts = ((span.since + step * place).isoformat() for place in range(COLUMNS))
    yield columns(title, [Column(*both) for both in zip(starts, sums, strict=True)])
