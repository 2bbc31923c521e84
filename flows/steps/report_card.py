"""The Metaflow card of a run: its report, which Metaflow has made in a process of its own."""

import os
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from metaflow import card
from metaflow.cards import MetaflowCard

from ds_flow.core import CARD, Document, LedgerError, Manifest
from ds_flow.reports import report_html, run_document, run_report
from ds_flow.system import read_json
from ds_flow.work import profile_name
from steps.metaflow_env import ROOT

PROFILE_BYTES = 8 * 2**20  # no run writes a larger one

Step = Callable[..., Any]


class RunReport(MetaflowCard):
    """What `ds-flow report RUN` shows, from what the last step has published."""

    type = "ds_flow_report"

    def render(self, task: Any) -> str:
        """Write the card. If it fails, Metaflow keeps why instead, and the task stays good."""
        manifest = Manifest.from_json(task["manifest"].data)
        published = ROOT / task["published"].data[-1]
        profile = _profile(published.parent, manifest)
        run = run_document(manifest, profile)
        return report_html(run_report(manifest.project, run, datetime.now(UTC)))


def _profile(out: Path, manifest: Manifest) -> Document | None:
    with suppress(OSError, LedgerError):
        found: Document = read_json(out / profile_name(manifest.run_id), PROFILE_BYTES)
        return found
    return None


def with_report_card(step: Step) -> Step:
    """Give a step the card, if the settings want it: a process more at its end."""
    if os.environ.get(CARD) != "true":
        return step
    from metaflow.plugins import CARDS  # the card types that there are

    CARDS.append(RunReport)
    decorated: Step = card(type=RunReport.type)(step)
    return decorated
