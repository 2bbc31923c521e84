"""How much space the disks have left, and whether that is enough."""

import math
import os
import stat
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ds_flow.core import DispatchError, PlannedFile, is_disk_error, unescape
from ds_flow.system.links import beneath, reopen
from ds_flow.system.metaflow_store import store_folder

if TYPE_CHECKING:
    from ds_flow.settings import Settings  # an image has no pydantic


class LowSpaceError(DispatchError):
    """Less than `run.min_free_mb` is free: no new work until there is room again."""


OUTPUT_FACTOR = 2  # each row stands in a processed file and in the combined file
SAMPLE_BYTES = 2**16
SAMPLED = 16  # files of a batch
SAMPLE_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
APPENDED_BYTES = len(",2026-01-01T00:00:00+00:00,,")  # to each row, beside its source and tag
LEAST_FREE_BYTES = 2**18
PROBE_BYTES = 2**16


def free_bytes(folder: Path) -> int:
    """Bytes that this user can still write on a folder's file system; huge if that is unknown."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return sys.maxsize
    is_told = found.f_blocks > 0  # some network and FUSE file systems say nothing
    return found.f_bavail * found.f_frsize if is_told else sys.maxsize


def disks(settings: "Settings") -> tuple[Path, ...]:
    """Name the folders that a run and the daemon write to. Each may be on a disk of its own."""
    store = store_folder(settings.root)
    return settings.output_dir, settings.log_dir, settings.ledger.parent, store


def refusal(folder: Path) -> str:
    """Say why a folder's disk takes nothing more; "" if it does, or if that is unknown.

    Only writing tells: a quota and a disk without inodes have free bytes.
    """
    try:
        with tempfile.TemporaryFile(dir=_existing(folder)) as probe:
            probe.write(bytes(PROBE_BYTES))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        if is_disk_error(error):
            return f"{folder}: {error.strerror} ({free_bytes(folder) / 2**20:.1f} MB free)"
    return ""


def _existing(folder: Path) -> Path:
    """A folder, or the nearest one above it that exists."""
    return next(path for path in (folder, *folder.parents) if path.is_dir())


def space_shortage(settings: "Settings") -> str:
    """Say which folder has less than `run.min_free_mb` free; "" if none has."""
    least_mb = settings.run.min_free_mb
    for folder in disks(settings):
        free_mb = free_bytes(_existing(folder)) / 2**20
        if free_mb < least_mb:
            return f"{folder} has {free_mb:.1f} MB free, run.min_free_mb is {least_mb}"
    return ""


def need(settings: "Settings", files: Sequence[PlannedFile], past_growth: float = 0.0) -> int:
    """Estimate how many bytes the outputs of these files need.

    Each row gets three more columns, so files with short rows grow most: that is measured at the
    start of the largest files. `past_growth` is what a byte of input became in earlier runs, since
    a transform may add more. The larger figure counts.
    """
    largest = sorted(files, key=lambda file: file.size_bytes, reverse=True)[:SAMPLED]
    grown = sum(file.size_bytes * _growth(settings, file) for file in largest)
    growth = max(grown / max(sum(file.size_bytes for file in largest), 1), past_growth)
    return math.ceil(sum(file.size_bytes for file in files) * growth * OUTPUT_FACTOR)


def _growth(settings: "Settings", file: PlannedFile) -> float:
    """What a byte of a file becomes, with three more columns in each row."""
    source = unescape(file.path)
    places = file.places(str(settings.root), str(settings.inbox))
    sample = next(filter(None, (_start_of(base, path) for path, base in places)), b"")
    rows = max(sample.count(b"\n"), sample.count(b"\r"))
    row_bytes = APPENDED_BYTES + len(os.fsencode(source)) + len(settings.tag.encode())
    return 1 + rows * row_bytes / max(len(sample), 1)


def _start_of(inbox: str, path: str) -> bytes:
    """Read the start of a regular file; b"" if it is not one or cannot be read."""
    try:
        with beneath(inbox, path) as (found, _):
            if not stat.S_ISREG(os.fstat(found).st_mode):
                return b""
            descriptor = reopen(found, SAMPLE_FLAGS)
    except OSError:
        return b""
    try:
        return os.read(descriptor, SAMPLE_BYTES)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def space_lacking(settings: "Settings", batch: str, needed: int) -> str:
    """Say which disk has no room for a batch that needs so many bytes for outputs; "" if all do."""
    for folder in disks(settings):
        least = LEAST_FREE_BYTES + (needed if folder == settings.output_dir else 0)
        free = free_bytes(_existing(folder))
        if free < least:
            want_mb, free_mb = least / 2**20, free / 2**20
            return f"batch {batch} waits: {folder} has {free_mb:.1f} MB free, {want_mb:.1f} needed"
    full = next(filter(None, map(refusal, disks(settings))), "")
    return f"batch {batch} waits: {full}" if full else ""


def require_space(settings: "Settings") -> None:
    """Raise LowSpaceError if there is a shortage."""
    if why := space_shortage(settings):
        raise LowSpaceError(f"low space: {why}")
