"""How much space the disks have left, and whether that is enough."""

import math
import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ds_flow.core import DispatchError, PlannedFile, unescape

if TYPE_CHECKING:
    from ds_flow.settings import Settings  # an image has no pydantic


class LowSpaceError(DispatchError):
    """Less than `run.min_free_mb` is free: no new work until there is room again."""


OUTPUT_FACTOR = 2  # each row stands in a processed file and in the combined file
SAMPLE_BYTES = 2**16
SAMPLE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
APPENDED_BYTES = len(",2026-01-01T00:00:00+00:00,,")  # to each row, beside its source and tag
LEAST_FREE_BYTES = 2**18


def free_bytes(folder: Path) -> int:
    """Bytes that this user can still write on a folder's file system; huge if that is unknown."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return sys.maxsize
    is_told = found.f_blocks > 0  # some network and FUSE file systems say nothing
    return found.f_bavail * found.f_frsize if is_told else sys.maxsize


def space_shortage(settings: "Settings") -> str:
    """Say which folder has less than `run.min_free_mb` free; "" if none has."""
    least_mb = settings.run.min_free_mb
    for folder in (settings.output_dir, settings.log_dir, settings.ledger.parent):
        free_mb = free_bytes(folder) / 2**20
        if free_mb < least_mb:
            return f"{folder} has {free_mb:.1f} MB free, run.min_free_mb is {least_mb}"
    return ""


def need(settings: "Settings", files: Sequence[PlannedFile]) -> int:
    """Estimate how many bytes the outputs of these files need, by the start of the largest one.

    Each row gets three more columns, so files with short rows grow most.
    """
    size_bytes = sum(file.size_bytes for file in files)
    largest = max(files, key=lambda file: file.size_bytes)
    source = unescape(largest.path)
    sample = _start_of(Path(settings.root, source))
    rows = max(sample.count(b"\n"), sample.count(b"\r"))
    row_bytes = APPENDED_BYTES + len(os.fsencode(source)) + len(settings.tag.encode())
    growth = 1 + rows * row_bytes / max(len(sample), 1)
    return math.ceil(size_bytes * growth * OUTPUT_FACTOR)


def _start_of(path: Path) -> bytes:
    """Read the start of a regular file; b"" if it is not one or cannot be read."""
    try:
        descriptor = os.open(path, SAMPLE_FLAGS)
    except OSError:
        return b""
    try:
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        return os.read(descriptor, SAMPLE_BYTES) if is_file else b""
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def space_lacking(settings: "Settings", batch: str, files: Sequence[PlannedFile]) -> str:
    """Say which folder has no room for the outputs of a batch of these files; "" if both have."""
    for folder, least in ((settings.output_dir, need(settings, files)), (settings.log_dir, 0)):
        free = free_bytes(folder)
        if free < least + LEAST_FREE_BYTES:
            want_mb, free_mb = (least + LEAST_FREE_BYTES) / 2**20, free / 2**20
            return f"batch {batch} waits: {folder} has {free_mb:.1f} MB free, {want_mb:.1f} needed"
    return ""


def require_space(settings: "Settings") -> None:
    """Raise LowSpaceError if there is a shortage."""
    if why := space_shortage(settings):
        raise LowSpaceError(f"low space: {why}")
