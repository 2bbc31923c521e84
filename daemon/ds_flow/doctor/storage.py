"""Check folders, file systems, free space and inotify."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from watchdog.events import FileSystemEventHandler
from watchdog.observers.inotify import InotifyObserver

from ds_flow.doctor.finding import Finding, Findings
from ds_flow.ledger import fault_of
from ds_flow.settings import Settings
from ds_flow.system import fs_type, is_network_fs, store_folder, why_store_not_held
from ds_flow.work import why_refused

LOW_SPACE_BYTES = 10**9
INOTIFY_LIMITS = Path("/proc/sys/fs/inotify")


# --------------------------------------------------------------------------- folders


def check_folders(settings: Settings, _environ: Mapping[str, str]) -> Findings:
    """Each folder that ds-flow writes to must be writable, or possible to create."""
    yield _output_dir(settings.output_dir)
    yield _writable("log_dir", settings.log_dir)
    yield _writable("ledger folder", settings.ledger.parent)
    yield _writable("Metaflow's folder", store_folder(settings.root))
    if why := why_store_not_held(settings.root):
        yield Finding("fault", "Metaflow's lock", why)
    if why := why_refused(settings):
        yield Finding("fault", "rights", why)


def _output_dir(folder: Path) -> Finding:
    """Outputs are published as hard links, so the output folder should allow them."""
    found = _writable("output_dir", folder)
    if found.level != "ok" or _takes_links(_existing(folder)):
        return found
    text = f"{folder} does not support hard links; outputs are copied"
    return Finding("warning", "output_dir", text)


def _writable(subject: str, folder: Path) -> Finding:
    existing = _existing(folder)
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        return Finding("fault", subject, f"{existing} is not writable: {error.strerror}")
    result = "is writable" if existing == folder else "does not exist yet and can be created"
    return Finding("ok", subject, f"{folder} {result}")


def _takes_links(folder: Path) -> bool:
    with tempfile.TemporaryDirectory(prefix=".check-", dir=folder) as name:
        file = Path(name, "file")
        file.touch()
        try:
            Path(name, "link").hardlink_to(file)
        except OSError:
            return False
        return True


def _existing(path: Path) -> Path:
    """Return the path, or the nearest parent that exists."""
    return next(above for above in (path, *path.parents) if os.path.lexists(above))


# --------------------------------------------------------------------------- file systems


def check_inbox(settings: Settings, _environ: Mapping[str, str]) -> Findings:
    """The inbox must be readable. Its file system decides on events and read leases."""
    folder = settings.inbox
    try:
        with os.scandir(folder):
            yield Finding("ok", "inbox", f"{folder} is readable")
    except OSError as error:
        yield Finding("fault", "inbox", f"{folder} is not readable: {error.strerror}")
        return
    yield from inbox_on(fs_type(folder), folder, settings.watch.observer)


def inbox_on(fs: str, folder: Path, observer: str) -> Findings:
    """Say what a type of file system means for an inbox: its events, and its read leases."""
    if not is_network_fs(fs):
        text = f"{fs or 'the file system'} is local and supports them"
        yield Finding("ok", "read leases", text)
        return
    if observer == "inotify":
        text = f"{folder} is on {fs}: no events from other hosts; set watch.observer to auto"
        yield Finding("warning", "inbox events", text)
    else:
        yield Finding("ok", "inbox events", f"{folder} is on {fs}: it is polled")
    text = f"{fs} has none: a file must stay unchanged for at least 10 s"
    yield Finding("ok", "read leases", text)


def check_ledger(settings: Settings, _environ: Mapping[str, str]) -> Findings:
    """The ledger must be intact, and on a local file system."""
    if why := fault_of(settings.ledger):
        yield Finding("fault", "ledger", why)
    else:
        yield ledger_on(fs_type(settings.ledger.parent), settings.ledger.parent)


def ledger_on(fs: str, folder: Path) -> Finding:
    """Say whether SQLite's WAL works on a type of file system."""
    if is_network_fs(fs):
        text = f"{folder} is on {fs}, but SQLite needs a local disk; set paths.ledger"
        return Finding("fault", "ledger", text)
    return Finding("ok", "ledger", f"{folder} is on a local file system ({fs or 'unknown'})")


def check_free_space(settings: Settings, _environ: Mapping[str, str]) -> Findings:
    """Warn before the disk is full."""
    try:
        free_bytes = shutil.disk_usage(_existing(settings.output_dir)).free
    except OSError as error:
        yield Finding("fault", "free space", f"unknown: {error.strerror}")
    else:
        yield free_space(free_bytes, settings.output_dir)


def free_space(free_bytes: int, folder: Path) -> Finding:
    """Say whether there is room for outputs."""
    text = f"{free_bytes / 10**9:.1f} GB for {folder}"
    return Finding("warning" if free_bytes < LOW_SPACE_BYTES else "ok", "free space", text)


# --------------------------------------------------------------------------- inotify


def check_inotify(settings: Settings, _environ: Mapping[str, str]) -> Findings:
    """Try to watch the inbox, if inotify is used."""
    if settings.watch.observer == "poll":
        seconds = settings.watch.poll_seconds
        yield Finding("ok", "inotify", f"not used: the inbox is scanned every {seconds:g} s")
    else:
        yield watched(_existing(settings.inbox))


def watched(folder: Path) -> Finding:
    """Watch a folder for a moment."""
    names = ("max_user_instances", "max_user_watches")
    limits = ", ".join(f"{name} {_limit(name)}" for name in names)
    if failure := _watch(folder):
        return Finding("warning", "inotify", f"{failure}: the inbox is polled instead ({limits})")
    return Finding("ok", "inotify", f"the inbox can be watched ({limits})")


def _limit(name: str) -> str:
    try:
        return (INOTIFY_LIMITS / name).read_text().strip()
    except OSError:
        return "unknown"


def _watch(folder: Path) -> str:
    """Return the error, or ""."""
    try:
        observer = InotifyObserver()  # this takes an inotify instance already
        observer.schedule(FileSystemEventHandler(), str(folder))
        observer.start()
    except OSError as error:
        return error.strerror or str(error)
    observer.stop()
    observer.join()
    return ""
