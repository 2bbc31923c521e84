"""The LSF backend: a round's jobs as job arrays, and what becomes of each.

LSF's word is never a success: the exit code that a job leaves in the round's folder decides. What
LSF cannot say is unknown and alive, for a bounded time.
"""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from ds_flow.core import DispatchError, FailureClass, JobState, LsfSite
from ds_flow.dispatch.commands import print_note, put_environment
from ds_flow.dispatch.lsf import texts
from ds_flow.dispatch.lsf.client import NOTHING_HEARD, LsfClient, Poll, shown
from ds_flow.dispatch.lsf.handover import Chunk, Handover
from ds_flow.dispatch.lsf.texts import Row
from ds_flow.dispatch.rounds import JobSpec, Report, Round

LOOKS = 2  # clean ones that agree that a job is not there
HISTORY_JOBS = 200  # elements that one bhist is asked about

GOING = frozenset({JobState.PENDING, JobState.RUNNING})  # by LSF's own word
ENDED = frozenset({JobState.SUCCEEDED, JobState.FAILED})

Place = tuple[str, int]
"""A round's name and a job's index."""


@dataclass(slots=True)
class Absence:
    """Since when, and how often in clean answers, a job was not there or out of sight."""

    since_s: float
    looks: int = 0


@dataclass(slots=True)
class Lsf:
    """The backend for one site; its memory is of waits only, and may be lost."""

    site: LsfSite
    environ: Mapping[str, str]
    _absences: dict[Place, Absence] = field(default_factory=dict)
    _history: dict[Place, Row | None] = field(default_factory=dict)
    _said: str = ""

    @property
    def poll_seconds(self) -> tuple[float, float]:
        """At first quickly, for jobs of seconds, if the site lets us."""
        return min(1.0, self.site.poll_seconds), self.site.poll_seconds

    def command(self, job: JobSpec) -> tuple[str, ...]:
        """The job itself: LSF keeps its limits."""
        return job.command

    def _client(self, batch_round: Round) -> LsfClient:
        return LsfClient(self.site, self.environ, batch_round, Handover.of(batch_round, self.site))

    # ------------------------------------------------------------------ submit

    def submit(self, batch_round: Round) -> bool:
        """Submit each chunk once; one whose reply was lost is looked for, not sent blindly."""
        put_environment(batch_round.environment_file, self.environ)
        client = self._client(batch_round)
        handover = client.handover
        while (chunk := handover.next_to_submit()) is not None:
            if not self._submit_chunk(client, chunk):
                break
        for chunk in handover.asked():
            self._look_up(client, chunk)
        return handover.is_complete

    def _submit_chunk(self, client: LsfClient, chunk: Chunk) -> bool:
        """Submit one chunk; whether to go on with the next."""
        chunk.asked_at = time.time()
        client.handover.save()  # before the call: whoever comes after a crash looks for it first
        answer = client.bsub(chunk)
        accepted = texts.ACCEPTED.search(f"{answer.out}\n{answer.err}")
        if accepted:
            chunk.job_ids = [accepted[1]]
        elif answer.exit_code and not answer.timed_out and texts.REFUSED.search(answer.text):
            chunk.asked_at = None
            self._adapt(client.handover, chunk, answer.text)
        else:
            self._complain(f"bsub: no job id in its answer: {shown(answer)}")
        client.handover.save()
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

    def _look_up(self, client: LsfClient, chunk: Chunk) -> None:
        """Find a chunk whose reply was lost; let it be sent again once it is surely not there."""
        found = client.find(chunk.name)
        chunk.job_ids = sorted(found or (), key=int)
        chunk.looks += found == set()
        waited_s = time.time() - (chunk.asked_at or 0)  # below 0 if the clock was set back
        if chunk.looks >= LOOKS and not 0 <= waited_s <= self.site.grace_seconds:
            chunk.asked_at, chunk.looks = None, 0
        client.handover.save()

    # ------------------------------------------------------------------ ask

    def ask(self, batch_round: Round, indices: Collection[int]) -> dict[int, Report]:
        """By exit codes on disk, and one bjobs for all that have left none.

        While LSF says that one of them waits in its queue, the round is alive.
        """
        client = self._client(batch_round)
        poll = client.poll() if self._is_to_ask(batch_round, indices) else NOTHING_HEARD
        if any(poll.rows[index].state == JobState.PENDING for index in poll.rows.keys() & indices):
            batch_round.note_alive()
        ended = batch_round.ended()  # after the poll: what LSF says has ended may show it by now
        reports = {
            index: self._of_ended(client, index, poll)
            if index in ended
            else self._of_open(client, index, poll)
            for index in indices
        }
        self._complain(client.trouble)
        return reports

    def _is_to_ask(self, batch_round: Round, indices: Collection[int]) -> bool:
        """Whether any of these has left no exit code, or one that LSF knows more about."""
        ended = batch_round.ended()
        return any(
            index not in ended or _is_told_by_lsf(batch_round.exit_of(index)) for index in indices
        )

    def _of_ended(self, client: LsfClient, index: int, poll: Poll) -> Report:
        """By the exit code; of one over 128 the reason, once LSF says it."""
        left, row = client.batch_round.exit_of(index), poll.rows.get(index)
        if left is None:
            return self._of_torn(client, index, row)
        if not _is_told_by_lsf(left):
            return Report.of_end(texts.end_with_code(left[0], row))
        is_known = row is not None and row.state in ENDED
        if not is_known and self._absent_s(_place(client, index)) <= self._patience_s(row):
            return Report(state=JobState.RUNNING)
        return Report.of_end(texts.end_with_code(left[0], self._told(client, index, row)))

    def _patience_s(self, row: Row | None) -> float:
        """How long LSF may take to say why a job ended: longer where it has not seen it yet."""
        is_behind = row is not None and row.state in GOING
        return self.site.unknown_minutes * 60 if is_behind else self.site.grace_seconds

    def _of_torn(self, client: LsfClient, index: int, row: Row | None) -> Report:
        """Of an exit code that stands in the folder and cannot be read: late, or torn for ever."""
        if self._absent_s(_place(client, index)) <= self.site.grace_seconds:
            return Report(state=JobState.UNKNOWN)
        return Report.of_end(texts.end_without_code(self._told(client, index, row)))

    def _of_open(self, client: LsfClient, index: int, poll: Poll) -> Report:
        """By what LSF says, as far as it says something."""
        row, place = poll.rows.get(index), _place(client, index)
        if not client.handover.chunk_of(index).job_ids:
            return Report(state=JobState.PENDING)
        if row is None:
            return (
                self._of_unseen(client, index, row)
                if poll.is_clean
                else Report(state=JobState.UNKNOWN)
            )
        if row.state in GOING:
            self._absences.pop(place, None)
            return Report(state=row.state)
        if row.state == JobState.UNKNOWN:
            return self._of_unseen(client, index, row)
        if client.find_claimer(index) or self._absent_s(place) <= self.site.grace_seconds:
            return Report(state=JobState.UNKNOWN)  # its exit code may yet show
        return Report.of_end(texts.end_without_code(self._told(client, index, row)))

    def _of_unseen(self, client: LsfClient, index: int, row: Row | None) -> Report:
        """Of a job that bjobs does not list, or whose host LSF has lost: alive for a while."""
        place = _place(client, index)
        absent_s = self._absent_s(place)
        looks = self._absences[place].looks
        if row is None and looks >= LOOKS and absent_s > self.site.grace_seconds:
            known = self._told(client, index, None)
            has_begun = client.batch_round.claim_of(index) is not None
            if (known is None and not has_begun) or (known and known.state in ENDED):
                return Report.of_end(texts.end_without_code(known))
        if absent_s <= self.site.unknown_minutes * 60:
            return Report(state=JobState.UNKNOWN)
        client.bkill([client.handover.native_id(index)])
        seen = row.status if row else "not listed"
        why = f"out of LSF's sight for {self.site.unknown_minutes:g} minutes ({seen})"
        return Report.of_end((FailureClass.INFRASTRUCTURE, why))

    def _absent_s(self, place: Place) -> float:
        """Seconds since this job was first missed; this look counts."""
        now_s = time.monotonic()
        absence = self._absences.setdefault(place, Absence(now_s))
        absence.looks += 1
        return now_s - absence.since_s

    def _told(self, client: LsfClient, index: int, row: Row | None) -> Row | None:
        """What LSF says of an end: the row if it has a reason, else bhist, asked once for many.

        What bhist has said of a job that had not ended yet says nothing of its end.
        """
        if row is not None and (row.term or row.exit_code is not None):
            return row
        name = client.batch_round.name
        known = self._history.get((name, index))
        is_new = row is not None and row.state in ENDED and known and known.state not in ENDED
        if is_new or (name, index) not in self._history:
            missed = {at for other, at in self._absences if other == name}
            unasked = [at for at in sorted(missed - {index}) if (name, at) not in self._history]
            found = client.history([index, *unasked][:HISTORY_JOBS])
            self._history |= {(name, at): told for at, told in found.items()}
        return self._history.get((name, index)) or row

    # ------------------------------------------------------------------ cancel, release

    def cancel(self, batch_round: Round) -> bool:
        """Kill what is there, and see whether it has ended."""
        client = self._client(batch_round)
        handover = client.handover
        for chunk in handover.asked():
            self._look_up(client, chunk)
        if handover.job_ids:
            client.bkill(handover.job_ids)
            poll = client.poll()
            if not poll.is_clean or any(row.state not in ENDED for row in poll.rows.values()):
                return False
        return not list(handover.asked())

    def release(self, batch_round: Round) -> bool:
        """End what was taken twice and not needed, and take the variables away."""
        client = self._client(batch_round)
        for chunk in client.handover.chunks:
            if len(chunk.job_ids) > 1:
                client.bkill(chunk.job_ids)
        batch_round.environment_file.unlink(missing_ok=True)
        return True

    def _complain(self, what: str) -> None:
        """Say what LSF's trouble is, once, where the run's log has it."""
        if what and what != self._said:
            print_note("lsf", f"{what}; asked again later")
        self._said = what or self._said


def _place(client: LsfClient, index: int) -> Place:
    return client.batch_round.name, index


def _is_told_by_lsf(left: tuple[int, str] | None) -> bool:
    """Whether LSF knows more of this end: a signal, sent for a reason, or a code that is torn."""
    return left is None or left[0] > 128  # noqa: PLR2004 - 128 + signal
