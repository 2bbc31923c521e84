"""How much the disks can still take, and whether that is too little to go on."""

import os
import sys
from pathlib import Path

from ds_flow.errors import DispatchError
from ds_flow.settings import Settings


class LowSpaceError(DispatchError):
    """Less than `run.min_free_mb` is free: no new work until there is room again."""


OUTPUT_FACTOR = 2  # a batch's bytes stand in its processed files, and in the combined one
LEAST_FREE_BYTES = 2**18


def free_bytes(folder: Path) -> int:
    """How much a folder's file system can still take from this user; endless if nobody can say."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return sys.maxsize
    is_told = found.f_blocks > 0  # some network and FUSE file systems say nothing
    return found.f_bavail * found.f_frsize if is_told else sys.maxsize


def shortage(chosen: Settings) -> str:
    """Say which folder has less free than `run.min_free_mb`; "" if none has."""
    least_mb = chosen.run.min_free_mb
    for folder in (chosen.output_dir, chosen.log_dir, chosen.ledger.parent):
        free_mb = free_bytes(folder) / 2**20
        if free_mb < least_mb:
            return f"{folder} has {free_mb:.1f} MB free, run.min_free_mb is {least_mb}"
    return ""


def lack(chosen: Settings, batch: str, size_bytes: int) -> str:
    """Say which folder has no room for the outputs of a batch of this size; "" if both have."""
    need = size_bytes * OUTPUT_FACTOR
    for folder, least in ((chosen.output_dir, need), (chosen.log_dir, 0)):
        free = free_bytes(folder)
        if free < least + LEAST_FREE_BYTES:
            want_mb, free_mb = (least + LEAST_FREE_BYTES) / 2**20, free / 2**20
            return f"batch {batch} waits: {folder} has {free_mb:.1f} MB free, {want_mb:.1f} needed"
    return ""


def require(chosen: Settings) -> None:
    """Raise LowSpaceError if there is a shortage."""
    if why := shortage(chosen):
        raise LowSpaceError(f"low space: {why}")
