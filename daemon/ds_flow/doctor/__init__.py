"""Checks of settings, machine and backends."""

from ds_flow.doctor.check import surroundings, unreachable_backends

__all__ = [
    "surroundings",
    "unreachable_backends",
]
