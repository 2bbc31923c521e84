"""The LSF backend, for IBM's LSF and openlava."""

from ds_flow.dispatch.lsf.backend import Lsf

__all__ = ["Lsf"]
