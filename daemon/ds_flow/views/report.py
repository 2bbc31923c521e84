"""Reports from the ledger and the manifests: what `reports` tells of a run and of a span."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime

from ds_flow import reports
from ds_flow.core import Document, DsFlowError, RunState
from ds_flow.ledger import Ledger, RunRow
from ds_flow.settings import Settings
from ds_flow.system import read_json
from ds_flow.views.run import whole_run
from ds_flow.work import find_manifest

READ = 1000  # manifests of a span


def run_report(settings: Settings, ledger: Ledger, row: RunRow, now: datetime) -> Document:
    """Tell of one run."""
    return reports.run_report(settings.project_name, whole_run(settings, ledger, row), now)


def span_report(settings: Settings, ledger: Ledger, since: datetime, now: datetime) -> Document:
    """Tell of all that happened after a time."""
    runs = ledger.figures.runs(since)
    count, aside = ledger.figures.set_aside(since, reports.LISTED)
    span = reports.Span(
        since=since,
        runs=[asdict(row) for row in runs],
        outputs=[asdict(one) for one in ledger.figures.outputs(since)],
        arrived=ledger.figures.arrived(since),
        aside=count,
        set_aside=[asdict(one) for one in aside],
        manifests=[*_manifests(settings, runs)],
        note=_left_unread(runs),
    )
    return reports.span_report(settings.project_name, span, now)


def _left_unread(runs: Sequence[RunRow]) -> str:
    published = sum(row.state == RunState.SUCCEEDED for row in runs)
    if published <= READ:
        return ""
    return f"Drift and changes are those of the newest {READ:,} of {published:,} published runs."


def _manifests(settings: Settings, runs: Sequence[RunRow]) -> Iterator[Document]:
    published = [row for row in runs if row.state == RunState.SUCCEEDED]
    for row in published[:READ]:
        with suppress(DsFlowError, OSError):
            if path := find_manifest(settings.output_dir, row.run_id or ""):
                yield read_json(path)
