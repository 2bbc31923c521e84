"""The LSF backend: a round's jobs as job arrays.

A job has succeeded only if its exit code on disk says so, never because LSF says so. A job whose
state LSF cannot tell is unknown, and counts as alive for a bounded time.
"""

import math
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from ds_flow.core import DispatchError, FailureClass, JobState, LsfSite, Problems
from ds_flow.dispatch.commands import call, print_note, put_environment
from ds_flow.dispatch.lsf import texts
from ds_flow.dispatch.lsf.client import NO_ANSWER, LsfClient, Poll, shown
from ds_flow.dispatch.lsf.handover import Chunk, Handover
from ds_flow.dispatch.lsf.texts import Row
from ds_flow.dispatch.rounds import JobSpec, Report, Round

LOOKS = 2  # clean polls that must agree that a job is not there
HISTORY_JOBS = 200  # jobs in one call of bhist
MINUTE_SECONDS = 60
REASON_LOOKS = 20  # with jobs that are pending, for one question why they are

UNFINISHED = frozenset({JobState.PENDING, JobState.RUNNING})  # as LSF reports it
ENDED = frozenset({JobState.SUCCEEDED, JobState.FAILED})

Place = tuple[str, int]
"""A job: its round's name and its index."""

Missing = Literal["sight", "exit code", "reason"]
"""What is waited for: that LSF sees the job, its exit code on disk, LSF's reason for its end."""


@dataclass(slots=True)
class Absence:
    """Since when something of a job has been missing, and in how many polls."""

    since_s: float
    looks: int = 0


