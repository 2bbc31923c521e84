"""Columns whose values people see nowhere but in the outputs."""

import re
from collections.abc import Sequence
from fnmatch import translate

_IGNORED = re.compile(r"[\W_]+")  # between the letters and digits of a name
_IGNORED_IN_PATTERN = re.compile(r"[^\w*?]+|_+")


def hides(patterns: Sequence[str], column: str) -> bool:
    """Whether a column is one of `privacy.hide_columns`, however it is spelt.

    Case, blanks and punctuation do not count: a column that was renamed so stays hidden.
    """
    return any(
        re.match(translate(told), seen) is not None
        for pattern in patterns
        for told, seen in (
            (pattern.casefold(), column.casefold()),
            (_IGNORED_IN_PATTERN.sub("", pattern.casefold()), _IGNORED.sub("", column.casefold())),
        )
        if told
    )
