"""system/forks: a forked child begins as a new program would, and ends as one."""

import atexit
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ds_flow.system import fork, keep_from_children
from ds_flow.system.forks import Main


def ended(main: Main) -> int:
    """The exit code of a child, negative for a signal."""
    _, status = os.waitpid(fork(main, "a-child"), 0)
    return os.waitstatus_to_exitcode(status)


def leave(code: object) -> None:
    raise SystemExit(code)


@pytest.fixture
def handled() -> Iterator[None]:
    """Handlers of this process, which no child shall have."""
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    hup = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    yield
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    signal.signal(signal.SIGTERM, before)
    signal.signal(signal.SIGHUP, hup)


@pytest.mark.parametrize(
    ("main", "code"),
    [
        (lambda: None, 0),
        (lambda: 3, 3),
        (lambda: leave(None), 0),
        (lambda: leave(4), 4),
        (lambda: leave("a reason"), 1),
        (lambda: 1 // 0, 1),
        (lambda: os._exit(5), 5),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), -signal.SIGKILL),
    ],
)
def test_a_child_ends_with_the_exit_code_of_its_main_function(main: Main, code: int) -> None:
    assert ended(main) == code


@pytest.mark.usefixtures("handled")
def test_a_child_has_no_signal_handlers_and_ignores_what_was_ignored() -> None:
    def is_ignored() -> bool:
        return signal.getsignal(signal.SIGHUP) != signal.SIG_IGN

    assert ended(lambda: os.kill(os.getpid(), signal.SIGTERM)) == -signal.SIGTERM
    assert ended(is_ignored) == 0


def test_a_child_runs_what_is_registered_in_it_for_its_exit_and_nothing_else(
    tmp_path: Path,
) -> None:
    (tmp_path / "mine").touch()
    (tmp_path / "parents").touch()

    def main() -> None:
        atexit.register((tmp_path / "mine").unlink)

    of_parent = (tmp_path / "parents").unlink
    atexit.register(of_parent)
    try:
        assert ended(main) == 0
    finally:
        atexit.unregister(of_parent)

    assert not (tmp_path / "mine").exists()
    assert (tmp_path / "parents").exists()


def test_a_child_holds_no_file_that_is_kept_from_it() -> None:
    reading, writing = os.pipe()
    file = os.fdopen(writing, "wb")
    keep_from_children(file)
    wait, go = os.pipe()

    pid = fork(lambda: len(os.read(wait, 1)) - 1, "a-child")
    file.close()

    assert os.read(reading, 1) == b""  # the child lives, and does not hold the other end
    os.write(go, b".")
    assert os.waitpid(pid, 0) == (pid, 0)
    for descriptor in (reading, wait, go):
        os.close(descriptor)


def test_a_child_is_found_by_its_name() -> None:
    assert ended(lambda: Path("/proc/self/comm").read_text() != "a-child\n") == 0


def test_what_was_printed_before_a_fork_is_printed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "printed").open("w") as printed:
        monkeypatch.setattr(sys, "stdout", printed)
        sys.stdout.write("before\n")
        assert ended(lambda: print("in it")) == 0  # noqa: T201
        monkeypatch.undo()

    assert (tmp_path / "printed").read_text() == "before\nin it\n"
