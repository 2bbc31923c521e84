"""Every backend that jobs can run on here, as tests want it: quick to ask, and with a real end."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest

from ds_flow.core.plan import LsfSite, Site, SlurmSite
from ds_flow.dispatch import Backend, JobSpec, Outcome, fork_program, make_backends, run_stage
from engine import engine, small_image
from lsf import Cluster
from lsf_emulator.config import Dialect
from samples import BATCH
from slurm import Slurm

EXEC = "exec.py"  # a job of this script is a fork, which then becomes the program it is given
LSF_SITE = LsfSite(poll_seconds=0.1, command_seconds=20, grace_seconds=0.5, unknown_minutes=0.05)


SLURM_SITE = SlurmSite(poll_seconds=0.2, command_seconds=20, grace_seconds=1, unknown_minutes=0.05)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One backend, the environment in which it is reached, and what its shortest limit is."""

    executor: str
    site: Site = field(default_factory=Site)
    shortest_limit_minutes: float = 1
    queue: str = ""
    image: str = ""
    lsf_cluster: Cluster | None = None
    real_slurm: Slurm | None = None
    wrapper: tuple[str, ...] = ()  # of each job's command

    @property
    def cluster(self) -> Cluster:
        assert self.lsf_cluster
        return self.lsf_cluster

    @property
    def slurm(self) -> Slurm:
        assert self.real_slurm
        return self.real_slurm

    def backend(self) -> Backend:
        return make_backends(self.site)[self.executor]

    def job(self, key: str, *command: str, folder: Path) -> JobSpec:
        """A job that may use a folder, wherever it runs."""
        return JobSpec(
            key=key,
            command=(*self.wrapper, *command),
            queue=self.queue,
            image=self.image,
            writes=(folder,),
        )

    def run(self, stage: Path, *jobs: JobSpec, attempt: str = f"{BATCH}/1") -> list[Outcome]:
        return run_stage(
            stage,
            executor=self.executor,
            site=self.site,
            batch=BATCH,
            attempt=attempt,
            jobs=jobs,
        )


@contextmanager
def local(_folder: Path) -> Iterator[Place]:
    # timeout(1) takes fractions, so a test need not wait a minute
    yield Place(executor="local", shortest_limit_minutes=0.002)


def become(argv: Sequence[str]) -> int:
    """Be the program that the arguments name, as a shell is."""
    os.execvp("bash", ["bash", "-c", 'exec "$@"', "bash", *argv])  # noqa: S606 - no string of ours


@contextmanager
def local_forks(_folder: Path) -> Iterator[Place]:
    fork_program(EXEC, become)
    yield Place(executor="local", shortest_limit_minutes=0.002, wrapper=(sys.executable, EXEC))


@contextmanager
def lsf(folder: Path, dialect: Dialect, **options: float) -> Iterator[Place]:
    """A place on an LSF of its own, whose minutes are short."""
    quick = {"scheduling_delay_s": 0.01, "kill_interval_s": 0.2, "minute_s": 1.0, **options}
    with pytest.MonkeyPatch.context() as patched:
        cluster = Cluster(folder, dialect, **quick)  # type: ignore[arg-type]
        with cluster:
            for name, value in cluster.env.items():
                if os.environ.get(name) != value:
                    patched.setenv(name, value)
            yield Place(executor="lsf", site=Site(lsf=LSF_SITE), queue="short", lsf_cluster=cluster)
            assert not cluster.log()


@contextmanager
def slurm(_folder: Path, **limits: int) -> Iterator[Place]:
    """A place on a real Slurm of its own."""
    with Slurm(**limits) as started, pytest.MonkeyPatch.context() as patched:
        patched.setenv("SLURM_CONF", str(started.conf))
        yield Place(executor="slurm", site=Site(slurm=SLURM_SITE), real_slurm=started)


@contextmanager
def docker(_folder: Path) -> Iterator[Place]:
    with engine():
        yield Place(executor="docker", image=small_image(), shortest_limit_minutes=0.002)


PLACES: dict[str, Callable[[Path], AbstractContextManager[Place]]] = {
    "local": local,
    "local-forks": local_forks,
    "docker": docker,
    "lsf-ibm": lambda folder: lsf(folder, "ibm"),
    "lsf-openlava": lambda folder: lsf(folder, "openlava"),
    "slurm": slurm,
}


RUN_STAGE = """
import json, os, sys
from pathlib import Path
from ds_flow.core import Site
from ds_flow.dispatch import JobSpec, fork_program, run_stage
fork_program("exec.py", lambda argv: os.execvp("bash", ["bash", "-c", 'exec "$@"', "bash", *argv]))
stage, executor, batch, site, *jobs = sys.argv[1:]
run_stage(Path(stage), executor=executor, site=Site.from_json(json.loads(site)), batch=batch,
          attempt=f"{batch}/1", jobs=[JobSpec.from_json(json.loads(job)) for job in jobs])
"""


def caller(stage: Path, place: Place, *jobs: JobSpec) -> subprocess.Popen[bytes]:
    """A process that runs a stage, to be killed."""
    site = json.dumps(asdict(place.site))
    texts = [json.dumps(job.to_json()) for job in jobs]
    command = [sys.executable, "-c", RUN_STAGE, str(stage), place.executor, BATCH, site, *texts]
    return subprocess.Popen(command)
