"""The services of ds-flow that are installed on this host, as their systemd units say."""

import os
import re
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ds_flow.system.private_files import OTHERS_WRITE, open_regular

UNITS = Path("/etc/systemd/system")
DEFAULT = "default"  # the name of the service that was installed without one
UNIT = re.compile(r"ds-flow(?:-(?!web[.]|drop[.])([a-z][a-z0-9]{0,15}))?[.]service")
COMMAND = re.compile(r"^ExecStart=(/[^ ]*)/[.]venv/bin/ds-flow serve(?: .*)?$", re.MULTILINE)
USER = re.compile(r"^User=(\S+)$", re.MULTILINE)
MOST_BYTES = 2**16  # of a unit


@dataclass(frozen=True, slots=True)
class Service:
    """One installed service."""

    name: str
    unit: str  # as systemctl takes it
    root: Path
    user: str

    @property
    def command(self) -> Path:
        """Its own ds-flow, of its own version."""
        return self.root / ".venv" / "bin" / "ds-flow"

    @property
    def settings(self) -> Path:
        """Its settings file."""
        return self.root / "config" / "settings.yaml"

    def version(self) -> str:
        """The version that is installed there, or "" if nobody can say."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            found = tomllib.loads((self.root / "pyproject.toml").read_text(encoding="utf-8"))
            return str(found["project"]["version"])
        return ""


def installed_services() -> list[Service]:
    """Every installed service, the one without a name first.

    Only root's word counts. A unit is a regular file that belongs to the owner of the folder of
    units, and that nobody else may write to. Links are not followed.
    """
    return sorted(_services(), key=lambda one: (one.name != DEFAULT, one.name))


def service_in(root: Path) -> Service | None:
    """The service that is installed in a folder, if one is."""
    return next((one for one in _services() if one.root == root), None)


def _services() -> Iterator[Service]:
    with suppress(OSError), os.scandir(UNITS) as entries:
        for entry in entries:
            found = UNIT.fullmatch(entry.name)
            text = _trusted_text(Path(entry.path)) if found else ""
            command, user = COMMAND.search(text), USER.search(text)
            if found and command and user:
                unit = entry.name.removesuffix(".service")
                yield Service(found[1] or DEFAULT, unit, Path(command[1]), user[1])


def _trusted_text(unit: Path) -> str:
    """What a unit says, or "" if others than the owner of its folder could have written it."""
    try:
        with os.fdopen(open_regular(unit), "rb") as file:
            status, folder = os.fstat(file.fileno()), unit.parent.stat()
            if status.st_uid != folder.st_uid or status.st_mode & OTHERS_WRITE:
                return ""
            return file.read(MOST_BYTES).decode(errors="replace")
    except OSError:
        return ""
