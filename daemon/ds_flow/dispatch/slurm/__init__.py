"""The Slurm backend."""

from ds_flow.dispatch.slurm.client import SlurmScheduler
from ds_flow.dispatch.slurm.texts import facts_of_slurm

__all__ = ["SlurmScheduler", "facts_of_slurm"]
