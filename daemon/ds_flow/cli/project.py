"""The project that a command works on: its settings and its ledger."""

import argparse
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from ds_flow.core import LedgerError
from ds_flow.ledger import Ledger
from ds_flow.runs import admit_commits, rebuild_ledger
from ds_flow.settings import Settings, find_settings, load_settings
from ds_flow.system import running_pid, set_up_logging
from ds_flow.work import refuse_root, require_own


def load(args: argparse.Namespace, *, to_work: bool = True) -> Settings:
    """Load the settings that the arguments name, and log warnings to standard error.

    Raises SettingsError for root in another user's project.
    """
    # Absolute, because runs read the file again from another directory.
    file = Path.cwd() / find_settings(getattr(args, "config", None), os.environ)
    settings = load_settings(file, os.environ, to_work=to_work)
    refuse_root(settings.output_dir, settings.root)
    set_up_logging(level="WARNING", json_lines=False, secrets=settings.secrets)
    return settings


def now() -> datetime:
    """Return the time in UTC."""
    return datetime.now(UTC)


@contextmanager
def reading(args: argparse.Namespace) -> Iterator[tuple[Settings, Ledger]]:
    """Open the project for a command that only reads."""
    settings = load(args, to_work=False)
    with open_ledger(settings, now()) as ledger:
        yield settings, ledger


@contextmanager
def open_ledger(settings: Settings, now: datetime) -> Iterator[Ledger]:
    """Open the ledger and bring it up to date with the runs on disk.

    A new project has no ledger yet. It gets an empty one in a temporary folder, so that reading
    creates nothing. Raises SettingsError if the project is a copy.
    """
    require_own(settings.output_dir, settings.root)
    with ExitStack() as stack:
        path = settings.ledger
        is_new = not os.path.exists(path)
        if is_new and (pid := running_pid(settings)):
            raise LedgerError(
                f"ledger {path}: the file was removed while ds-flow (pid {pid}) is running;"
                " restart ds-flow"
            )
        if is_new and not settings.output_dir.is_dir():
            path = Path(stack.enter_context(tempfile.TemporaryDirectory()), "ledger.db")
        ledger = Ledger(path)
        stack.callback(ledger.close)
        admit_commits(ledger, settings.output_dir, now)
        if is_new:
            rebuild_ledger(ledger, settings.output_dir, now)
        yield ledger
