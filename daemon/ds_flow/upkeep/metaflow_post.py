"""Runs on their way to a Metaflow service, each from where it was left."""

import logging
import os
import time
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.error import HTTPError

from ds_flow.core import DispatchError
from ds_flow.ledger import Ledger, RunEvent
from ds_flow.settings import Settings
from ds_flow.system import mask, run_record
from ds_flow.upkeep.child import only_one
from ds_flow.upkeep.positions import FIRST, Positions
from ds_flow.upkeep.sender import Sender

if TYPE_CHECKING:
    from ds_flow.upkeep.metaflow_service import Mirror

log = logging.getLogger(__name__)

EVENT, FAILING = "service", "failing"
READ_AT_ONCE = 100  # events
REFUSED = frozenset({400, 413, 422})  # a service that says this never takes this run
SERVER_FAULT = 500
FOLLOW_SECONDS = 5.0  # between two looks at live runs
LONGEST_FOLLOW_SECONDS = 300.0  # for one process; the next one goes on


def positions_of(settings: Settings) -> Positions:
    """Name the file that says how far the service has come, and why it takes no more."""
    return Positions(settings.work_root / "metaflow.json")


def metaflow_delay(settings: Settings) -> tuple[str, str] | None:
    """Since when the service takes nothing, and why; None if it takes everything."""
    found = positions_of(settings).kept().get(FAILING)
    is_wanted = settings.metaflow.metadata == "service"
    if not (is_wanted and isinstance(found, list) and [*map(type, found)] == [str, str]):
        return None
    since, why = found
    return since, why


def send_runs(settings: Settings, ledger: Ledger, now: datetime, *, follow: bool = False) -> None:
    """Send to the Metaflow service what it has not got yet of all runs.

    With `follow`, go on as long as a run lives. A run may be sent twice if this is killed in
    between; the service then has it once. Raises DispatchError if the service takes nothing now,
    RequestError while another process sends.
    """
    from ds_flow.upkeep.metaflow_service import MetaflowService, Mirror  # an idle daemon: no HTTP

    if settings.metaflow.metadata != "service" or settings.metaflow.url is None:
        return
    positions = positions_of(settings)
    mirror = Mirror(
        MetaflowService(settings.metaflow.url, settings.metaflow.auth_key), settings.project_name
    )
    with only_one(settings, "metaflow", "another process is sending runs to Metaflow here"):
        try:
            _send_all(settings, ledger, mirror, positions, now, follow=follow)
        except OSError as error:
            why = mask(f"metaflow.url: {type(error).__name__}: {error}", settings.secrets)
            since = positions.kept().get(FAILING) or [now.isoformat()]
            positions.keep(FAILING, [since[0], why])
            raise DispatchError(why) from error
        if FAILING in positions.kept():
            positions.keep(FAILING, None)


def _send_all(
    settings: Settings,
    ledger: Ledger,
    mirror: "Mirror",
    positions: Positions,
    now: datetime,
    *,
    follow: bool,
) -> None:
    until_s, parent = time.monotonic() + LONGEST_FOLLOW_SECONDS, os.getppid()
    at = positions.last(ledger, EVENT, settings.metaflow.url or "", now)
    while True:
        while some := ledger.lineage.run_events(at, READ_AT_ONCE):
            for told in some:
                _send(settings, mirror, told, now)
                at = told.id
                positions.keep(EVENT, at)
        live = [run.run_id for run in ledger.read.live_runs() if run.run_id]
        for run_id in live:
            _follow(settings, mirror, run_id)
        is_over = time.monotonic() > until_s or os.getppid() != parent  # the daemon was killed
        if is_over or not (follow and live):
            return
        time.sleep(FOLLOW_SECONDS)  # noqa: TID251 - no event tells of what Metaflow records


def _send(settings: Settings, mirror: "Mirror", told: RunEvent, now: datetime) -> None:
    """Send one run. One that the service does not take is passed over, so that others go on."""
    record = run_record(settings.root, told.run_id)
    if record is None:
        return  # retention was faster
    try:
        mirror.send(told.run_id, record)
    except HTTPError as error:
        is_old = now - datetime.fromisoformat(told.at) > FIRST
        if error.code not in REFUSED and not (error.code >= SERVER_FAULT and is_old):
            raise
        why = mask(f"metaflow.url: {error}", settings.secrets)
        log.error("metaflow.refused", extra={"run_id": told.run_id, "why": why})


def _follow(settings: Settings, mirror: "Mirror", run_id: str) -> None:
    """Send what is new of a live run. Of one that the service never takes, its beginning told."""
    record = run_record(settings.root, run_id)
    if record is None:
        return
    try:
        mirror.send(run_id, record)
        mirror.beat(run_id)
    except HTTPError as error:
        if error.code not in REFUSED:
            raise


def metaflow_sender() -> Sender:
    """Send from the daemon, which waits for nothing."""
    return Sender(
        "metaflow",
        ("metaflow", "--follow"),
        lambda keys: keys.metaflow.metadata == "service",
        follows_runs=True,
    )
