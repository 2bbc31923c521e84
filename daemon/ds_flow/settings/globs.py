"""What an input pattern means: by which rule a path matches it."""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

TEMPORARY = re.compile(
    r"\..*|.*~|.*\.(tmp|part|filepart|crdownload|swp)", re.DOTALL | re.IGNORECASE
)
"""Hidden names and those that writers use for what is not finished; no wildcard reaches them."""

_WILD = re.compile(r"[*?[]")
_WILDCARD = re.compile(r"[*?]|\[!?\]?[^]]*\]")


def split(pattern: str) -> tuple[str, list[str]]:
    """Split an absolute pattern into its folder and one glob for each name below that.

    The folder is all before the first name with a wildcard, and never the last name.
    """
    names = pattern.split("/")
    wild = (n for n, name in enumerate(names[:-1]) if _WILD.search(name))
    first = next(wild, len(names) - 1)
    return "/".join(names[:first]) or "/", names[first:]


def matches(pattern: str, path: str) -> bool:
    """Say whether an absolute path matches: `*`, `?` and `[...]` in a name, `**` over folders."""
    folder, globs = split(pattern)
    start = folder.rstrip("/") + "/"
    names = path.removeprefix(start).split("/")
    passed_over = any(TEMPORARY.fullmatch(name) for name in names)
    return path.startswith(start) and not passed_over and _match(tuple(globs), tuple(names))


def example(glob: str) -> str:
    """Make a name that a glob of one name matches."""
    return _WILDCARD.sub(lambda wildcard: _stand_in(wildcard[0]), glob)


def _match(globs: Sequence[str], names: Sequence[str]) -> bool:
    """Go through the names once, with every way that the globs may be meant at the same time."""
    places = _past(globs, {0})  # in the globs, where the next name may belong
    for name in names:
        there = [place for place in places if place < len(globs)]
        stay = {place for place in there if globs[place] == "**"}
        on = {place + 1 for place in there if fnmatchcase(name, globs[place])}
        places = stay | _past(globs, on)
    return len(globs) in places


def _past(globs: Sequence[str], places: set[int]) -> set[int]:
    """Add the places behind each `**`, which may be no folder at all."""
    for place, glob in enumerate(globs):
        if glob == "**" and place in places:
            places.add(place + 1)
    return places


def _stand_in(wildcard: str) -> str:
    letters = map(chr, range(ord("!"), 0x7F))
    return next((char for char in letters if char.isalnum() and fnmatchcase(char, wildcard)), "_")
