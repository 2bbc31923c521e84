"""Checks of the settings, the machine and the backends."""

from ds_flow.doctor.backends import silent_backends, unreachable_backends
from ds_flow.doctor.check import run_checks
from ds_flow.doctor.exposure import exposed
from ds_flow.doctor.finding import Finding

__all__ = [
    "Finding",
    "exposed",
    "run_checks",
    "silent_backends",
    "unreachable_backends",
]
