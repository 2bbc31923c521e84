"""Which file system a path is on, and whether other hosts can change files there unseen."""

import os
import re
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath

MOUNTINFO = Path("/proc/self/mountinfo")
MOUNT_POINT_FIELD = 4

NETWORK_TYPES = frozenset(
    (
        *("9p", "afs", "beegfs", "ceph", "cifs", "coda", "fuse", "glusterfs", "gpfs", "lustre"),
        *("ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "panfs", "prl_fs", "pvfs2", "smb3"),
        *("smbfs", "vboxsf", "virtiofs", "vmhgfs", "wekafs"),
    )
)


@dataclass(frozen=True, slots=True)
class Mount:
    """A mount point and the type of the file system there."""

    point: PurePath
    fs_type: str


def fs_type(path: Path) -> str:
    """Return the type of the file system that holds a path; "" if the kernel does not say.

    The path need not exist yet.
    """
    try:
        text = os.fsdecode(MOUNTINFO.read_bytes())
    except OSError:
        return ""
    return type_at(path.resolve(), parse(text))


def is_network_fs(fs: str) -> bool:
    """Whether a type of file system is shared with other hosts.

    Such a file system has no events for what other hosts do, no read leases, and no shared memory
    for SQLite's WAL.
    """
    return fs in NETWORK_TYPES or fs.startswith("fuse.")


def parse(text: str) -> list[Mount]:
    """Parse /proc/PID/mountinfo (proc_pid_mountinfo(5)), in mounting order."""
    return [mount for line in text.split("\n") for mount in _mount(line)]


def type_at(path: PurePath, mounts: Iterable[Mount]) -> str:
    """Return the type at an absolute, resolved path: of the deepest mount, and there the latest."""
    holding = [mount for mount in mounts if path.is_relative_to(mount.point)]
    return max(reversed(holding), key=_depth, default=Mount(PurePath(), "")).fs_type


def _depth(mount: Mount) -> int:
    return len(mount.point.parts)


def _mount(line: str) -> Iterable[Mount]:
    before, dash, after = line.partition(" - ")
    fields, types = before.split(" "), after.split(" ")
    if dash and len(fields) > MOUNT_POINT_FIELD:
        yield Mount(PurePath(_unescape(fields[MOUNT_POINT_FIELD])), types[0])


def _unescape(field: str) -> str:
    r"""Undo the kernel's escapes: space, tab, newline and backslash are `\040` and so on."""
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), field)


# --------------------------------------------------------------------------- mounts that hang

ANSWER_SECONDS = 5.0

silent: dict[str, frozenset[str]] = {}
"""By folder, the mount points that did not answer when it was last asked for: nobody may touch
what is there. Several threads may ask at the same time, and none takes away what another found."""


def is_silent(path: str) -> bool:
    """Whether a path is on a mount that did not answer when it was last asked."""
    return any(PurePath(path).is_relative_to(point) for point in _silent_points())


def is_silent_point(point: str) -> bool:
    """Whether a path is itself a mount point that did not answer when it was last asked."""
    return bool(silent) and point in _silent_points()


def _silent_points() -> frozenset[str]:
    return frozenset[str]().union(*silent.copy().values())


class _Asking(threading.Thread):
    """Touches one mount, which may never end."""

    def __init__(self, point: str) -> None:
        super().__init__(target=_touch, args=(point,), daemon=True)
        self.patience_ends = time.monotonic() + ANSWER_SECONDS
        self.start()


asking: dict[str, _Asking] = {}


def ask_mounts(base: str) -> str:
    """Ask the mounts at and below a folder that other hosts or programs serve.

    Each is asked by a thread of its own, so that a dead server holds up nothing else. So is the
    folder itself, which may be a link to one of them. Returns why it cannot be touched, or "".
    """
    try:
        mounts = parse(os.fsdecode(MOUNTINFO.read_bytes()))
    except OSError:
        return ""
    served = [mount for mount in mounts if _may_hang(mount)]
    found: set[str] = set()
    why = _ask(base, served, found) if served else ""
    if found:
        silent[base] = frozenset(found)
    else:
        silent.pop(base, None)
    return why


def _ask(base: str, served: Iterable[Mount], found: set[str]) -> str:
    if why := _ask_near(base, served, found):
        return why
    if not _answers(base):
        found.add(base)
        return f"what {base} leads to does not answer"
    real = os.path.realpath(base)
    return _ask_near(real, served, found) if real != base else ""


def _ask_near(base: str, served: Iterable[Mount], found: set[str]) -> str:
    for mount in served:
        point = str(mount.point)
        is_above = PurePath(base).is_relative_to(point)
        if (is_above or mount.point.is_relative_to(base)) and not _answers(point):
            found.add(point)
            if is_above:
                return f"the file system at {point} ({mount.fs_type}) does not answer"
    return ""


def _may_hang(mount: Mount) -> bool:
    return is_network_fs(mount.fs_type) or mount.fs_type == "autofs"


def _answers(point: str) -> bool:
    """Whether a mount answers in time. Who asks while another one asks waits for its answer."""
    asked = asking.get(point)
    if asked is None or not asked.is_alive():
        asked = asking[point] = _Asking(point)
    asked.join(max(0.0, asked.patience_ends - time.monotonic()))
    return not asked.is_alive()


def _touch(point: str) -> None:
    with suppress(OSError):
        os.stat(point)
