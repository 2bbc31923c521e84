"""A real Slurm on this host for tests: munged, slurmctld and slurmd, which may be killed."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import pytest
from conftest import require

from project import until

Program = Literal["munged", "slurmctld", "slurmd"]
HOST = socket.gethostname().partition(".")[0]

CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={root}/munge.socket
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0
MessageTimeout=3
TCPTimeout=1
KillWait=1
CompleteWait=0
SlurmdTimeout={node_timeout_s}
MaxArraySize={max_array}
MinJobAge={forgotten_after_s}
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory_mb} State=UNKNOWN
PartitionName=short Nodes=ALL Default=YES MaxTime=INFINITE State=UP
PartitionName=closed Nodes=ALL MaxTime=INFINITE State=INACTIVE
"""


class Slurm:
    """A Slurm without accounting in a folder of its own, alive inside `with`."""

    def __init__(
        self,
        *,
        cpus: int = 8,
        memory_mb: int = 64_000,
        max_array: int = 1001,
        forgotten_after_s: int = 300,
        node_timeout_s: int = 300,
    ) -> None:
        self.root = Path(tempfile.gettempdir())  # its own folder, once it is entered
        self._limits = {
            "cpus": cpus,
            "memory_mb": memory_mb,
            "max_array": max_array,
            "forgotten_after_s": forgotten_after_s,
            "node_timeout_s": node_timeout_s,
        }
        self._processes: dict[Program, subprocess.Popen[bytes]] = {}

    @property
    def conf(self) -> Path:
        return self.root / "slurm.conf"

    @property
    def host(self) -> str:
        return HOST

    @property
    def env(self) -> dict[str, str]:
        """What a process needs to reach it."""
        return {"SLURM_CONF": str(self.conf)}

    def __enter__(self) -> Self:
        for program in ("munged", "slurmctld", "slurmd", "sbatch"):
            require(program)
        if os.getuid():
            pytest.skip("only root can start a Slurm")
        self.root = Path(tempfile.mkdtemp(prefix="ds-flow-slurm-"))  # a socket's path is short
        self.root.chmod(0o755)
        for name in ("state", "spool", "log"):
            (self.root / name).mkdir()
        key = self.root / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        port, node_port = free_port(), free_port()
        ports = {"host": HOST, "root": self.root, "port": port, "node_port": node_port}
        self.conf.write_text(CONF.format(**ports, **self._limits))
        try:
            self.start("munged")
            self.start("slurmctld")
            self.start("slurmd")
            until(f"the host was idle; see {self.root}/log", lambda: "idle" in self.ask("sinfo"))
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._end()
        if error is None:
            shutil.rmtree(self.root, ignore_errors=True)

    # ------------------------------------------------------------------ its programs

    def start(self, program: Program) -> None:
        """Start a program, if it is not there."""
        if program in self._processes and self._processes[program].poll() is None:
            return
        arguments = {
            "munged": (
                *("--foreground", "--force", f"--key-file={self.root}/munge.key"),
                f"--socket={self.root}/munge.socket",
                f"--pid-file={self.root}/munged.pid",
                f"--log-file={self.root}/log/munged",
                f"--seed-file={self.root}/munge.seed",
            ),
            "slurmctld": ("-D", "-f", str(self.conf)),
            "slurmd": ("-D", "-f", str(self.conf)),
        }
        with (self.root / "log" / f"{program}.out").open("ab") as log:
            command = [require(program), *arguments[program]]
            self._processes[program] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        if program == "munged":
            until("munged listened", (self.root / "munge.socket").exists)

    def kill(self, program: Program) -> None:
        """Let a program die without a word."""
        self._processes[program].kill()
        self._processes[program].wait()

    def stop(self, program: Program) -> None:
        """Let a program hang."""
        self._processes[program].send_signal(signal.SIGSTOP)

    def go_on(self, program: Program) -> None:
        """Let it go on."""
        self._processes[program].send_signal(signal.SIGCONT)

    def _end(self) -> None:
        for process in self._processes.values():
            process.send_signal(signal.SIGCONT)
        for process in self._processes.values():
            process.kill()
            process.wait()
        for pid in self.steps():  # what watches a job, and the job: a group of their own
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def steps(self, *, of_jobs_only: bool = False) -> list[int]:
        """The processes of all jobs, and those that watch them."""
        mark = f"SLURM_CONF={self.conf}".encode()
        own = {process.pid for process in self._processes.values()}
        return [
            pid
            for pid in (int(path.name) for path in Path("/proc").glob("[0-9]*"))
            if pid not in own
            and pid != os.getpid()
            and _is_of_job(pid, mark, watchers=not of_jobs_only)
        ]

    # ------------------------------------------------------------------ its jobs

    def ask(self, *command: str) -> str:
        """What a command answers, without judging it."""
        env = {**os.environ, **self.env}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    def jobs(self) -> Mapping[str, str]:
        """Each element, as `1_3`, and its state in Slurm's words."""
        listed = self.ask("squeue", "-h", "-r", "-t", "all", "-o", "%F_%K %T")
        return dict(line.split(" ", 1) for line in listed.splitlines() if line[:1].isdecimal())

    def live(self) -> list[str]:
        """The elements that have not ended."""
        return [job for job, state in self.jobs().items() if state in {*LIVE}]

    def log(self) -> str:
        """What slurmctld and slurmd have said."""
        return "".join(path.read_text(errors="replace") for path in self.root.glob("log/*.out"))


LIVE = ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED")


def _is_of_job(pid: int, mark: bytes, *, watchers: bool) -> bool:
    """Whether a process is of a job there: jobs have an id besides."""
    with suppress(OSError):
        found = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        if Path(f"/proc/{pid}/comm").read_text().strip() == "slurmstepd":
            return watchers and mark in found
        return mark in found and any(one.startswith(b"SLURM_JOB_ID=") for one in found)
    return False


def free_port() -> int:
    """A port that nobody has just now."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
