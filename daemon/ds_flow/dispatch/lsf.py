"""The LSF backend: a round's jobs as job arrays, and what becomes of each.

LSF's word is never a success: the exit code that a job leaves in the round's folder decides. What
LSF cannot say is unknown and alive, for a bounded time.
"""

import logging
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ds_flow.dispatch import lsf_texts as texts
from ds_flow.dispatch.calls import Answer, call, put_environment
from ds_flow.dispatch.ends import End
from ds_flow.dispatch.lsf_chunks import Chunk, Handover
from ds_flow.dispatch.lsf_texts import Row
from ds_flow.dispatch.rounds import JobSpec, Report, Round
from ds_flow.errors import DispatchError
from ds_flow.model import FailureClass, JobState
from ds_flow.plan import LsfSite

log = logging.getLogger(__name__)

LOOKS = 2  # clean ones that agree that a job is not there
HISTORY_JOBS = 200  # elements that one bhist is asked about


@dataclass(slots=True)
class Absence:
    """Since when, and how often in clean answers, a job was not there or out of sight."""

    since_s: float
    looks: int = 0


@dataclass(frozen=True, slots=True)
class Poll:
    """One answer of bjobs, by job index. A clean one also tells what is not there."""

    rows: Mapping[int, Row]
    is_clean: bool


NOTHING_HEARD = Poll({}, is_clean=False)


