"""Deliveries that match no pattern: files in the inbox whose names are nearly those of inputs."""

import re
from fnmatch import fnmatchcase
from pathlib import PurePath
from typing import NamedTuple

NAMED = 20  # of them

_WILD = re.compile(r"[*?[]")
_SEPARATORS = " _-.,"
_WORKBOOKS = frozenset({".xls", ".xlsx", ".xlsm", ".xlsb", ".ods", ".numbers"})
_PACKED = frozenset({".zip", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar", ".tar", ".tgz"})
_TABLES = frozenset({".csv", ".tsv", ".tab", ".txt", ".dat", ".psv", ".parquet"})
_BARE = frozenset({"", ".txt", ".dat"})  # such as notes.txt: only a delivery if the rest is alike


class Misnamed(NamedTuple):
    """A file that looks like a delivery, but is no input."""

    path: str  # as in the ledger
    why: str
    nearest: str  # a name that would match; "" if none comes to mind
    is_alike: bool  # it begins like an input


def judge_name(name: str, glob: str) -> tuple[str, str, bool] | None:
    """Say why a name that does not match is no input, what would be, and whether it is alike.

    None if it does not look like a delivery at all.
    """
    stem, ending = _ending(name)
    prefix = _WILD.split(glob)[0]
    word = prefix.rstrip(_SEPARATORS).casefold()
    is_alike = bool(word) and stem.casefold().startswith(word)
    known = _WORKBOOKS | _PACKED | _TABLES | _BARE
    if ending not in known or (ending in _BARE and not is_alike):
        if not fnmatchcase(name.casefold(), glob.casefold()):
            return None
        is_alike = True
    return _why(name, ending, glob), _nearest(name, stem, glob, is_alike=is_alike), is_alike


def _why(name: str, ending: str, glob: str) -> str:
    if ending != _ending(glob)[1]:
        if ending in _WORKBOOKS:
            return f"a workbook, and {glob} matches none"
        if ending in _PACKED:
            return f"packed, and {glob} matches no such file"
    if fnmatchcase(name.casefold(), glob.casefold()):
        return f"its name differs from {glob} in capital letters"
    return f"its name does not match {glob}"


def how_to_mend(name: str, nearest: str) -> str:
    """Say what makes a misnamed file an input, if the nearest name that would match is this one."""
    ending = _ending(name)[1]
    if nearest and ending == _ending(nearest)[1]:
        return "rename it"
    if ending in _WORKBOOKS:
        return "save it as CSV"
    return "unpack it" if ending in _PACKED else "rename it"


def _ending(name: str) -> tuple[str, str]:
    """Split a name; of `x.csv.gz`, both endings go, and the last one tells what it is."""
    whole = PurePath(name)
    inner, ending = PurePath(whole.stem), whole.suffix.lower()
    is_double = ending in _PACKED and inner.suffix.lower() in _TABLES | {".tar"}
    return (inner.stem if is_double else whole.stem), ending


def _nearest(name: str, stem: str, glob: str, *, is_alike: bool) -> str:
    """Make the name that would match: the glob's own beginning and end around what is left."""
    first, last = _WILD.search(glob), max(map(glob.rfind, "*?]"))
    if first is None:
        return glob
    prefix, suffix = glob[: first.start()], glob[last + 1 :]
    if fnmatchcase(name.casefold(), glob.casefold()):
        middle = name[len(prefix) : len(name) - len(suffix)]
    else:
        word = prefix.rstrip(_SEPARATORS)
        rest = stem[len(word) :] if is_alike else ""
        middle = "" if rest.casefold() == "s" else rest.lstrip(_SEPARATORS)
        middle = (middle or stem).replace(" ", "_")
    made = f"{prefix}{middle}{suffix}"
    return made if fnmatchcase(made, glob) else ""
