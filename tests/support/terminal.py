"""What a person sees: a command on a terminal of its own."""

import os
import pty
import re
import subprocess
from collections.abc import Sequence


def in_terminal(argv: Sequence[str], *variables: tuple[str, str], code: int = 0) -> bytes:
    """Run a command on a terminal of 200 columns; what stands there when it has ended."""
    ours, theirs = pty.openpty()
    environ = {**os.environ, "TERM": "xterm", "COLUMNS": "200", **dict(variables)}
    with subprocess.Popen(argv, stdout=theirs, stderr=theirs, env=environ) as process:
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 4096):
                shown += piece
        except OSError:  # EIO: nobody writes any more
            pass
        os.close(ours)
    assert process.returncode == code, shown
    return shown


def plain(shown: str) -> str:
    """The text without its colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", shown)
