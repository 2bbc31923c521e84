"""Children of this process that begin as a new program would, with everything imported already."""

import atexit
import io
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, Any, NoReturn
from weakref import WeakSet

_kept: WeakSet[IO[Any]] = WeakSet()

Main = Callable[[], int | str | None]
"""A program's main function. It returns what `sys.exit` takes."""


def keep_from_children(file: IO[Any]) -> None:
    """Let no forked child hold this file open: whoever reads from a pipe waits for all its ends."""
    _kept.add(file)


def fork(main: Main, name: str) -> int:
    """Run `main` in a forked child of this name (up to 15 bytes). Returns its pid.

    The child has default signal handlers and no handlers for its exit, and holds none of the files
    of `keep_from_children`. Everything else is as in this process. It ends with `main`.

    Raises:
        OSError: the system has no room for a further process.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        # Python 3.12 warns of threads: those of NumPy and Arrow wait, and know of forks.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        _be_child(main, name)
    return pid


def open_streams() -> None:
    """Open standard streams anew over the descriptors 0, 1 and 2, as PYTHONUNBUFFERED would.

    What is printed is out at once: it is there if the process crashes then, and it is in order.
    """
    text = partial(io.TextIOWrapper, encoding="utf-8", errors="backslashreplace")
    sys.stdin = text(open(0, "rb", closefd=False))  # noqa: SIM115 - for good
    sys.stdout, sys.stderr = (
        text(open(number, "wb", buffering=0, closefd=False), write_through=True)  # noqa: SIM115
        for number in (1, 2)
    )


def _be_child(main: Main, name: str) -> NoReturn:
    code = 1
    try:
        _begin_anew(name)
        code = _exit_code(main)
    finally:
        os._exit(code)


def _begin_anew(name: str) -> None:
    for file in _kept:
        file.close()
    atexit._clear()  # noqa: SLF001 - what the parent does at its exit
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in signal.valid_signals():
        handler = signal.getsignal(number)
        if number == signal.SIGINT and handler != signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
        elif callable(handler):
            signal.signal(number, signal.SIG_DFL)
    Path("/proc/self/comm").write_text(name, encoding="ascii")


def _exit_code(main: Main) -> int:
    """Run `main` and what is registered for the exit, as the interpreter does."""
    try:
        code = main()
    except SystemExit as end:
        code = end.code
    except KeyboardInterrupt:
        traceback.print_exc()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
        raise
    except BaseException:  # noqa: BLE001 - nobody is above a child's main function
        traceback.print_exc()
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)  # noqa: T201 - as sys.exit does
    atexit._run_exitfuncs()  # noqa: SLF001 - os._exit leaves them out
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # it may be closed
            stream.flush()
    return code if isinstance(code, int) else int(code is not None)
