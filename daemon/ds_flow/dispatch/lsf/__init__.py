"""The LSF backend, for IBM's LSF and openlava."""

from ds_flow.dispatch.lsf.client import LsfScheduler

__all__ = ["LsfScheduler"]
