"""Columns whose values people see nowhere but in the outputs."""

import re
from collections.abc import Sequence
from fnmatch import translate
from unicodedata import normalize

_IGNORED = re.compile(r"[\W_]+")  # between the letters and digits of a name
_IGNORED_IN_PATTERN = re.compile(r"[^\w*?]+|_+")


def hides(patterns: Sequence[str], column: str) -> bool:
    """Whether a column is one of `privacy.hide_columns`, however it is spelt.

    Case, blanks and punctuation do not count: a column that was renamed so stays hidden. Nor does
    whether a letter and its accent are one character or two.
    """
    seen = folded(column)
    return any(
        re.match(translate(told), name) is not None
        for pattern in map(folded, patterns)
        for told, name in (
            (pattern, seen),
            (_IGNORED_IN_PATTERN.sub("", pattern), _IGNORED.sub("", seen)),
        )
        if told
    )


def folded(name: str) -> str:
    """A column's name without case, each letter and its accent one character."""
    return normalize("NFC", name.casefold())
