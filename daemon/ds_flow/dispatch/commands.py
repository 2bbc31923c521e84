"""One call of another system's command line: hard time limit, no mark, no secret."""

import os
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ds_flow.core import ATTEMPT_MARK, GIVEN_NAMES, DispatchError
from ds_flow.system import open_private

KILL_AFTER_SECONDS = 5
TIMED_OUT_EXIT_CODE = 124  # of timeout(1)
TIMED_OUT = frozenset({TIMED_OUT_EXIT_CODE, 137})  # 137: after the kill that follows
NOT_FOUND_EXIT_CODE = 127

TOOLS_OWN = re.compile(r"(LSF|LSB|EGO|DOCKER|CONTAINER|XDG)_.*|PATH|HOME|LD_LIBRARY_PATH")
"""The variables that the commands themselves go by, wherever they were set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a command said, and how it ended. One that reached its limit has said nothing sure."""

    out: str
    err: str
    exit_code: int
    timed_out: bool = False

    @property
    def text(self) -> str:
        """Everything that it said, in one line."""
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
    """Run a command to its end or its limit, whichever comes first.

    What it prints goes to the descriptor `output`, if given, byte by byte, and not into the answer.

    The limit is kept by timeout(1) in a process group of its own, so that it holds even if this
    process is killed meanwhile. Raises DispatchError if the command cannot be started.
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
    except subprocess.TimeoutExpired:  # something that it started holds its output open
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
    """The environment without the mark, and without what is secret in `.env`.

    A job that carried the mark would die with the run.
    """
    hidden = {ATTEMPT_MARK, *(name for name in given(environ) if not TOOLS_OWN.fullmatch(name))}
    return {name: value for name, value in environ.items() if name not in hidden}


def given(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of `.env`, with the values in force: a job gets them by a file of mode 0600."""
    names = environ.get(GIVEN_NAMES, "").split(",")
    return {name: environ[name] for name in names if name in environ}


def put_environment(path: Path, environ: Mapping[str, str]) -> None:
    """Leave the variables of `.env` where only this user's jobs find them: bash/run_job.sh."""
    variables = given(environ)
    if variables:
        variables["DS_FLOW_MASK"] = environ.get("DS_FLOW_MASK", "")
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in variables.items()]
    if lines and not path.exists():
        part = path.with_name(f".{path.name}.part")
        part.unlink(missing_ok=True)
        with os.fdopen(open_private(part), "w", encoding="utf-8", errors="surrogateescape") as file:
            file.writelines(line for line in lines if _is_variable(line))
        part.replace(path)


def _is_variable(line: str) -> bool:
    return line.removeprefix("export ").partition("=")[0].isidentifier()


def print_note(backend: str, text: str) -> None:
    """Print a line for whoever reads the run's log."""
    print(f"[{backend}] {text}", flush=True)  # noqa: T201 - a task's output goes to its run's log
