"""What many tests stand on: a clock that is moved, and a ledger in a file of its own."""

import logging
import os
import shutil
import signal
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import hypothesis
import pytest

from clock import MovedClock
from ds_flow.dispatch import local_jobs
from ds_flow.ledger.ledger import Ledger
from power import Power

# Under nohup(1), and in the background of a script, signals are ignored, and every child inherits
# that. What has a handler is at its default again in a child: so a test may send any signal.
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, lambda *_: None)

# Where this is set, every worker and every program that a test starts compiles all modules anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# No example fails for its time: this machine may be a slow one.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


MEMORY = Path("/dev/shm")  # noqa: S108 - the sticky bit guards it as it does /tmp
MEMORY_BYTES = 2**31  # `make test` takes a tenth of it


def pytest_configure(config: pytest.Config) -> None:
    """Let `make test` work in memory, where an fsync waits for no disk; `make check` has the disk.

    TMPDIR names another place, for both.
    """
    if config.option.markexpr == "not exhaustive" and "TMPDIR" not in os.environ:
        found = os.statvfs(MEMORY) if MEMORY.is_dir() else None
        if found and not found.f_flag & os.ST_NOEXEC and _free(found) > MEMORY_BYTES:
            os.environ["TMPDIR"] = str(MEMORY)
            tempfile.tempdir = None  # it is asked again


def _free(found: os.statvfs_result) -> int:
    return found.f_bavail * found.f_frsize


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if config.option.markexpr == "not exhaustive":
        terminalreporter.write_line("left out: what is marked exhaustive; `make check` runs it too")


OF_A_DAEMON = (signal.SIGIO, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


@pytest.fixture(autouse=True)
def own_logs() -> Iterator[None]:
    """What a test sets up by running a command in this process ends with it."""
    raises = logging.raiseExceptions
    handled = {number: signal.getsignal(number) for number in OF_A_DAEMON}
    yield
    package = logging.getLogger("ds_flow")
    for target in package.handlers[:]:
        package.removeHandler(target)
        target.close()
    package.propagate = True
    package.setLevel(logging.NOTSET)
    logging.raiseExceptions = raises
    for number, handler in handled.items():
        signal.signal(number, handler)


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "ledger.db")
    yield opened
    opened.close()


def require(program: str) -> str:
    """Find a program that a test cannot do without: where it is missing, the test is skipped.

    Where DS_FLOW_REQUIRE is set, as in CI, every program has to be there, and the test fails.
    """
    found = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if found is None and os.environ.get("DS_FLOW_REQUIRE"):
        pytest.fail(f"there is no {program}, and DS_FLOW_REQUIRE is set")
    if found is None:
        pytest.skip(f"there is no {program}")
    return found


@pytest.fixture
def power(monkeypatch: pytest.MonkeyPatch) -> Power:
    return Power(monkeypatch)


@pytest.fixture
def forks_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs fork, also where all other tests are told to do without: forks are the subject."""
    monkeypatch.delenv("DS_FLOW_RUN__FORK", raising=False)


@pytest.fixture
def forked_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Local jobs of the flow are forks, as in a run. A new interpreter would take much longer."""
    from steps import align_job, process_job
    from steps.jobs import STEPS

    programs = {"align_job.py": align_job.main, "process_job.py": process_job.main}
    for script, main in programs.items():
        monkeypatch.setitem(local_jobs._programs, str(STEPS / script), main)


@pytest.fixture
def db(ledger: Ledger, tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """The same file, seen and changed past the ledger."""
    path = tmp_path / "ledger.db"
    assert ledger.read.total() == 0
    with closing(sqlite3.connect(path, isolation_level=None)) as opened:
        opened.execute("PRAGMA foreign_keys = ON")
        yield opened
