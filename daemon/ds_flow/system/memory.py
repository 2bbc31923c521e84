"""How much memory a further process of this host may have."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

CGROUP = Path("/proc/self/cgroup")
MOUNT = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")

V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
V2 = ("memory.max", "memory.current", "inactive_file")


def available_mb() -> int:
    """MiB that are free, or could be freed at once, here and in the cgroups around this process."""
    return min(_on_host(), *_in_groups()) // 2**20


def _on_host() -> int:
    return _field(MEMINFO, "MemAvailable:") * 1024


def _in_groups() -> Iterator[int]:
    """Yield what each cgroup around this process leaves it, and a number that limits nothing."""
    yield 2**63
    for line in CGROUP.read_text(encoding="utf-8").splitlines():
        _, names, path = line.split(":", 2)
        if not names:
            root, files = MOUNT, V2
        elif "memory" in names.split(","):
            root, files = MOUNT / "memory", V1
        else:
            continue
        place = Path(path.lstrip("/"))
        for group in (place, *place.parents):
            # A group without a limit, and one that is out of sight in a container, has no number.
            with suppress(OSError, ValueError):
                yield _left(root / group, *files)


def _left(group: Path, limit: str, usage: str, cache: str) -> int:
    allowed, used = (int((group / name).read_text(encoding="ascii")) for name in (limit, usage))
    return allowed - used + _field(group / "memory.stat", cache)


def _field(file: Path, name: str) -> int:
    words = (line.split() for line in file.read_text(encoding="ascii").splitlines())
    return next(int(rest[0]) for word, *rest in words if word == name)
