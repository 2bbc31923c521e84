"""The report of one run, as a document."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from ds_flow.core import Document, Manifest, RunState
from ds_flow.reports.charts import Column, columns, gantt
from ds_flow.reports.parts import Lists, changes, cut, fact, head, problems, told, when

BARS = 20
PREVIEWS = 20  # of inputs


def run_report(project: str, run: Document, now: datetime) -> Document:
    """Tell of one run: a document with its manifest, jobs, profile and analysis."""
    manifest = run["manifest"] or {}
    outputs = manifest.get("outputs", [])
    lists: Lists = {
        "inputs": manifest.get("inputs") or [{"path": path} for path in run["inputs"]],
        "set_aside": [told(one) for one in manifest.get("rejected", ())],
        "drift": manifest.get("drift", []),
        "changes": changes(outputs),
        "runs": [],
    }
    own = [one for one in outputs if one["source"]]
    return {
        "kind": "run",
        "title": f"Run {run['run_id'] or run['batch']}",
        **head(project, now),
        "problems": [
            *_problems(run),
            *problems(len(lists["set_aside"]), len(lists["drift"])),
        ],
        "facts": [
            fact("state", run["state"]),
            fact("trigger", run["trigger"]),
            fact("started", when(run["started_at"])),
            fact("took", _took(run["started_at"], run["ended_at"] or now.isoformat())),
            *_sizes(len(run["inputs"]), len(lists["set_aside"]), own, outputs),
            fact("batch", f"{run['batch']}, attempt {run['attempt']}"),
        ],
        "charts": [*_rows_chart(own), *gantt("Jobs", run["jobs"])],
        "profile": _previews(run["profile"]),
        "analysis": (run["analysis"] or {}).get("stdout", ""),
        "note": "",
        **cut(lists),
    }


def run_document(manifest: Manifest, profile: Document | None) -> Document:
    """A published run as the report has it, for whoever knows nothing but its manifest."""
    return {
        "run_id": manifest.run_id,
        "batch": manifest.batch,
        "attempt": manifest.attempt,
        "state": RunState.SUCCEEDED,
        "trigger": manifest.trigger,
        "started_at": manifest.started_at,
        "ended_at": manifest.published_at,
        "inputs": [
            *(one.path for one in manifest.inputs),
            *(one.path for one in manifest.rejected),
        ],
        "error": "",
        "analysis": manifest.analysis,
        "analysis_error": manifest.analysis_error,
        "jobs": manifest.jobs,
        "profile": profile,
        "manifest": manifest.to_json(),
    }


def _problems(run: Document) -> Iterator[str]:
    if run["error"]:
        yield f"{run['state']}: {run['error']}"
    if run["analysis_error"]:
        yield f"the analysis failed: {run['analysis_error']}"


def _sizes(
    files_in: int, aside: int, own: Sequence[Document], outputs: Sequence[Document]
) -> Iterator[Document]:
    yield fact("files in", files_in)
    yield fact("set aside", aside)
    yield fact("rows", sum(one["rows"] for one in own))
    yield fact("bytes published", sum(one["bytes"] for one in outputs))


def _previews(profile: Document | None) -> Document | None:
    """The combined file and the first inputs, with the number of the others."""
    if profile is None:
        return None
    shown = profile["inputs"][:PREVIEWS]
    left_out = profile["left_out"] + len(profile["inputs"]) - len(shown)
    return {**profile, "inputs": shown, "left_out": left_out}


def _took(since: str, until: str) -> str:
    took = datetime.fromisoformat(until) - datetime.fromisoformat(since)
    return str(timedelta(seconds=round(took.total_seconds())))


def _rows_chart(own: Sequence[Document]) -> Iterator[Document]:
    largest = sorted(own, key=lambda one: -one["rows"])[:BARS]
    if len(largest) > 1:
        few = f" of the {BARS} largest files" if len(own) > BARS else " by file"
        found = [Column(one["source"], one["rows"]) for one in largest]
        yield columns(f"Rows{few}", found)
