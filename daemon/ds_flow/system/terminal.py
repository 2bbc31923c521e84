"""What people and programs see: data on standard output, messages on standard error."""

import json
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from ds_flow.core import printable

DONE, FAILED, INTERRUPTED = 0, 1, 130  # exit codes
STANDARD_ERROR = 2


class Output:
    """What one command prints."""

    has_begun = False  # whether there is anything on standard output
    head: Mapping[str, Any] = {}  # the first keys of each document
    gathered: list[str] | None = None  # lines for people that become a document at the end


def speak_utf8() -> None:
    """Take and print all text as UTF-8, whatever the locale is: else a file has another name.

    The interpreter settles that when it starts. If it chose another encoding, this process becomes
    the same program again.
    """
    Output.has_begun, Output.head, Output.gathered = False, {}, None
    if sys.getfilesystemencoding() != "utf-8" and not sys.flags.utf8_mode:
        again = [sys.executable, "-X", "utf8", *sys.orig_argv[1:]]
        os.execv(sys.executable, again)  # noqa: S606 - this very process
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]


def _open_closed_streams() -> None:
    """Lead closed standard streams to /dev/null. Else the next open file takes their place."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= STANDARD_ERROR:
        os.set_inheritable(descriptor, True)  # noqa: FBT003 - os's own
    os.close(descriptor)
    sys.stdin, sys.stdout, sys.stderr = (
        stream or os.fdopen(number, mode, closefd=False)
        for number, (stream, mode) in enumerate(
            ((sys.stdin, "r"), (sys.stdout, "w"), (sys.stderr, "w"))
        )
    )


def say(text: str) -> None:
    """Tell the person something that is no data."""
    lines = "\n".join(map(printable, text.split("\n")))
    print(f"ds-flow: {lines}", file=sys.stderr)  # noqa: T201 - this is where messages are printed


def put(text: str = "") -> None:
    """Print one line of data for people, whatever is in it."""
    put_lines(printable(text))


def put_lines(text: str) -> None:
    """Print text of our own as it is."""
    if Output.gathered is None:
        _print(text)
    else:
        Output.gathered += text.splitlines()


def _print(text: str) -> None:
    Output.has_begun = True
    print(text)  # noqa: T201 - this is where data is printed


def put_document(document: Mapping[str, Any]) -> None:
    """Print one JSON document of ours, which names itself."""
    put_foreign({**Output.head, **document})


def put_foreign(document: Any) -> None:
    """Print a JSON document whose form others have laid down, in ASCII: no locale can break it."""
    _print(json.dumps(document, indent=1))


def put_error(message: str, exit_code: int) -> None:
    """Print an error as the JSON document that was asked for, if none has begun."""
    if not Output.has_begun:
        put_document({"error": message, "exit_code": exit_code})


def put_long_document(key: str, items: Iterable[Any]) -> None:
    """Print a document with the key KEY, one item a line, without holding them all."""
    before = f"{json.dumps({**Output.head, key: []})[:-2]}"
    for item in items:
        _print(before + json.dumps(item))
        before = ","
    _print("]}" if before == "," else f"{before}]}}")
