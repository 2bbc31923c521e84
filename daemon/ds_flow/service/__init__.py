"""The daemon: its tick, its process, systemd; and what people ask of it."""

from ds_flow.service.process import Service, service
from ds_flow.service.requests import cancel, deliver, give_up_delivery, release, rerun, retry

__all__ = [
    "Service",
    "cancel",
    "deliver",
    "give_up_delivery",
    "release",
    "rerun",
    "retry",
    "service",
]
