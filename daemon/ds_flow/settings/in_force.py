"""The settings that a running daemon works by, written down for when their file has become bad."""

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ds_flow.core import WORK, SettingsError
from ds_flow.settings.resolved import Settings, sections_of, shown
from ds_flow.settings.schema import Keys
from ds_flow.settings.sources import Loc, Origin, read

IN_FORCE = "in_force.json"
"""The file in the work folder of a running daemon."""

LOOKED_THROUGH = 1000  # folders in the project's root


def in_force_text(settings: Settings) -> str:
    """Write the settings as JSON, without anything secret."""
    return json.dumps({"root": str(settings.root), "tag": settings.tag, "keys": shown(settings)})


def restore(file: Path, row: Any, refused: str) -> Settings:
    """Make the settings again from what `in_force_text` wrote. `refused`: why the file is bad.

    Raises SettingsError if they are of another project, or of another version.
    """
    root = _root_of(file)
    try:
        if row["root"] != str(root):
            raise SettingsError(f"{file}: the running daemon is of another project")
        keys = Keys.model_validate(row["keys"])
        tag = str(row["tag"])
    except (ValidationError, LookupError, TypeError) as error:
        raise SettingsError(f"{file}: the daemon's own settings cannot be read") from error
    sections = sections_of(keys)
    origins: dict[Loc, Origin] = {(): Origin(str(file))}
    return Settings(
        file=file, root=root, **sections, tag=tag, dotenv={}, origins=origins, refused=refused
    )


def work_folders(file: Path, environ: Mapping[str, str]) -> Iterator[Path]:
    """Where a daemon of this project may have left its settings: as the bad file says, then near.

    What can still be read of the file may name its output folder. Else any folder in the root may
    be that.
    """
    root = _root_of(file)
    try:
        given = read(file, root, environ).values
        yield root / str(given["paths"]["output_dir"]) / WORK
    except (SettingsError, LookupError, TypeError, ValueError):
        pass
    try:
        yield from (folder / WORK for folder in islice(sorted(root.iterdir()), LOOKED_THROUGH))
    except OSError:
        return


def _root_of(file: Path) -> Path:
    return Path(file).absolute().parent.parent.resolve()
