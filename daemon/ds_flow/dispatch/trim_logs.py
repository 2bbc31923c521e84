"""Logs of jobs that print without end: the middle is cut out, to free the disk."""

import ctypes
import os
from contextlib import suppress
from pathlib import Path
from stat import S_ISREG

LIMIT_BYTES = 64 * 2**20  # disk space of one log; checked at each poll of its round
KEPT_BYTES = 16 * 2**20  # kept of a longer log, at either end

NOTE = b"\n[... too long: the middle of this log is cut out, and reads as zeros ...]\n"

PUNCH_HOLE = 0x01 | 0x02  # FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE; linux/falloc.h
BLOCK_BYTES = 512  # of st_blocks; stat(2)

_libc = ctypes.CDLL(None)  # whose off_t has 64 bits on every system of 64


def cut_logs(folder: Path) -> None:
    """Cut the middle out of each log in a round's folder that takes too much disk space.

    The job may go on writing: the file keeps its length (fallocate(2)). A reader between the job
    and its log would do the same, but the job would have to wait for it. Where the file system
    cannot do this (NFS before 4.2), the log stays whole.
    """
    for entry in os.scandir(folder):
        if entry.name.endswith(".log"):
            with suppress(OSError):
                if _is_too_long(entry.stat(follow_symlinks=False)):
                    _cut(entry.path)


def _is_too_long(status: os.stat_result) -> bool:
    # Blocks may be reserved beyond the end. A file that was cut has fewer than its length.
    taken = min(status.st_size, status.st_blocks * BLOCK_BYTES)
    return S_ISREG(status.st_mode) and taken > LIMIT_BYTES


def _cut(path: str) -> None:
    # A job may have replaced its log with anything.
    log = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(log)
        if _is_too_long(status):
            length = status.st_size - 2 * KEPT_BYTES
            offset, size = ctypes.c_int64(KEPT_BYTES), ctypes.c_int64(length)
            if _libc.fallocate(log, PUNCH_HOLE, offset, size) == 0:
                os.pwrite(log, NOTE, KEPT_BYTES)
    finally:
        os.close(log)
