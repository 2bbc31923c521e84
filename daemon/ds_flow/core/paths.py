"""Paths as text, and the names of outputs made from them."""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

from ds_flow.core.formats import stem_of

STEM_BYTES = 200  # a longer stem is shortened: a file name has at most 255 bytes
SHORT_STEM_BYTES = 180

HOSTILE_NAME = "control characters or undecodable bytes in the name: rename the file"

SECRET_CHARACTERS = 6  # a shorter secret is not masked: that would mask half of every log line


def escape(raw: str) -> str:
    r"""Turn a raw path into the text that the ledger, logs and people see.

    A backslash is doubled; control characters and undecodable bytes (surrogate escapes) become
    `\xNN`. No two raw paths share a text, and `unescape` gives the raw path back.
    """
    if raw.isprintable() and "\\" not in raw:
        return raw
    return "".join(
        "\\\\"
        if char == "\\"
        else "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape"))
        if is_hostile(char)
        else char
        for char in raw
    )


def unescape(path: str) -> str:
    """Give back the raw path that `escape` was given."""
    if "\\" not in path:
        return path
    raw, rest = bytearray(), path.encode()
    while rest:
        if rest.startswith(b"\\x"):
            raw.append(int(rest[2:4], 16))
            rest = rest[4:]
        else:
            raw += rest[:1] if not rest.startswith(b"\\\\") else b"\\"
            rest = rest[1:] if not rest.startswith(b"\\\\") else rest[2:]
    return raw.decode("utf-8", "surrogateescape")


def in_backquotes(path: str) -> str:
    """Write a path of `escape` such that it cannot end the backquotes around it."""
    return path.replace("`", "\\x60")


def is_hostile(text: str) -> bool:
    """Whether a name holds control characters or undecodable bytes."""
    return any(unicodedata.category(char) in {"Cc", "Cs"} for char in text)


def natural_order(path: str) -> tuple[list[list[tuple[str, int, str]]], str]:
    """Give the key that sorts paths as people count: student_2 before student_10."""
    return [_counted(part) for part in path.split("/")], path


def _counted(name: str) -> list[tuple[str, int, str]]:
    """Cut a name into texts, each with the number after it. A longer number is a larger one."""
    pairs = re.findall(r"([^0-9]*)([0-9]*)", name)
    numbers = ((text, digits.lstrip("0")) for text, digits in pairs)
    return [(text, len(digits), digits) for text, digits in numbers]


def output_stems(paths: Iterable[str]) -> dict[str, str]:
    """Give each escaped path of a batch the stem of its output name, unique in the batch.

    It is the input's own stem. If that is not unique or longer than 200 bytes, it is the first 180
    bytes (of whole characters), "-", and 8 hex digits of the path's SHA-256.
    """
    own = {path: stem_of(unescape(path)) for path in paths}
    often = Counter(own.values())
    short = {
        path: _short_stem(stem, path)
        for path, stem in own.items()
        if often[stem] > 1 or len(stem.encode()) > STEM_BYTES
    }
    taken = set(short.values())  # a file may have the name of a shortened one
    return {
        path: short.get(path) or (_short_stem(stem, path) if stem in taken else stem)
        for path, stem in own.items()
    }


def _short_stem(stem: str, path: str) -> str:
    start = stem.encode()[:SHORT_STEM_BYTES].decode(errors="ignore")
    return f"{start}-{hashlib.sha256(unescape(path).encode()).hexdigest()[:8]}"


def printable(text: str) -> str:
    r"""Escape what a terminal would act on or show misleadingly: `\x1b`, `\u202e`."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
