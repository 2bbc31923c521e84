"""The LSF backend."""

from ds_flow.dispatch.lsf.backend import Lsf

__all__ = ["Lsf"]
