"""The daemon: its tick, its process, systemd."""

from ds_flow.service.process import Service, service

__all__ = [
    "Service",
    "service",
]
