"""Which project this is and where it stands: `out/.work/project.json`. A copy has no place yet."""

import logging
import os
import secrets
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from ds_flow.core import BatchError, SettingsError
from ds_flow.system import read_json, user_name, write_json
from ds_flow.work.root import work_root

log = logging.getLogger(__name__)

FILE = "project.json"
NOBODY = 65534  # where a file system or a namespace does not tell users apart
MACHINE_ID = Path("/etc/machine-id")


@dataclass(frozen=True, slots=True)
class Place:
    """A project's identity, and the folder that it was last seen in."""

    id: str
    root: str
    device: int
    inode: int
    machine: str

    @classmethod
    def of(cls, root: Path, project: str) -> Self:
        """Describe where a project stands now."""
        status = root.stat()
        return cls(project, str(root.resolve()), status.st_dev, status.st_ino, _machine())

    def is_seen_from(self, now: Self) -> bool:
        """Whether the folder is the same, by its name or by itself: it may have been renamed."""
        is_same_folder = (self.device, self.inode) == (now.device, now.inode)
        return self.root == now.root or (is_same_folder and self.machine == now.machine)


def _machine() -> str:
    with suppress(OSError):
        return MACHINE_ID.read_text(encoding="ascii", errors="replace").strip()
    return ""


def settle(output_dir: Path, root: Path) -> None:
    """Note where a project stands; a moved one goes on. Raises SettingsError for a copy."""
    was = require_own(output_dir, root)
    now = Place.of(root, was.id if was else secrets.token_hex(8))
    for part in work_root(output_dir).glob(f".{FILE}.*"):  # of a process that died while writing
        part.unlink(missing_ok=True)
    if was == now:
        return
    write_json(work_root(output_dir) / FILE, asdict(now))
    if was is not None and was.root != now.root:
        log.warning("project.moved", extra={"folder": now.root, "why": f"it was {was.root}"})


def refuse_root(output_dir: Path, root: Path) -> None:
    """Raise SettingsError for root in another user's project.

    Root's files would stop that user's runs, and root would run code that this user can change.
    """
    places = (work_root(output_dir), output_dir, root)
    place = next(place for place in places if place.exists())
    owner = place.stat().st_uid
    if os.geteuid() != 0 or owner in {0, NOBODY}:
        return
    name = user_name(owner)
    raise SettingsError(
        f"{place} belongs to {name}: root may not work here; use sudo -u '{name}',"
        f" or give the project to root: chown -R root: {root} {output_dir}"
    )


def require_own(output_dir: Path, root: Path) -> Place | None:
    """Raise SettingsError if a project is a copy of another; return its last place, if any.

    1. The folder that was noted, or one under its name, is this project.
    2. If the noted folder still holds a project of this identity, this one is its copy.
    3. If it is gone from this machine, the project was moved here. From another machine nobody
       can tell: its jobs may be alive there.
    """
    was = _noted(work_root(output_dir) / FILE)
    if was is None:
        return None
    now = Place.of(root, was.id)
    if _is_held(was, now, os.path.relpath(output_dir, root)):
        raise SettingsError(_refusal(f"is a copy of {was.root}", now.root))
    if not was.is_seen_from(now) and was.machine != now.machine:
        raise SettingsError(_refusal(f"comes from {was.root} of another machine", now.root))
    return was


def _refusal(what: str, root: str) -> str:
    return (
        f"{root} {what}, with its batches: what is done here could touch the jobs of that one;"
        " to make it a project of its own: ds-flow detach"
    )


def _is_held(was: Place, now: Place, out: str) -> bool:
    """Whether the noted folder is another one now, and still has this identity."""
    if was.root == now.root:
        return False
    try:
        there = Place.of(Path(was.root), was.id)
        found = _noted(work_root(Path(was.root, out)) / FILE)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True  # another user's: it may well be there
    is_same_folder = (there.device, there.inode) == (now.device, now.inode)
    return found is not None and found.id == was.id and not is_same_folder


def _noted(file: Path) -> Place | None:
    """Read a note; None if there is none. One that nobody can read is made anew."""
    try:
        return Place(**read_json(file))
    except (FileNotFoundError, NotADirectoryError, BatchError, TypeError):
        return None


def detach(output_dir: Path, root: Path) -> None:
    """Give a project an identity of its own, here."""
    write_json(work_root(output_dir) / FILE, asdict(Place.of(root, secrets.token_hex(8))))
