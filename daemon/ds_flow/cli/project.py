"""The project that a command works on: its settings and its ledger."""

import argparse
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from ds_flow.core import DsFlowError, LedgerError, SettingsError
from ds_flow.ledger import Ledger
from ds_flow.runs import admit_commits, rebuild_ledger
from ds_flow.settings import (
    IN_FORCE,
    Settings,
    find_settings,
    load_settings,
    restore,
    work_folders,
)
from ds_flow.system import read_json, running_pid, say, set_up_logging
from ds_flow.work import refuse_root, require_own

MOST_BYTES = 2**20  # of the settings that a daemon has left


def load(args: argparse.Namespace, *, to_work: bool = True, needs_dotenv: bool = True) -> Settings:
    """Load the settings that the arguments name, and log warnings to standard error.

    Raises SettingsError for root in another user's project.
    """
    # Absolute, because runs read the file again from another directory.
    file = Path.cwd() / find_settings(getattr(args, "config", None), os.environ)
    settings = load_settings(file, os.environ, to_work=to_work, needs_dotenv=needs_dotenv)
    refuse_root(settings.output_dir, settings.root)
    set_up_logging(level="WARNING", json_lines=False, secrets=settings.secrets)
    return settings


def now() -> datetime:
    """Return the time in UTC."""
    return datetime.now(UTC)


@contextmanager
def reading(args: argparse.Namespace, *, is_told: bool = True) -> Iterator[tuple[Settings, Ledger]]:
    """Open the project for a command that only reads.

    While its settings are bad, a daemon goes on with those it has. They are what is read by then.
    """
    try:
        settings = load(args, to_work=False)
    except SettingsError as error:
        found = _in_force(args, str(error))
        if found is None:
            raise
        settings = found
        if is_told:
            say(f"{error}\nThe daemon goes on with the settings that it has; so does this command.")
    with open_ledger(settings, now()) as ledger:
        yield settings, ledger


def _in_force(args: argparse.Namespace, why: str) -> Settings | None:
    """Find the settings by which a running daemon works; None without one."""
    file = Path.cwd() / find_settings(getattr(args, "config", None), os.environ)
    for folder in work_folders(file, os.environ):
        with suppress(OSError, DsFlowError):
            row = read_json(folder / IN_FORCE, MOST_BYTES, is_own=True)  # it names programs
            settings = restore(file, row, why)
            refuse_root(settings.output_dir, settings.root)
            if running_pid(settings):
                set_up_logging(level="WARNING", json_lines=False, secrets=settings.secrets)
                return settings
    return None


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
        ledger.deliveries.commands = settings.handed_to
        admit_commits(ledger, settings.output_dir, now)
        if is_new:
            rebuild_ledger(ledger, settings.output_dir, now)
        yield ledger
