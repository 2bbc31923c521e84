"""Calls of a cluster's commands for one round, and what is certain from their answers."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ds_flow.core import ClusterSite, JobState
from ds_flow.dispatch.cluster.ends import Refusal, Row
from ds_flow.dispatch.cluster.handover import Chunk, Handover, array_of
from ds_flow.dispatch.commands import Answer, call
from ds_flow.dispatch.exit_codes import End
from ds_flow.dispatch.rounds import JobSpec, Round

ELEMENT = re.compile(r"\d+(\[\d+\]|_\d+)")  # of an array, as LSF and Slurm write it
SHOWN_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class Poll:
    """One answer about all arrays. If it is clean, a job it does not list is not there."""

    rows: Mapping[int, Row]  # by job index
    is_clean: bool


NO_ANSWER = Poll({}, is_clean=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """What is certain of a submission. If neither field is set, the answer was lost."""

    job_id: str = ""
    refused: str = ""  # in the cluster's words: it is certainly not there
    said: str = ""  # whatever else it answered


@dataclass(slots=True)
class Calls:
    """The commands of one round, and what was handed over."""

    site: ClusterSite
    environ: Mapping[str, str]
    batch_round: Round
    handover: Handover
    trouble: str = ""  # why the last call gave no answer
    asked: set[int] = field(default_factory=set)  # jobs whose history was asked for

    def call(self, argv: Sequence[str], *, stdin: str = "") -> Answer:
        """Call a command in the round's folder, with the site's time limit."""
        limit_s, folder = self.site.command_seconds, self.batch_round.folder
        return call(argv, limit_s, stdin=stdin, cwd=folder, environ=self.environ)

    def jobs_of(self, chunk: Chunk) -> Sequence[JobSpec]:
        """The jobs of a chunk."""
        return self.batch_round.jobs[chunk.first - 1 : chunk.first - 1 + chunk.count]

    def poll_of(self, answer: Answer, rows: Sequence[Row]) -> Poll:
        """The rows by job index. Of two arrays for one chunk, the one that runs the job counts."""
        by_index: dict[int, Row] = {}
        for row in rows:
            index = self.handover.index_of(row.job_id, row.index, row.name)
            if index is None:
                continue
            other = by_index.setdefault(index, row)
            if other is not row and self._is_better(index, row, other):
                by_index[index] = row
        return Poll(by_index, is_clean=not answer.timed_out)

    def _is_better(self, index: int, row: Row, other: Row) -> bool:
        """Whether this row, and not the other one, belongs to the array that claimed the job."""
        claim = self.batch_round.claim_of(index)
        if claim is None:
            return row.state == JobState.RUNNING and other.state != JobState.RUNNING
        return array_of(claim[1]) == row.job_id

    def find_claimer(self, index: int) -> bool:
        """Record the array that claimed a job. Returns whether it was unknown until now.

        If a cluster accepts a chunk twice, its answer may name only one of the two arrays.
        """
        job_id = array_of(self.claimer(index))
        chunk = self.handover.chunk_of(index)
        if not job_id or job_id in chunk.job_ids:
            return False
        chunk.job_ids.append(job_id)
        self.handover.save()
        return True

    def claimer(self, index: int) -> str:
        """The array element that claimed a job, such as `123[7]`, or ""."""
        claim = self.batch_round.claim_of(index)
        return claim[1] if claim and ELEMENT.fullmatch(claim[1]) else ""

    def native_id(self, index: int) -> str:
        """The array element that runs a job, as far as is known."""
        return self.claimer(index) or self.handover.native_id(index)


class Scheduler(Protocol):
    """The commands of one cluster. It asks and reads; `ClusterBackend` decides."""

    @property
    def site(self) -> ClusterSite:
        """How the cluster is called."""

    @property
    def executor(self) -> str:
        """The backend's name in the settings, such as `lsf`."""

    @property
    def title(self) -> str:
        """The cluster's name for people, such as `LSF`."""

    @property
    def submitter(self) -> str:
        """The command that submits, such as `bsub`."""

    def most_memory_mb(self, environ: Mapping[str, str]) -> int | None:
        """What the largest host has. A job that asks for more would wait for ever."""

    def submit(self, calls: Calls, chunk: Chunk) -> Submitted:
        """Submit one chunk. An array has one request: that of the job with the most memory."""

    def meaning(self, calls: Calls, chunk: Chunk, refusal: str) -> Refusal:
        """What a refusal means. What this cluster cannot do is learnt from it."""

    def find(self, calls: Calls, name: str) -> set[str] | None:
        """The ids of arrays of this name. None if there was no certain answer."""

    def poll(self, calls: Calls) -> Poll:
        """Ask once about all arrays."""

    def pending_reasons(self, calls: Calls) -> list[str]:
        """Why this round's jobs wait, where the rows do not say it."""

    def history(self, calls: Calls, asked: Mapping[int, str]) -> dict[str, Row | None]:
        """What is known of elements beyond the poll, by native id. None: certainly nothing.

        Those that there was no answer for are left out. `asked` has the native id of each job's
        index.
        """

    def kill(self, calls: Calls, ids: Sequence[str]) -> None:
        """Ask the cluster to kill arrays or elements."""

    def is_explained(self, row: Row) -> bool:
        """Whether a row says all that the cluster knows of an end."""

    def end_with_code(self, calls: Calls, index: int, code: int, row: Row | None) -> End:
        """Why a job with an exit code ended."""

    def end_without_code(self, calls: Calls, index: int, row: Row | None) -> End:
        """Why a job without an exit code ended. It has not succeeded, whatever is said."""


def shown(answer: Answer) -> str:
    """An answer in words, for a message."""
    said = answer.text[:SHOWN_CHARACTERS]
    if answer.timed_out:
        return f"no answer in time ({said})" if said else "no answer in time"
    return said or f"nothing, with exit code {answer.exit_code}"
