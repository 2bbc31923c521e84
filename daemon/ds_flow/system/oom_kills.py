"""How many processes the kernel killed because memory ran out; bash/oom_kills.sh does the same."""

from pathlib import Path

CGROUP = Path("/proc/self/cgroup")
MOUNT = Path("/sys/fs/cgroup")


def count_oom_kills() -> int:
    """Count the processes of this one's cgroup that the kernel killed because memory ran out.

    A SIGKILL does not tell who sent it.
    """
    try:
        for line in CGROUP.read_text(encoding="utf-8").splitlines():
            _, names, path = line.split(":", 2)
            if not names:  # version 2
                file = MOUNT / path.lstrip("/") / "memory.events"
            elif names == "memory":
                file = MOUNT / "memory" / path.lstrip("/") / "memory.oom_control"
            else:
                continue
            if file.exists():
                return _field(file.read_text(encoding="utf-8"), "oom_kill")
    except (OSError, ValueError):
        pass
    return 0


def _field(text: str, name: str) -> int:
    words = (line.split() for line in text.splitlines())
    return next((int(rest[0]) for word, *rest in words if word == name), 0)
