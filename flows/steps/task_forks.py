"""Tasks and local jobs as forks of the process that runs the flow, which imports everything once.

Metaflow starts a new Python interpreter for each task, and imports everything again there. Nearly
all the time of a small run goes into that. Nothing here outlives the run.
"""

import gc
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import metaflow.runtime
from metaflow.package import MetaflowPackage

from ds_flow.core import FORK
from ds_flow.dispatch import fork_program
from ds_flow.system import fork, keep_from_children, open_streams
from steps.command_line import command_of
from steps.jobs import STEPS

Task = Callable[[], object]

RUNNING = frozenset({"run", "resume"})
LATER = ("metaflow.cli", "metaflow.task", "pyarrow.pandas_compat")
"""What a task or a job would import once it needs it."""

PROCESS_NAME = "ds-flow-task"
POPEN_OPTIONS = {"bufsize": 1, **dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)}
"""How Metaflow's local runtime starts a task, beside its environment."""
CARD_OPTIONS = {"stderr", "timeout"}
"""How a task has a card made."""
LONGEST_S = 60.0  # that a card may take which has no limit of its own


def fork_tasks(task: Task) -> None:
    """From now on, if this process runs the flow, fork its tasks and their local jobs.

    `task` runs the flow's command line as a task has it, in `sys.argv`.

    A Metaflow that starts its tasks in another way than is known here goes on with that, and so
    does a run with decorators of its command line.
    """
    is_run = command_of(sys.argv) in RUNNING
    is_known = getattr(metaflow.runtime, "subprocess", None) is subprocess
    # A fork has the decorators of --with already, and would add them a second time.
    is_decorated = any(word.startswith("--with") for word in sys.argv)
    if not is_run or is_decorated or not is_known or os.environ.get(FORK) == "false":
        return
    _import_programs()
    _learn_commit()
    _leave_out_package()
    _replace(metaflow.runtime, Popen=partial(_popen, task))
    cards = sys.modules.get("metaflow.plugins.cards.card_creator")
    _replace(cards, check_output=partial(_check_output, task))
    gc.freeze()  # what is imported stays shared between the forks


def _replace(module: object, **functions: Callable[..., object]) -> None:
    """Give a module a `subprocess` of its own with these functions, if it has the known one."""
    if getattr(module, "subprocess", None) is subprocess:
        replaced = SimpleNamespace(**{**vars(subprocess), **functions})
        setattr(module, "subprocess", replaced)  # noqa: B010 - of a module


def _popen(task: Task, command: Sequence[str], **options: Any) -> object:
    """Start a task of this flow as a fork, and any other program as it is."""
    environ = options.pop("env", None)
    if "step" in command and _can_fork(command, environ) and options == POPEN_OPTIONS:
        return ForkedTask(task, command, environ)
    return subprocess.Popen(command, env=environ, **options)


def _check_output(task: Task, command: Sequence[str], **options: Any) -> bytes:
    """Make a card of this flow in a fork, and run any other program as it is."""
    environ = options.pop("env", None)
    is_card = {"card", "create"} <= {*command}
    if is_card and _can_fork(command, environ) and options.keys() == CARD_OPTIONS:
        return _output_of_fork(task, command, environ, options["timeout"] or LONGEST_S)
    said: bytes = subprocess.check_output(command, env=environ, **options)
    return said


def _can_fork(command: Sequence[str], environ: Mapping[str, str] | None) -> bool:
    """Whether a command line is of this flow, and a fork may run it."""
    is_own = tuple(command[:2]) == (sys.executable, sys.argv[0])
    # A lock that another thread holds stays locked in a fork for ever.
    return is_own and environ is not None and threading.active_count() == 1


def _import_programs() -> None:
    """Import what the local jobs are made of. Only a process that forks needs it."""
    import numpy as np

    from steps import align_job, process_job

    fork_program(str(STEPS / "process_job.py"), process_job.main)
    fork_program(str(STEPS / "align_job.py"), align_job.main)
    fork_program(str(STEPS / "parquet_job.py"), _write_parquet)
    for name in LATER:
        with suppress(ImportError):
            import_module(name)
    os.register_at_fork(after_in_child=np.random.seed)  # random, uuid and secrets do so themselves


