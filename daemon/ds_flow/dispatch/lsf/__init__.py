"""The LSF backend, for IBM's LSF and openlava."""

from ds_flow.dispatch.lsf.backend import Lsf
from ds_flow.dispatch.lsf.handover import Handover

__all__ = ["Handover", "Lsf"]