@dataclass(slots=True)
class Lsf:
    """The backend for one site; its memory is of waits only, and may be lost."""

    site: LsfSite
    _absences: dict[tuple[str, int], Absence] = field(default_factory=dict)
    _history: dict[tuple[str, int], Row | None] = field(default_factory=dict)
    _said: str = ""

    @property
    def poll_seconds(self) -> tuple[float, float]:
        """At first quickly, for jobs of seconds, if the site lets us."""
        return min(1.0, self.site.poll_seconds), self.site.poll_seconds

    def command(self, job: JobSpec) -> tuple[str, ...]:
        """The job itself: LSF keeps its limits."""
        return job.command

    # ------------------------------------------------------------------ submit

    def submit(self, batch_round: Round) -> bool:
        """Submit each chunk once; one whose reply was lost is looked for, not sent blindly."""
        handover = Handover.of(batch_round, self.site)
        put_environment(batch_round.folder)
        while (chunk := handover.next_to_submit()) is not None:
            if not self._submit_chunk(batch_round, handover, chunk):
                break
        for chunk in handover.asked():
            self._look_up(batch_round, handover, chunk)
        return handover.is_complete

    def _submit_chunk(self, batch_round: Round, handover: Handover, chunk: Chunk) -> bool:
        """Submit one chunk; whether to go on with the next."""
        chunk.asked_at = time.time()
        handover.save()  # before the call: whoever comes after a crash looks for it first
        jobs = batch_round.jobs[chunk.first - 1 : chunk.first - 1 + chunk.count]
        command = texts.bsub_command(
            chunk.name,
            chunk.count,
            max(jobs, key=lambda job: job.memory_mb),
            batch_round.folder,
            self.site,
            plain=handover.is_plain,
        )
        script = texts.bsub_script(batch_round.folder, chunk.first - 1)
        answer = self._call(batch_round, command, stdin=script)
        accepted = texts.ACCEPTED.search(f"{answer.out}\n{answer.err}")
        if accepted:
            chunk.job_ids = [accepted[1]]
        elif answer.exit_code and not answer.timed_out and texts.REFUSED.search(answer.text):
            chunk.asked_at = None
            self._adapt(handover, chunk, answer.text)
        else:
            self._complain(f"bsub: no job id in its answer: {_shown(answer)}")
        handover.save()
        return chunk.asked_at is None or accepted is not None

    def _adapt(self, handover: Handover, chunk: Chunk, refusal: str) -> None:
        """Ask in a form that this LSF takes. Raises DispatchError if it is not the form."""
        if texts.TOO_LARGE.search(refusal) and handover.halve(chunk):
            return
        is_unit = texts.BAD_UNIT.search(refusal) and self.site.memory_unit == "auto"
        if is_unit and not handover.is_plain:
            handover.is_plain = True
            return
        handover.save()
        raise DispatchError(f"bsub refused {chunk.name}: {refusal}")

    def _look_up(self, batch_round: Round, handover: Handover, chunk: Chunk) -> None:
        """Find a chunk whose reply was lost; let it be sent again once it is surely not there."""
        listed = self._call(batch_round, ["bjobs", "-a", "-w", "-J", chunk.name])
        found = texts.ids_in(listed.out)
        if not found and _is_not_there(listed):
            history = self._call(batch_round, ["bhist", "-n", "0", "-a", "-l", "-J", chunk.name])
            found = texts.ids_in(history.out)
            chunk.looks += not found and _is_not_there(history)
        if found:
            chunk.job_ids = sorted(found, key=int)
        waited_s = time.time() - (chunk.asked_at or 0)
        if chunk.looks >= LOOKS and not 0 <= waited_s <= self.site.grace_seconds:
            chunk.asked_at, chunk.looks = None, 0
        handover.save()

    # ------------------------------------------------------------------ ask

    def ask(self, batch_round: Round, indices: Collection[int]) -> dict[int, Report]:
        """By exit codes on disk, and one bjobs for all that have left none."""
        handover = Handover.of(batch_round, self.site)
        poll = self._poll(batch_round, handover) if self._is_to_ask(batch_round, indices) else None
        ended = batch_round.ended()  # after the poll: what LSF says has ended may show it by now
        return {
            index: self._report(batch_round, handover, index, poll or NOTHING_HEARD, ended)
            for index in indices
        }

    def _is_to_ask(self, batch_round: Round, indices: Collection[int]) -> bool:
        """Whether any of these has left no exit code, or one that LSF knows more about."""
        ended = batch_round.ended()
        return any(
            index not in ended or _is_told_by_lsf(batch_round.exit_of(index)) for index in indices
        )

    def _report(
        self, batch_round: Round, handover: Handover, index: int, poll: Poll, ended: set[int]
    ) -> Report:
        row = poll.rows.get(index)
        place = (batch_round.name, index)
        if index in ended:
            return self._report_ended(batch_round, handover, index, row)
        chunk = handover.chunk_of(index)
        if not chunk.job_ids:
            return Report(state=JobState.PENDING)
        if row is not None and row.state in {JobState.PENDING, JobState.RUNNING}:
            self._absences.pop(place, None)
            return Report(state=row.state)
        if row is not None and row.state != JobState.UNKNOWN:
            if self._absent_s(place, counts=True) <= self.site.grace_seconds:
                return Report(state=JobState.UNKNOWN)  # its exit code may yet show
            return _failed(texts.end_without_code(self._told(batch_round, handover, index, row)))
        if row is None and not poll.is_clean:
            return Report(state=JobState.UNKNOWN)
        return self._report_out_of_sight(batch_round, handover, index, row)

    def _report_ended(
        self, batch_round: Round, handover: Handover, index: int, row: Row | None
    ) -> Report:
        """By the exit code; of one over 128 the reason, once LSF says it."""
        place, left = (batch_round.name, index), batch_round.exit_of(index)
        if left is None:  # it is seen in the folder, and cannot be read yet
            return Report(state=JobState.UNKNOWN)
        if not _is_told_by_lsf(left):
            return _ended(texts.end_with_code(left[0], row))
        has_ended = row is not None and row.state in {JobState.SUCCEEDED, JobState.FAILED}
        waited_s = self._absent_s(place, counts=True)
        if not has_ended and waited_s <= self.site.grace_seconds:
            return Report(state=JobState.RUNNING)
        return _ended(texts.end_with_code(left[0], self._told(batch_round, handover, index, row)))

    def _report_out_of_sight(
        self, batch_round: Round, handover: Handover, index: int, row: Row | None
    ) -> Report:
        """Of a job that bjobs does not list, or whose host LSF has lost: alive for a while."""
        place = (batch_round.name, index)
        absent_s = self._absent_s(place, counts=row is None)
        absence = self._absences[place]
        if row is None and absence.looks >= LOOKS and absent_s > self.site.grace_seconds:
            known = self._told(batch_round, handover, index, None)
            is_over = known is not None and known.state != JobState.UNKNOWN
            if is_over or (known is None and batch_round.claim_of(index) is None):
                return _failed(texts.end_without_code(known))
        if absent_s <= self.site.unknown_minutes * 60:
            return Report(state=JobState.UNKNOWN)
        self._kill(batch_round, [self._native(handover, index)])
        seen = row.status if row else "not listed"
        why = f"out of LSF's sight for {self.site.unknown_minutes:g} minutes ({seen})"
        return _failed((FailureClass.INFRASTRUCTURE, why))

    def _absent_s(self, place: tuple[str, int], *, counts: bool) -> float:
        """Seconds since this job was first missed."""
        now_s = time.monotonic()
        absence = self._absences.setdefault(place, Absence(now_s))
        absence.looks += counts
        return now_s - absence.since_s

    def _told(
        self, batch_round: Round, handover: Handover, index: int, row: Row | None
    ) -> Row | None:
        """What LSF says of an end: the row of bjobs if it has a reason, else one look at bhist."""
        if row is not None and (row.term or row.exit_code is not None):
            return row
        place = (batch_round.name, index)
        if place not in self._history:
            missed = [
                other
                for name, other in self._absences
                if name == batch_round.name and (name, other) not in self._history
            ]
            self._read_history(batch_round, handover, [index, *missed][:HISTORY_JOBS])
        return self._history.get(place) or row

    def _read_history(self, batch_round: Round, handover: Handover, indices: Iterable[int]) -> None:
        asked = {index: self._native(handover, index) for index in dict.fromkeys(indices)}
        answer = self._call(batch_round, ["bhist", "-n", "0", "-l", *asked.values()])
        rows = {f"{row.job_id}[{row.index}]": row for row in texts.rows_in_history(answer.out)}
        if rows or _is_not_there(answer):
            self._history |= {
                (batch_round.name, index): rows.get(native) for index, native in asked.items()
            }

    def _native(self, handover: Handover, index: int) -> str:
        chunk = handover.chunk_of(index)
        return f"{chunk.job_ids[0]}[{index - chunk.first + 1}]"

    # ------------------------------------------------------------------ one bjobs

    def _poll(self, batch_round: Round, handover: Handover) -> Poll:
        ids = handover.job_ids
        if not ids:
            return NOTHING_HEARD
        if handover.speaks_json is not False:
            command = ["bjobs", "-a", "-json", "-o", texts.FIELDS, *ids]
            answer = self._call(batch_round, command)
            rows = texts.rows_in_json(answer.out)
            if rows is not None or not texts.NO_SUCH_OPTION.search(answer.err):
                if rows is not None and handover.speaks_json is None:
                    handover.speaks_json = True
                    handover.save()
                return self._heard(batch_round, handover, answer, rows or [])
            handover.speaks_json = False
            handover.save()
        answer = self._call(batch_round, ["bjobs", "-a", "-w", *ids])
        rows = [
            row for chunk in handover.chunks for row in texts.rows_in_table(answer.out, chunk.name)
        ]
        return self._heard(batch_round, handover, answer, rows)

    def _heard(
        self, batch_round: Round, handover: Handover, answer: Answer, rows: Sequence[Row]
    ) -> Poll:
        """The rows by job index; of a chunk that was taken twice, those that claimed the jobs."""
        if not rows and not _is_not_there(answer):  # also an empty answer with exit code 0
            self._complain(f"bjobs: {_shown(answer)}")
            return NOTHING_HEARD
        by_index: dict[int, Row] = {}
        for row in rows:
            index = handover.index_of(row.job_id, row.index)
            if index is None:
                continue
            other = by_index.setdefault(index, row)
            if other is not row and _is_better(batch_round, index, row, other):
                by_index[index] = row
        return Poll(by_index, is_clean=not answer.timed_out)

    # ------------------------------------------------------------------ cancel, release

    def cancel(self, batch_round: Round) -> bool:
        """Kill what is there, and see whether it has ended."""
        handover = Handover.of(batch_round, self.site)
        for chunk in handover.asked():
            self._look_up(batch_round, handover, chunk)
        if handover.job_ids:
            self._kill(batch_round, handover.job_ids)
            poll = self._poll(batch_round, handover)
            is_live = {JobState.PENDING, JobState.RUNNING, JobState.UNKNOWN}
            if not poll.is_clean or any(row.state in is_live for row in poll.rows.values()):
                return False
        return not list(handover.asked())

    def release(self, batch_round: Round) -> None:
        """End what was taken twice and not needed, and take the variables away."""
        handover = Handover.of(batch_round, self.site)
        for chunk in handover.chunks:
            if len(chunk.job_ids) > 1:
                self._kill(batch_round, chunk.job_ids)
        (batch_round.folder / "env").unlink(missing_ok=True)

    def _kill(self, batch_round: Round, ids: Sequence[str]) -> None:
        """Ask LSF to end jobs. Its exit code says little: 255 also for what it is doing already."""
        self._call(batch_round, ["bkill", *ids])

    # ------------------------------------------------------------------ calls

    def _call(self, batch_round: Round, argv: Sequence[str], *, stdin: str = "") -> Answer:
        limit_s = self.site.command_seconds
        return call(argv, limit_s, stdin=stdin, cwd=batch_round.folder)

    def _complain(self, what: str) -> None:
        """Say what LSF's trouble is, once, where the run's log has it."""
        if what != self._said:
            print(f"[lsf] {what}; asked again later", flush=True)  # noqa: T201 - a task's output
        self._said = what


def _is_told_by_lsf(left: tuple[int, str] | None) -> bool:
    """Whether LSF knows more of this end than its exit code says: a signal, sent for a reason."""
    return left is not None and left[0] > 128  # noqa: PLR2004 - 128 + signal


def _is_not_there(answer: Answer) -> bool:
    return not answer.timed_out and bool(texts.NOT_THERE.search(answer.text))


def _is_better(batch_round: Round, index: int, row: Row, other: Row) -> bool:
    """Whether this row, and not the other, is of the element that claimed the job."""
    claim = batch_round.claim_of(index)
    if claim is None:
        return row.state == JobState.RUNNING and other.state != JobState.RUNNING
    return claim[1].partition("[")[0] == row.job_id


def _shown(answer: Answer) -> str:
    if answer.timed_out:
        return "no answer in time"
    return answer.text[:500] or f"nothing, with exit code {answer.exit_code}"


def _failed(end: End) -> Report:
    return Report(state=JobState.FAILED, failure=end[0], reason=end[1])


def _ended(end: End) -> Report:
    return _failed(end) if end[0] else Report(state=JobState.SUCCEEDED)
