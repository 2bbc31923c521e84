"""The table of backends. A new backend gets a line here."""

import os
from collections.abc import Callable, Mapping

from ds_flow.core import Site
from ds_flow.dispatch import local
from ds_flow.dispatch.cluster import ClusterBackend
from ds_flow.dispatch.docker import Docker, DockerClient
from ds_flow.dispatch.lsf import LsfScheduler
from ds_flow.dispatch.protocol import Backend
from ds_flow.dispatch.slurm import SlurmScheduler

BACKENDS: dict[str, Callable[[Site, Mapping[str, str]], Backend]] = {
    "local": lambda _site, _environ: local,
    "lsf": lambda site, environ: ClusterBackend(LsfScheduler(site.lsf), environ),
    "slurm": lambda site, environ: ClusterBackend(SlurmScheduler(site.slurm), environ),
    "docker": lambda site, environ: Docker(DockerClient(site.docker, environ)),
}


def make_backends(site: Site, environ: Mapping[str, str] = os.environ) -> dict[str, Backend]:
    """Make every backend of a site, by name.

    A backend remembers what it waits for and what it has printed. `environ` is the environment of
    a run: the backends' commands read from it where to connect to.
    """
    return {name: make(site, environ) for name, make in BACKENDS.items()}