def _write_parquet(argv: Sequence[str]) -> int:
    from steps import parquet_job

    return parquet_job.main(argv)


def _learn_commit() -> None:
    """Let Metaflow ask git now. It asks once, for the metadata of all tasks."""
    git = sys.modules.get("metaflow.metaflow_git")
    if git is not None and hasattr(git, "get_repository_info"):
        git.get_repository_info(str(Path(sys.argv[0]).absolute().parent))


def _leave_out_package() -> None:
    """Let Metaflow not pack the code. Only jobs that it sends away itself need that.

    It takes half a second of CPU for each run, in a thread beside the forks.
    """
    if hasattr(MetaflowPackage, "_package_and_upload"):
        MetaflowPackage._package_and_upload = lambda _self: None  # noqa: SLF001 - it has no option


class ForkedTask:
    """A task as a fork: as much of `subprocess.Popen` as Metaflow's runtime uses."""

    def __init__(self, task: Task, command: Sequence[str], environ: Mapping[str, str]) -> None:
        self.returncode: int | None = None
        theirs: list[int] = []
        self.stdin, self.stdout, self.stderr = (_pipe(mode, theirs) for mode in ("wb", "rb", "rb"))

        def main() -> None:
            for descriptor, end in enumerate(theirs):
                os.dup2(end, descriptor)
                os.close(end)
            _run(task, command, environ)

        try:
            self.pid = fork(main, PROCESS_NAME)
        finally:
            for end in theirs:
                os.close(end)

    def poll(self) -> int | None:
        """Return its exit code, negative for a signal, or None while it runs."""
        return self._wait(os.WNOHANG)

    def wait(self) -> int | None:
        """Return its exit code once it has ended."""
        return self._wait(0)

    def kill(self) -> None:
        """Kill it, unless it is known to have ended."""
        if self.poll() is None:
            os.kill(self.pid, 9)

    def _wait(self, options: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode


def _run(task: Task, command: Sequence[str], environ: Mapping[str, str]) -> None:
    """Run a command line of the flow, in a fork that has its three descriptors."""
    open_streams()
    os.environ.clear()
    os.environ.update(environ)
    sys.argv = list(command[1:])
    task()


def _output_of_fork(
    task: Task, command: Sequence[str], environ: Mapping[str, str], limit_s: float
) -> bytes:
    """Do as `subprocess.check_output` does, with both streams as its output.

    Also a system without room is a failure of the command, which Metaflow lets pass.
    """
    try:
        code, output = _ended_fork(task, command, environ, limit_s)
    except OSError as error:
        raise subprocess.CalledProcessError(1, command, str(error).encode()) from error
    if code is None:
        raise subprocess.TimeoutExpired(command, limit_s, output)
    if code:
        raise subprocess.CalledProcessError(code, command, output)
    return output


def _ended_fork(
    task: Task, command: Sequence[str], environ: Mapping[str, str], limit_s: float
) -> tuple[int | None, bytes]:
    """Run a command line in a fork: its exit code, None if it took too long, and what it said."""
    with os.fdopen(os.memfd_create("said"), "w+b") as said:

        def main() -> None:
            for descriptor in (1, 2):
                os.dup2(said.fileno(), descriptor)
            _run(task, command, environ)

        pid = fork(main, PROCESS_NAME)
        is_in_time = False
        try:
            is_in_time = _has_ended(pid, limit_s)
        finally:
            if not is_in_time:
                os.kill(pid, signal.SIGKILL)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        said.seek(0)
        return (code if is_in_time else None), said.read()


def _has_ended(pid: int, limit_s: float) -> bool:
    """Wait for a child; whether it ended in time."""
    child = os.pidfd_open(pid)
    try:
        ends = select.poll()
        ends.register(child, select.POLLIN)
        return bool(ends.poll(limit_s * 1000))
    finally:
        os.close(child)


def _pipe(mode: str, theirs: list[int]) -> IO[bytes]:
    """Make a pipe. Returns this process's end, which no fork holds; the other one is the task's."""
    reading, writing = os.pipe()
    mine, other = (writing, reading) if mode == "wb" else (reading, writing)
    theirs.append(other)
    file: IO[bytes] = os.fdopen(mine, mode)
    keep_from_children(file)
    return file
