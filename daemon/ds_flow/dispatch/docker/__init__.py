"""The Docker backend, for docker and podman."""

from ds_flow.dispatch.docker.backend import Docker
from ds_flow.dispatch.docker.client import DockerClient, unobtainable
from ds_flow.dispatch.docker.handover import Handover

__all__ = ["Docker", "DockerClient", "Handover", "unobtainable"]