@dataclass(slots=True)
class Lsf:
    """The backend for one site. It remembers only what it waits for, and may lose that."""

    site: LsfSite
    environ: Mapping[str, str]
    _absences: dict[Place, dict[Missing, Absence]] = field(default_factory=dict)
    _history: dict[Place, Row | None] = field(default_factory=dict)
    _pending_looks: dict[str, int] = field(default_factory=dict)  # by round
    _problems: Problems = field(default_factory=Problems)

    @property
    def poll_seconds(self) -> tuple[float, float]:
        """Quickly at first, for jobs of seconds, if the site allows it."""
        return min(1.0, self.site.poll_seconds), self.site.poll_seconds

    def command(self, job: JobSpec) -> tuple[str, ...]:
        """The job itself: LSF enforces its limits."""
        return job.command

    def most_memory_mb(self) -> int | None:
        """What the largest host has. A job that asks for more would wait for ever."""
        with suppress(DispatchError):  # a site may do without this command
            limit_s = self.site.command_seconds
            answer = call(["lshosts", "-w"], limit_s, cwd=Path("/"), environ=self.environ)
            return texts.largest_host_mb(answer.out)
        return None

    def _client(self, batch_round: Round) -> LsfClient:
        return LsfClient(self.site, self.environ, batch_round, Handover.of(batch_round, self.site))

    # ------------------------------------------------------------------ submit

    def submit(self, batch_round: Round) -> bool:
        """Submit each chunk once. If an answer was lost, the chunk is looked up, not sent again."""
        put_environment(batch_round.environment_file, self.environ)
        client = self._client(batch_round)
        handover = client.handover
        while (chunk := handover.next_to_submit()) is not None:
            if self._is_too_soon(handover) or not self._submit_chunk(client, chunk):
                break
        for chunk in handover.asked():
            self._look_up(client, chunk)
        return handover.is_complete

    def _is_too_soon(self, handover: Handover) -> bool:
        """Whether this minute has had its submissions. The next look goes on."""
        most, now = self.site.submissions_per_minute, time.time()
        asked = [now - one.asked_at for one in handover.chunks if one.asked_at is not None]
        return bool(most) and sum(0 <= since_s < MINUTE_SECONDS for since_s in asked) >= most

    def _submit_chunk(self, client: LsfClient, chunk: Chunk) -> bool:
        """Submit one chunk. Returns whether to go on with the next."""
        chunk.asked_at = time.time()
        client.handover.save()  # before the call: after a crash the chunk is looked up first
        answer = client.bsub(chunk)
        accepted = texts.ACCEPTED.search(f"{answer.out}\n{answer.err}")
        if accepted:
            chunk.job_ids = [accepted[1]]
        elif answer.exit_code and not answer.timed_out and texts.REFUSED.search(answer.text):
            chunk.asked_at = None
            self._adapt(client, chunk, answer.text)
        else:
            self._tell(f"bsub: no job id in its answer: {shown(answer)}")
        client.handover.save()
        return chunk.asked_at is None or accepted is not None

    def _adapt(self, client: LsfClient, chunk: Chunk, refusal: str) -> None:
        """Change the request to what this LSF accepts. Raises DispatchError if nothing helps."""
        handover = client.handover
        is_beyond = bool(texts.BEYOND_LIMIT.search(refusal))
        if (is_beyond or texts.TOO_LARGE.search(refusal)) and handover.halve(chunk):
            return
        if is_beyond and client.batch_round.jobs[chunk.first - 1].has_more_memory:
            chunk.refused = refusal  # the stage's own limit was accepted
            return
        is_unit = (
            not is_beyond and texts.BAD_UNIT.search(refusal) and self.site.memory_unit == "auto"
        )
        if is_unit and not handover.is_plain:
            handover.learn(is_plain=True)
            return
        handover.save()
        raise DispatchError(f"bsub refused {chunk.name}: {refusal}")

    def _look_up(self, client: LsfClient, chunk: Chunk) -> None:
        """Look up a chunk whose answer was lost. If it is certainly not there, send it again."""
        found = client.find(chunk.name)
        chunk.job_ids = sorted(found or (), key=int)
        chunk.looks += found == set()
        waited_s = time.time() - (chunk.asked_at or 0)  # negative if the clock was set back
        if chunk.looks >= LOOKS and not 0 <= waited_s <= self.site.grace_seconds:
            chunk.asked_at, chunk.looks = None, 0
        client.handover.save()

    # ------------------------------------------------------------------ ask

    def ask(self, batch_round: Round, indices: Collection[int]) -> dict[int, Report]:
        """Read exit codes from disk, and ask one bjobs about all other jobs.

        While a job waits in LSF's queue or is suspended, that counts as progress.
        """
        client = self._client(batch_round)
        poll = client.poll() if self._must_poll(batch_round, indices) else NO_ANSWER
        if any(poll.rows[index].status in texts.IDLE for index in poll.rows.keys() & indices):
            batch_round.note_alive()
        if poll is not NO_ANSWER or client.trouble:
            client.handover.note(silent=client.trouble)
        self._note_pending(client, poll)
        ended = (
            batch_round.ended()
        )  # after the poll: a job that LSF reports as ended may have left its code by now
        reports = {
            index: self._report_ended(client, index, poll)
            if index in ended
            else self._report_open(client, index, poll)
            for index in indices
        }
        if client.trouble:
            self._tell(client.trouble)
        return {index: _named(client, index, report) for index, report in reports.items()}

    def _note_pending(self, client: LsfClient, poll: Poll) -> None:
        """Keep why jobs are pending. LSF is asked at one of many looks that find some.

        The first such look does not ask: most jobs have begun by the second.
        """
        if not any(row.state == JobState.PENDING for row in poll.rows.values()):
            if poll.is_clean:
                client.handover.note(pending=[])
            return
        looks = self._pending_looks.get(client.batch_round.name, 0)
        self._pending_looks[client.batch_round.name] = looks + 1
        if looks % REASON_LOOKS == 1:
            client.handover.note(pending=client.pending_reasons())

    def _must_poll(self, batch_round: Round, indices: Collection[int]) -> bool:
        """Whether a job has no exit code, or one that LSF knows more about."""
        ended = batch_round.ended()
        return any(
            index not in ended or _is_explained_by_lsf(batch_round.exit_of(index))
            for index in indices
        )

    def _report_ended(self, client: LsfClient, index: int, poll: Poll) -> Report:
        """Report a job with an exit code. For a code over 128, wait until LSF gives the reason."""
        left, row = client.batch_round.exit_of(index), poll.rows.get(index)
        if left is None:
            return self._report_torn(client, index, row)
        if not _is_explained_by_lsf(left):
            return Report.of_end(texts.end_with_code(left[0], row))
        is_known = row is not None and row.state in ENDED
        if not is_known and not self._is_overdue(client, index, "reason", self._patience_s(row)):
            return Report(state=JobState.RUNNING)
        return Report.of_end(texts.end_with_code(left[0], self._end_row(client, index, row)))

    def _patience_s(self, row: Row | None) -> float:
        """How long LSF may take to give a reason: longer if it has not noticed the end yet."""
        is_late = row is not None and row.state in UNFINISHED
        return self.site.unknown_minutes * 60 if is_late else self.site.grace_seconds

    def _report_torn(self, client: LsfClient, index: int, row: Row | None) -> Report:
        """Report a job whose exit code is not there or not readable: late, or torn, or never."""
        if not self._is_overdue(client, index, "exit code", self.site.grace_seconds):
            return Report(state=JobState.UNKNOWN)
        return self._without_code(client, index, self._end_row(client, index, row))

    def _without_code(self, client: LsfClient, index: int, known: Row | None) -> Report:
        """Report an end without an exit code, unless the code came while LSF was asked."""
        if client.batch_round.exit_of(index) is not None:
            return Report(state=JobState.UNKNOWN)
        return Report.of_end(texts.end_without_code(known))

    def _report_open(self, client: LsfClient, index: int, poll: Poll) -> Report:
        """Report a job without an exit code, from what LSF says."""
        row, chunk = poll.rows.get(index), client.handover.chunk_of(index)
        if chunk.refused:
            why = f"memory limit reached, and LSF gives no more ({chunk.refused})"
            return Report.of_end((FailureClass.MEMORY, why))
        if not chunk.job_ids:
            return Report(state=JobState.PENDING)
        if row is None and not poll.is_clean:
            return Report(state=JobState.UNKNOWN)
        if row is None or row.state == JobState.UNKNOWN:
            return self._report_unseen(client, index, row)
        if row.state in UNFINISHED:
            self._absences.pop(_place(client, index), None)
            return self._report_unfinished(client, index, row)
        if client.find_claimer(index):
            return Report(state=JobState.UNKNOWN)
        return self._report_torn(client, index, row)

    def _report_unfinished(self, client: LsfClient, index: int, row: Row) -> Report:
        """Report a job that waits or runs. If it may wait no longer, it is ended."""
        limit_minutes = self.site.pending_minutes
        waited_s = time.time() - (client.handover.chunk_of(index).asked_at or math.inf)
        is_over = limit_minutes and waited_s > limit_minutes * 60
        if row.state != JobState.PENDING or not is_over:
            return Report(state=row.state)
        client.bkill([client.handover.native_id(index)])
        queue = client.batch_round.jobs[index - 1].queue
        why = f"it waited in the queue {queue} for more than {limit_minutes:g} minutes"
        return Report.of_end((FailureClass.INFRASTRUCTURE, why))

    def _report_unseen(self, client: LsfClient, index: int, row: Row | None) -> Report:
        """Report a job that bjobs does not list or whose host is lost: alive, for a while."""
        is_late = self._is_overdue(client, index, "sight", self.site.grace_seconds)
        absence = self._absences[_place(client, index)]["sight"]
        if row is None and absence.looks >= LOOKS and is_late:
            known = self._end_row(client, index, None)
            if known and known.state in ENDED:
                return self._report_torn(client, index, known)
            if known is None and client.batch_round.claim_of(index) is None:
                return self._without_code(client, index, None)
        if time.monotonic() - absence.since_s <= self.site.unknown_minutes * 60:
            return Report(state=JobState.UNKNOWN)
        client.bkill([client.handover.native_id(index)])
        seen = row.status if row else "not listed"
        why = f"out of LSF's sight for {self.site.unknown_minutes:g} minutes ({seen})"
        return Report.of_end((FailureClass.INFRASTRUCTURE, why))

    def _is_overdue(self, client: LsfClient, index: int, what: Missing, limit_s: float) -> bool:
        """Whether something of a job has been missing for longer than this. Counts this poll.

        Each wait has its own beginning: a job that was not listed for long may have ended just
        now, and its exit code be on its way.
        """
        now_s = time.monotonic()
        missing = self._absences.setdefault(_place(client, index), {})
        absence = missing.setdefault(what, Absence(now_s))
        absence.looks += 1
        return now_s - absence.since_s > limit_s

    def _end_row(self, client: LsfClient, index: int, row: Row | None) -> Row | None:
        """How LSF says a job ended: the row if it has a reason, else bhist, asked once for many.

        An answer of bhist from before the job's end is asked for again.
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
            self._history |= {(name, at): ended for at, ended in found.items()}
        return self._history.get((name, index)) or row

    # ------------------------------------------------------------------ cancel, release

    def cancel(self, batch_round: Round) -> bool:
        """Kill all jobs, and check whether they have ended."""
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
        """Kill arrays that LSF accepted a second time, and remove the variables' file."""
        client = self._client(batch_round)
        for chunk in client.handover.chunks:
            if len(chunk.job_ids) > 1:
                client.bkill(chunk.job_ids)
        batch_round.environment_file.unlink(missing_ok=True)
        return True

    def _tell(self, trouble: str) -> None:
        """Print a problem with LSF to the run's log, once until it changes."""
        if self._problems.report("lsf", trouble):
            print_note("lsf", f"{trouble}; asked again later")


def _named(client: LsfClient, index: int, report: Report) -> Report:
    """The report with the job's id, so that it can be named although it never began."""
    if not client.handover.chunk_of(index).job_ids:
        return report
    return replace(report, native_id=client.handover.native_id(index))


def _place(client: LsfClient, index: int) -> Place:
    return client.batch_round.name, index


def _is_explained_by_lsf(left: tuple[int, str] | None) -> bool:
    """Whether LSF knows more about an end: why a signal was sent, or what a torn code was."""
    return left is None or left[0] > 128  # noqa: PLR2004 - 128 + signal
