"""Check who else can change what ds-flow runs and obeys: everyone, or those who drop files."""

import grp
import os
import pwd
import shlex
import stat
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ds_flow.core import CHECKOUT
from ds_flow.doctor.finding import Finding, Findings
from ds_flow.settings import Settings
from ds_flow.system import user_name
from ds_flow.work import own_code

TREES = ("flows", "bash", "daemon")  # of the checkout


@dataclass(frozen=True, slots=True)
class Place:
    """Something that is run or obeyed: a file, or a folder."""

    path: Path
    has_all: bool = False  # whether everything below the folder counts
    has_entries: bool = True  # whether another entry in the folder would count

    def walk(self) -> Iterator[Path]:
        """Itself, and what counts below it. Links are not followed."""
        yield self.path
        if self.has_all:
            for folder, folders, files in os.walk(self.path):
                yield from (Path(folder, name) for name in (*folders, *files))


def check_exposure(settings: Settings, _environ: Mapping[str, str]) -> Findings:
    """Name what others can change, with the command that mends it."""
    found = list(exposed(settings))
    for text in found:
        yield Finding("warning", "writers", text)
    if not found:
        text = "nobody who only drops files can write to settings, .env or code"
        yield Finding("ok", "writers", text)


def exposed(settings: Settings) -> Iterator[str]:
    """Say of each place that others can write to who they are, and what to do. Fast enough."""
    droppers = _group_of_droppers(settings.inbox)
    for place in _places(settings):
        wide = {path: who for path in place.walk() if (who := _writers(path, droppers, place))}
        if wide:
            yield _sentence(place, wide, droppers)


def _sentence(place: Place, wide: Mapping[Path, str], droppers: int | None) -> str:
    first, *others = wide
    bits = sorted(set("".join(wide.values())))
    whom = {"g": f"the group {_group_name(droppers)}, which may drop files", "o": "everyone"}
    who = " and ".join(whom[one] for one in bits)
    more = f" and {len(others)} more in {place.path}" if others else ""
    what = f"-R {shlex.quote(str(place.path))}" if others else shlex.quote(str(first))
    own, mend = user_name(os.geteuid()), f"chmod {''.join(bits)}-w {what}"
    return f"{first}{more} can be changed by {who}, who can so run code as {own}: {mend}"


def _places(settings: Settings) -> list[Place]:
    """What is run or obeyed, and all folders above."""
    trees = [*(CHECKOUT / name for name in TREES), *own_code(settings.options())]
    programs = (Path(settings.root, word) for word in settings.stages["analyze"].command)
    packages = Path(sysconfig.get_path("purelib"))
    prefix = Path(sys.prefix)
    found = [
        Place(settings.root),  # a file .env may be put there
        Place(settings.file.parent),
        Place(settings.file),
        Place(settings.root / ".env"),
        *(Place(tree, has_all=True) for tree in trees),
        *(Place(path) for path in programs if path.is_file()),
        *(Place(path) for path in (prefix, prefix / "bin", packages)),
        *(Place(path) for path in _entries(packages)),
    ]
    found = [one for one in found if one.path.exists()]
    real = [Place(one.path.resolve(), has_all=one.has_all) for one in found]
    above = {path for one in (*found, *real) for path in one.path.parents}
    places = (*(Place(path, has_entries=False) for path in sorted(above)), *real)
    return list({one.path: one for one in places}.values())


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _writers(path: Path, droppers: int | None, place: Place) -> str:
    """Which bits of a mode let others write: "o", "g", both or none."""
    try:
        status = path.lstat()
    except OSError:
        return ""  # gone, or out of reach for this user as for droppers
    mode = status.st_mode
    if stat.S_ISLNK(mode):
        return ""
    if not place.has_entries and mode & stat.S_ISVTX:
        return ""  # as in /tmp, nobody can exchange what is another one's
    for_group = "g" if mode & stat.S_IWGRP and status.st_gid == droppers else ""
    return for_group + ("o" if mode & stat.S_IWOTH else "")


def _group_name(number: int | None) -> str:
    try:
        return grp.getgrgid(number or 0).gr_name
    except KeyError:
        return f"#{number}"


def _group_of_droppers(inbox: Path) -> int | None:
    """The group that may write to the inbox, unless nobody but this user and root is in it."""
    try:
        status = inbox.stat()
    except OSError:
        return None
    is_open = status.st_mode & stat.S_IWGRP and status.st_gid != 0
    return status.st_gid if is_open and not _is_private(status.st_gid) else None


def _is_private(group: int) -> bool:
    """Whether a group is this user's own, as many systems give each user one."""
    try:
        user, entry = pwd.getpwuid(os.geteuid()), grp.getgrgid(group)
    except KeyError:
        return group == os.getegid()  # a user or group without a name, as in a container
    others = set(entry.gr_mem) - {user.pw_name, "root"}
    return group == user.pw_gid and entry.gr_name == user.pw_name and not others
