"""A file system that never answers, as a dead NFS server does: FUSE without anybody behind it."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ds_flow.system import mounts

DEVICE = "/dev/fuse"
MNT_FORCE, MNT_DETACH = 1, 2


@contextmanager
def hung_mount(point: Path) -> Iterator[None]:
    """Mount it. Whoever touches what lies in it waits until the block ends."""
    if os.geteuid() or not os.path.exists(DEVICE):
        pytest.skip("only root can mount, and needs /dev/fuse")
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={descriptor},rootmode=40000,user_id=0,group_id=0,allow_other"
    place = os.fsencode(point)
    try:
        if libc.mount(b"dead", place, b"fuse.dead", 0, options.encode()) != 0:
            pytest.skip(f"no FUSE here: {os.strerror(ctypes.get_errno())}")
        try:
            yield
        finally:
            libc.umount2(place, MNT_FORCE)  # ends every wait for it with an error
            libc.umount2(place, MNT_DETACH)
    finally:
        os.close(descriptor)
        for asking in [*mounts.asking.values()]:
            asking.join()
