"""What lies in `out/` at one step: its names, which bytes and names were synced, the ledger so far.

Files there are written once, so a hard link kept in the store has, in the end, all that a file ever
held; what a power loss leaves of it is decided later (see `chaos.powerloss`).
"""

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path


def photograph(out: Path, store: Path, number: int, line: str, path: str) -> None:
    """Keep the state before a step; an fsync counts as done from the next step on."""
    ledger = out / "ledger.db"
    names: dict[str, int | str | None] = {}
    folders: dict[str, int] = {}
    for found in sorted(out.rglob("*")):
        name = str(found.relative_to(out))
        if not found.name.startswith("ledger.db"):
            names[name] = _kept(found, store)
        if names.get(name, "") is None:
            with suppress(FileNotFoundError):
                folders[name] = found.stat().st_ino
    word = line.split()[1]
    step = {"line": line, "names": names, "folders": folders, "synced": "", "synced_dir": ""}
    if word == "fsync":
        is_dir = Path(path).is_dir()
        step["synced_dir" if is_dir else "synced"] = (
            str(Path(path).relative_to(out)) if is_dir else str(os.stat(path).st_ino)
        )
    if word == "after":  # a commit: SQLite has synced what it wrote
        for end in ("", "-wal"):
            shutil.copyfile(f"{ledger}{end}", store / f"ledger-{number}{end}")
        step["ledger"] = str(number)
    (store / f"step-{number}.json").write_text(json.dumps(step), encoding="utf-8")


def _kept(path: Path, store: Path) -> int | str | None:
    """A file by its inode, a link by where it leads, a folder as None."""
    try:
        if path.is_symlink():
            return str(path.readlink())
        if path.is_dir():
            return None
        inode = path.stat().st_ino
        if not (store / str(inode)).exists():
            os.link(path, store / str(inode))
    except FileNotFoundError:  # gone since it was listed
        return None
    return inode
