"""Calls of LSF's commands, each with a time limit, and what is certain from their answers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ds_flow.core import JobState, LsfSite
from ds_flow.dispatch.commands import Answer, call
from ds_flow.dispatch.lsf import texts
from ds_flow.dispatch.lsf.handover import Chunk, Handover
from ds_flow.dispatch.lsf.texts import Row
from ds_flow.dispatch.rounds import Round


@dataclass(frozen=True, slots=True)
class Poll:
    """One answer of bjobs, by job index. If it is clean, a job it does not list is not there."""

    rows: Mapping[int, Row]
    is_clean: bool


NO_ANSWER = Poll({}, is_clean=False)


@dataclass(slots=True)
class LsfClient:
    """bsub, bjobs, bhist and bkill for one round."""

    site: LsfSite
    environ: Mapping[str, str]
    batch_round: Round
    handover: Handover
    trouble: str = ""  # why the last call gave no answer

    # ------------------------------------------------------------------ bsub

    def bsub(self, chunk: Chunk) -> Answer:
        """Submit one chunk. An array has one request: that of the job with the most memory."""
        jobs = self.batch_round.jobs[chunk.first - 1 : chunk.first - 1 + chunk.count]
        folder = self.batch_round.folder
        command = texts.bsub_command(
            chunk.name,
            chunk.count,
            max(jobs, key=lambda job: job.memory_mb),
            folder,
            self.site,
            plain=self.handover.is_plain,
        )
        return self._call(command, stdin=texts.bsub_script(folder, chunk.first - 1))

    def find(self, name: str) -> set[str] | None:
        """The ids of arrays of this name. None if LSF gave no certain answer."""
        listed = self._call(["bjobs", "-a", "-w", "-J", name])
        found = texts.ids_in(listed.out)
        if found or not is_not_there(listed):
            return found or None
        history = self._call(["bhist", "-n", "0", "-a", "-l", "-J", name])
        found = texts.ids_in(history.out)
        return found if found or is_not_there(history) else None

    # ------------------------------------------------------------------ bjobs

    def poll(self) -> Poll:
        """Ask once about all arrays, in JSON if this LSF supports it."""
        ids = self.handover.job_ids
        if not ids:
            return NO_ANSWER
        if self.handover.speaks_json is not False:
            answer = self._call(["bjobs", "-a", "-json", "-o", texts.FIELDS, *ids])
            rows = texts.rows_in_json(answer.out)
            if rows is not None or not texts.NO_SUCH_OPTION.search(answer.err):
                return self._poll_of(answer, rows or [])
            self.handover.learn(speaks_json=False)
            self.handover.save()
        answer = self._call(["bjobs", "-a", "-w", *ids])
        names = [chunk.name for chunk in self.handover.chunks]
        return self._poll_of(
            answer, [row for name in names for row in texts.rows_in_table(answer.out, name)]
        )

    def pending_reasons(self) -> list[str]:
        """Why this round's jobs wait, in LSF's words."""
        return texts.pending_reasons(self._call(["bjobs", "-p", *self.handover.job_ids]).out)

    def _poll_of(self, answer: Answer, rows: Sequence[Row]) -> Poll:
        """The rows by job index. Of two arrays for one chunk, the one that runs the job counts."""
        if not rows and not is_not_there(answer):  # an empty answer with exit code 0, too
            self.trouble = f"bjobs: {shown(answer)}"
            return NO_ANSWER
        by_index: dict[int, Row] = {}
        for row in rows:
            index = self.handover.index_of(row.job_id, row.index)
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
        return claim[1].partition("[")[0] == row.job_id

    def find_claimer(self, index: int) -> bool:
        """Record the array that claimed a job. Returns whether it was unknown until now.

        If LSF accepts a chunk twice, bsub's answer may name only one of the two arrays.
        """
        job_id = self._claimer(index).partition("[")[0]
        chunk = self.handover.chunk_of(index)
        if not job_id or job_id in chunk.job_ids:
            return False
        chunk.job_ids.append(job_id)
        self.handover.save()
        return True

    def _claimer(self, index: int) -> str:
        """The array element that claimed a job, written `123[7]`, or ""."""
        claim = self.batch_round.claim_of(index)
        return claim[1] if claim and "[" in claim[1] else ""

    # ------------------------------------------------------------------ bhist, bkill

    def history(self, indices: Iterable[int]) -> dict[int, Row | None]:
        """What bhist says of jobs; None for a job it does not know. Empty if it did not answer."""
        asked = {index: self._claimer(index) or self.handover.native_id(index) for index in indices}
        answer = self._call(["bhist", "-n", "0", "-l", *asked.values()])
        rows = {f"{row.job_id}[{row.index}]": row for row in texts.rows_in_history(answer.out)}
        if not rows and not is_not_there(answer):
            self.trouble = f"bhist: {shown(answer)}"
            return {}
        return {index: rows.get(native) for index, native in asked.items()}

    def bkill(self, ids: Sequence[str]) -> None:
        """Ask LSF to kill jobs. The exit code is ignored: it is 255 even if LSF is killing them."""
        self._call(["bkill", *ids])

    def _call(self, argv: Sequence[str], *, stdin: str = "") -> Answer:
        limit_s, folder = self.site.command_seconds, self.batch_round.folder
        return call(argv, limit_s, stdin=stdin, cwd=folder, environ=self.environ)


def is_not_there(answer: Answer) -> bool:
    """Whether LSF says that it does not know the job. An empty answer does not say so."""
    return not answer.timed_out and bool(texts.NOT_THERE.search(answer.text))


def shown(answer: Answer) -> str:
    """An answer in words, for a message."""
    if answer.timed_out:
        return "no answer in time"
    return answer.text[:500] or f"nothing, with exit code {answer.exit_code}"
