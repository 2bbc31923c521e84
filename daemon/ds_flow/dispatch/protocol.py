"""What a backend must provide: `Backend`."""

from collections.abc import Collection, Mapping
from typing import Protocol

from ds_flow.dispatch.rounds import JobSpec, Report, Round


class Backend(Protocol):
    """Where jobs run. A verb is about one round, covers all its jobs at once, and never waits.

    A verb writes what it must not lose into the round's folder. Any later process can then
    continue from there, also after a crash.
    """

    @property
    def poll_seconds(self) -> tuple[float, float]:
        """The shortest and the longest time between two polls, in seconds."""

    def command(self, job: JobSpec) -> tuple[str, ...]:
        """The command line to write into the job's args file."""

    def most_memory_mb(self) -> int | None:
        """The most memory that one job can have. None if that is not known now."""

    def submit(self, batch_round: Round) -> bool:
        """Submit the jobs that were not submitted yet, each one once.

        Returns whether every job is known to be submitted. Raises DispatchError with the
        backend's reason if it refuses a job.
        """

    def ask(self, batch_round: Round, indices: Collection[int]) -> Mapping[int, Report]:
        """Report the state of these jobs. A job that was not submitted yet is pending."""

    def cancel(self, batch_round: Round) -> bool:
        """Ask all jobs to end. Returns whether all of them are known to have ended."""

    def release(self, batch_round: Round) -> bool:
        """Remove what a closed round holds outside its folder. Returns whether all is gone."""
