"""A test's own LSF cluster: started, asked, broken and mended."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lsf_emulator import faults
from lsf_emulator.client import exchange
from lsf_emulator.config import Config, Dialect
from lsf_emulator.words import CALLS

TESTS = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True)
class Call:
    """One use of an LSF command. Without an end it is still running, or was killed."""

    command: str
    argv: tuple[str, ...]
    cwd: str
    pid: int
    started_at: float
    ended_at: float | None
    exit_code: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One element as it truly is, whatever bjobs says. Times are 0 for what has not been."""

    job_id: int
    index: int
    name: str
    queue: str
    slots: int
    status: str
    exit_code: int | None
    reason: str
    host: str
    pid: int  # the process, and the session, of its script
    submitted_at: float
    started_at: float
    ended_at: float


class Cluster:
    """An LSF cluster in a folder of its own, alive inside `with`."""

    def __init__(
        self,
        folder: Path,
        dialect: Dialect = "ibm",
        *,
        slots: int = 4,
        queues: Mapping[str, int] | None = None,
        max_array: int = 1000,
        clean_period_s: float = 3600.0,
        scheduling_delay_s: float = 0.05,
        minute_s: float = 60.0,
        kill_interval_s: float = 10.0,
        memory_checked_below_mb: int = 512,
        queue_memory_mb: int = 0,
        conf: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder.absolute()
        self.config = Config(
            dialect=dialect,
            slots=slots,
            queues=dict(queues or {"short": slots, "normal": slots}),
            max_array=max_array,
            clean_period_s=clean_period_s,
            scheduling_delay_s=scheduling_delay_s,
            minute_s=minute_s,
            kill_interval_s=kill_interval_s,
            memory_checked_below_mb=memory_checked_below_mb,
            queue_memory_mb=queue_memory_mb,
            conf=dict(conf or {}),
        )
        self._mbatchd: subprocess.Popen[bytes] | None = None

    @property
    def env(self) -> dict[str, str]:
        """This process's environment, in which the LSF commands are this cluster's."""
        return {
            **os.environ,
            "PATH": f"{TESTS / 'bin'}:{os.environ['PATH']}",
            "LSF_EMULATOR": str(self.folder),
            "LSF_EMULATOR_PYTHON": sys.executable,
        }

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.config.write(self.folder)
        with (self.folder / "mbatchd.log").open("ab") as log:
            self._mbatchd = subprocess.Popen(
                [sys.executable, "-S", "-E", "-m", "lsf_emulator.mbatchd", str(self.folder)],
                cwd=TESTS,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                process_group=0,
            )
        assert self._mbatchd.stdout
        assert self._mbatchd.stdout.readline() == b"ready\n", self.log()

    def stop(self) -> None:
        """End the scheduler and every process of every job."""
        if self._mbatchd is None:
            return
        self._mbatchd.communicate()
        code, self._mbatchd = self._mbatchd.returncode, None
        assert code == 0, self.log()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.stop()

    def cpu_seconds(self) -> tuple[float, float]:
        """What the scheduler has used, and what its jobs that have ended; proc_pid_stat(5)."""
        assert self._mbatchd
        stat = Path(f"/proc/{self._mbatchd.pid}/stat").read_text(encoding="ascii")
        own, own_system, ended, ended_system = map(int, stat.rpartition(")")[2].split()[11:15])
        ticks = os.sysconf("SC_CLK_TCK")
        return (own + own_system) / ticks, (ended + ended_system) / ticks

    def log(self) -> str:
        """What the scheduler itself complained of."""
        return (self.folder / "mbatchd.log").read_text(encoding="utf-8", errors="replace")

    def fault(self, name: faults.Name, **arguments: object) -> None:
        """Break something until it is mended; the arguments stand at `faults.Name`."""
        self._control("fault", name=name, arguments=arguments)

    def mend(self, name: faults.Name) -> None:
        self._control("mend", name=name)

    def rerun(self, job: Job) -> None:
        """Start an element again under its id, as LSF does with a rerunnable job.

        What ran before goes on, as on a host that lost contact.
        """
        self._control("rerun", job_id=job.job_id, index=job.index)

    def held(self) -> int:
        """How many requests a `hung` scheduler has heard and not answered."""
        count: int = self._control("held")
        return count

    def jobs(self, name: str | None = None) -> list[Job]:
        """Every element ever submitted, by job id and index; of one name if it is given."""
        found = [Job(**row) for row in self._control("jobs")]
        return [job for job in found if name in {None, job.name}]

    def calls(self, command: str | None = None) -> list[Call]:
        """The uses of the LSF commands, in their order; of one command if it is given."""
        found: dict[str, Call] = {}
        for row in self._records():
            if "command" in row:
                found[row["call"]] = Call(
                    row["command"],
                    tuple(row["argv"]),
                    row["cwd"],
                    row["pid"],
                    row["at"],
                    None,
                    None,
                )
            else:
                before = found[row["call"]]
                found[row["call"]] = replace(before, ended_at=row["at"], exit_code=row["exit"])
        return [call for call in found.values() if command in {None, call.command}]

    def _records(self) -> list[dict[str, Any]]:
        path = self.folder / CALLS
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]

    def _control(self, verb: str, **arguments: object) -> Any:
        message = {"command": "control", "control": {"verb": verb, **arguments}}
        answer = exchange(self.folder, message)
        assert answer is not None, f"the scheduler does not answer: {self.log()}"
        return answer["result"]
