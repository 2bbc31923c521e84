"""What an input pattern means: by which rule a path matches it."""

import re
from fnmatch import fnmatchcase
from functools import lru_cache

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


@lru_cache(4096)  # each pair of ends is tried once, so that many `**` cost no more than one
def _match(globs: tuple[str, ...], names: tuple[str, ...]) -> bool:
    if not globs or not names:
        return not globs and not names
    if globs[0] == "**":
        return _match(globs[1:], names) or _match(globs, names[1:])
    return fnmatchcase(names[0], globs[0]) and _match(globs[1:], names[1:])


def _stand_in(wildcard: str) -> str:
    letters = map(chr, range(ord("!"), 0x7F))
    return next((char for char in letters if char.isalnum() and fnmatchcase(char, wildcard)), "_")
