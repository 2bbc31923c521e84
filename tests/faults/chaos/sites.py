"""Where the jobs of a chaos run are: here, on an LSF or a Slurm, or in an engine of its own.

A site adds its settings and its environment to a project, breaks in ways of its own, and says what
it still holds once everything has come to rest.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos.faults import FAULTS, Chaos, Fault, Undo
from engine import Dockerd, full_image, names_of, own_engine
from lsf import Cluster
from lsf_emulator.faults import Name
from project import until
from slurm import Program, Slurm

# The clock that jumps is the daemon's alone: a cluster and an engine have theirs.
ON_THIS_CLOCK = {name: fault for name, fault in FAULTS.items() if name != "clock"}
END_LOOKS = 60  # a second apart, from rest to the end of what was told to end


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One backend as a project is told of it."""

    faults: Mapping[str, Fault]
    compute: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    held: Callable[[], list[str]] = list  # jobs without an end, by name

    def left(self) -> list[str]:
        """What it still holds after a while."""
        try:
            until("nothing was held", lambda: not self.held(), every=1.0, looks=END_LOOKS)
        except AssertionError:
            return self.held()
        return []


@contextmanager
def local(_folder: Path) -> Iterator[Site]:
    yield Site(faults=FAULTS)


# --------------------------------------------------------------------------- LSF

ON_LSF = {
    "executor": "lsf",
    "lsf": {"poll_seconds": 0.2, "command_seconds": 3, "grace_seconds": 1, "unknown_minutes": 1},
}
LSF_FAULTS: dict[str, tuple[Name, dict[str, Any]]] = {
    "mbatchd down, waited for": ("down", {"mode": "wait", "stream": "stderr"}),
    "mbatchd down": ("down", {"mode": "fail", "stream": "stdout"}),
    "mbatchd silent": ("hung", {}),
    "reply lost in a hang": ("reply_lost", {"how": "hang"}),
    "reply lost with 255": ("reply_lost", {"how": "exit"}),
    "bsub killed": ("reply_lost", {"how": "kill"}),
    "bsub taken twice": ("twice", {}),
    "noise": ("noise", {"stdout": "Please wait ...\n{x}\n", "stderr": "Verifying ...\n"}),
    "bjobs empty": ("empty", {}),
    "rows shuffled": ("shuffled", {}),
    "fresh jobs hidden": ("fresh_hidden", {"seconds": 3.0}),
    "hosts unknown": ("unknown", {}),
    "DONE told as EXIT": ("shown", {"status": "EXIT", "exit_code": 1, "instead_of": ["DONE"]}),
    "EXIT told as DONE": ("shown", {"status": "DONE", "instead_of": ["EXIT"]}),
    "bkill in progress": ("in_progress", {}),
    "exit codes late": ("late_exit", {"seconds": 0.5}),
}


@contextmanager
def lsf(folder: Path) -> Iterator[Site]:
    with Cluster(folder / "cluster", slots=8, kill_interval_s=1.0) as cluster:
        env = cluster.env
        yield Site(
            faults={
                **ON_THIS_CLOCK,
                **{name: _on(cluster, *LSF_FAULTS[name]) for name in LSF_FAULTS},
            },
            compute=ON_LSF,
            environment={
                name: env[name] for name in ("PATH", "LSF_EMULATOR", "LSF_EMULATOR_PYTHON")
            },
            held=lambda: [f"LSF job {job}" for job in cluster.jobs() if not job.ended_at],
        )


def _on(cluster: Cluster, name: Name, arguments: dict[str, Any]) -> Fault:
    """A fault of the emulator, on for some seconds."""

    def act(_chaos: Chaos) -> Undo:
        cluster.fault(name, **arguments)
        return lambda: cluster.mend(name)

    return Fault(act, weight=3, seconds=5)


# --------------------------------------------------------------------------- Slurm


@contextmanager
def slurm(_folder: Path) -> Iterator[Site]:
    with Slurm(forgotten_after_s=30) as started:
        yield Site(
            faults={
                **ON_THIS_CLOCK,
                "slurmctld killed": _without(started, "slurmctld"),
                "slurmctld silent": _silent(started, "slurmctld"),
                "slurmd killed": _without(started, "slurmd"),
                "slurmd silent": _silent(started, "slurmd"),
                "munged killed": _without(started, "munged"),
                "job killed": Fault(_kill_step(started), weight=3),
                "scancel": Fault(_cancel_some(started), weight=1),
            },
            compute={
                "executor": "slurm",
                "slurm": {
                    "poll_seconds": 0.5,
                    "command_seconds": 15,
                    "grace_seconds": 2,
                    "unknown_minutes": 1,
                },
            },
            environment=started.env,
            held=lambda: [f"Slurm job {job}" for job in started.live()],
        )


def _without(cluster: Slurm, program: Program) -> Fault:
    """One of its programs dies, and is started again after some seconds."""

    def act(_chaos: Chaos) -> Undo:
        cluster.kill(program)

        def undo() -> None:
            cluster.start(program)
            cluster.ask("scontrol", "update", f"NodeName={cluster.host}", "State=RESUME")

        return undo

    return Fault(act, weight=4, seconds=5)


def _silent(cluster: Slurm, program: Program) -> Fault:
    """One of its programs hangs for some seconds."""

    def act(_chaos: Chaos) -> Undo:
        cluster.stop(program)
        return lambda: cluster.go_on(program)

    return Fault(act, weight=3, seconds=5)


def _kill_step(cluster: Slurm) -> Callable[[Chaos], None]:
    """One process of a job, whichever. What watches it is left: its death is told minutes later."""

    def act(chaos: Chaos) -> None:
        some = cluster.steps(of_jobs_only=True)
        if some:
            chaos.kills += chaos.world.kill_all([chaos.rng.choice(some)])

    return act


def _cancel_some(cluster: Slurm) -> Callable[[Chaos], None]:
    """Somebody cancels a job."""

    def act(chaos: Chaos) -> None:
        some = cluster.live()
        if some:
            cluster.ask("scancel", chaos.rng.choice(some))

    return act


# --------------------------------------------------------------------------- Docker


@contextmanager
def docker(_folder: Path) -> Iterator[Site]:
    with own_engine() as dockerd:
        yield Site(
            faults={**ON_THIS_CLOCK, "engine killed": _killing(dockerd)},
            compute={
                "executor": "docker",
                "docker_image": full_image(),
                "docker": {"pull": "never", "command_seconds": 10, "unknown_minutes": 5},
            },
            held=lambda: [f"container {name}" for name in names_of("ds-flow.round")],
        )


def _killing(dockerd: Dockerd) -> Fault:
    def act(_chaos: Chaos) -> Undo:
        dockerd.kill()
        return dockerd.start

    return Fault(act, weight=12, seconds=3)


SITES: dict[str, Callable[[Path], AbstractContextManager[Site]]] = {
    "local": local,
    "lsf": lsf,
    "slurm": slurm,
    "docker": docker,
}
