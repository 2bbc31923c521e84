"""The Docker backend."""

from ds_flow.dispatch.docker.backend import Docker
from ds_flow.dispatch.docker.client import Engine, unobtainable

__all__ = ["Docker", "Engine", "unobtainable"]
