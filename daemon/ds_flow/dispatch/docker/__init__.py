"""The Docker backend, for docker and podman."""

from ds_flow.dispatch.docker.backend import Docker
from ds_flow.dispatch.docker.client import DockerClient, unobtainable

__all__ = ["Docker", "DockerClient", "unobtainable"]
