"""One call of another system's command, with a time limit and without secrets."""

import os
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ds_flow.core import ATTEMPT_MARK, GIVEN_NAMES, DispatchError
from ds_flow.system import put_file

KILL_AFTER_SECONDS = 5
TIMED_OUT_EXIT_CODE = 124  # of timeout(1)
TIMED_OUT = frozenset({TIMED_OUT_EXIT_CODE, 137})  # 137: after the kill that follows
NOT_FOUND_EXIT_CODE = 127

TOOLS_OWN = re.compile(
    r"(LSF|LSB|EGO|SLURM|SBATCH|DOCKER|CONTAINER|XDG)_.*|PATH|HOME|LD_LIBRARY_PATH"
)
"""Variables that the commands themselves read. They are passed on even if `.env` sets them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a command printed, and how it ended. If it timed out, nothing of it is certain."""

    out: str
    err: str
    exit_code: int
    timed_out: bool = False

    @property
    def text(self) -> str:
        """Everything it printed, in one line."""
        return " ".join(f"{self.out} {self.err}".split())


def call(
    argv: Sequence[str],
    limit_seconds: float,
    *,
    stdin: str = "",
    cwd: Path,
    environ: Mapping[str, str] = os.environ,
    output: int | None = None,
) -> Answer:
    """Run a command until it ends or reaches its limit.

    With `output`, what it prints goes to that descriptor, byte by byte, and not into the answer.
    timeout(1) enforces the limit in a process group of its own, so it holds even if this process
    is killed. Raises DispatchError if the command cannot be started.
    """
    limited = ["timeout", f"--kill-after={KILL_AFTER_SECONDS}", f"{limit_seconds:g}", *argv]
    try:
        done = subprocess.run(
            limited,
            input=stdin,
            stdout=subprocess.PIPE if output is None else output,
            stderr=subprocess.PIPE if output is None else subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            cwd=cwd,
            env=environment(environ),
            timeout=limit_seconds + 2 * KILL_AFTER_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:  # a process it started holds its output open
        return Answer(out="", err="", exit_code=TIMED_OUT_EXIT_CODE, timed_out=True)
    except OSError as error:
        raise DispatchError(f"{argv[0]}: {error}") from error
    return _answer(argv[0], done)


def _answer(program: str, done: subprocess.CompletedProcess[str]) -> Answer:
    out, err = done.stdout or "", done.stderr or ""
    if done.returncode == NOT_FOUND_EXIT_CODE and program in err:
        raise DispatchError(f"{program}: {err.strip()}")
    timed_out = done.returncode in TIMED_OUT
    return Answer(out=out, err=err, exit_code=done.returncode, timed_out=timed_out)


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without the attempt's mark, and without the variables of `.env`.

    A job that carried the mark would be killed with the run. `.env` may hold secrets; only what
    the commands themselves read (`TOOLS_OWN`) is kept of it.
    """
    hidden = {ATTEMPT_MARK, *(name for name in given(environ) if not TOOLS_OWN.fullmatch(name))}
    return {name: value for name, value in environ.items() if name not in hidden}


def given(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of `.env` with their current values. A job reads them from a private file."""
    names = environ.get(GIVEN_NAMES, "").split(",")
    return {name: environ[name] for name in names if name in environ}


def put_environment(path: Path, environ: Mapping[str, str]) -> None:
    """Write the variables of `.env` to a file of mode 0600, which bash/run_job.sh reads."""
    variables = given(environ)
    if variables:
        variables["DS_FLOW_MASK"] = environ.get("DS_FLOW_MASK", "")
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in variables.items()]
    if lines and not path.exists():
        with put_file(path, is_durable=False, mode=0o600) as file:
            file.writelines(os.fsencode(line) for line in lines if _is_variable(line))


def _is_variable(line: str) -> bool:
    return line.removeprefix("export ").partition("=")[0].isidentifier()


def print_note(backend: str, text: str) -> None:
    """Print a line for whoever reads the run's log."""
    print(f"[{backend}] {text}", flush=True)  # noqa: T201 - a task's output goes to its run's log
