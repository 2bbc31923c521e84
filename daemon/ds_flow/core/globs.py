"""How an input pattern is split, and which paths match it."""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from ds_flow.core.paths import escape, is_hostile

TEMPORARY = re.compile(
    r"\..*|.*~|~\$.*|.*\.(tmp|part|filepart|crdownload|swp)", re.DOTALL | re.IGNORECASE
)
"""Hidden names, and those that programs use for unfinished files, as Excel does while a workbook is
open. No pattern matches them."""

RECEIPTS, RECEIPTS_MARK = "receipts", ".ds-flow"
"""The folder of receipts in the inbox, and the file that says so. No pattern matches below it."""

_WILD = re.compile(r"[*?[]")
_WILDCARD = re.compile(r"[*?]|\[!?\]?[^]]*\]")


def split(pattern: str) -> tuple[str, list[str]]:
    """Split an absolute pattern into a folder and one glob for each name below it.

    The folder ends before the first name with a wildcard. The last name is never part of it.
    """
    names = pattern.split("/")
    wild = (n for n, name in enumerate(names[:-1]) if _WILD.search(name))
    first = next(wild, len(names) - 1)
    return "/".join(names[:first]) or "/", names[first:]


def root_problem(root: str) -> str:
    """Why no pattern can begin with a project's folder; "" if one can."""
    if is_hostile(root):
        what = "control characters or undecodable bytes"
    elif _WILD.search(root):
        what = "*, ? or [, which patterns read as wildcards,"
    else:
        return ""
    return f"the project's folder {escape(root)} has {what} in its path; rename that folder"


def matches(pattern: str, path: str) -> bool:
    """Whether an absolute path matches. `*`, `?`, `[...]` stay in a name; `**` spans folders."""
    folder, globs = split(pattern)
    start = folder.rstrip("/") + "/"
    names = path.removeprefix(start).split("/")
    is_skipped = any(TEMPORARY.fullmatch(name) for name in names)
    return path.startswith(start) and not is_skipped and _match(tuple(globs), tuple(names))


def example(glob: str) -> str:
    """Make a name that matches the glob of one name."""
    return _WILDCARD.sub(lambda wildcard: _stand_in(wildcard[0]), glob)


def _match(globs: Sequence[str], names: Sequence[str]) -> bool:
    """Read the names once, and keep the set of all positions in the globs that fit so far."""
    places = _past(globs, {0})  # positions in the globs that the next name may match
    for name in names:
        there = [place for place in places if place < len(globs)]
        stay = {place for place in there if globs[place] == "**"}
        on = {place + 1 for place in there if fnmatchcase(name, globs[place])}
        places = stay | _past(globs, on)
    return len(globs) in places


def _past(globs: Sequence[str], places: set[int]) -> set[int]:
    """Add the positions behind each `**`, which may stand for no folder at all."""
    for place, glob in enumerate(globs):
        if glob == "**" and place in places:
            places.add(place + 1)
    return places


def _stand_in(wildcard: str) -> str:
    letters = map(chr, range(ord("!"), 0x7F))
    return next((char for char in letters if char.isalnum() and fnmatchcase(char, wildcard)), "_")
