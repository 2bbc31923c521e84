"""The backend of a cluster, LSF or Slurm: a round's jobs as job arrays.

A job has succeeded only if its exit code on disk says so, never because the cluster says so. A job
whose state the cluster cannot tell is unknown, and counts as alive for a bounded time.
"""

import math
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from ds_flow.core import ClusterSite, DispatchError, FailureClass, JobState, Problems
from ds_flow.dispatch.cluster.calls import NO_ANSWER, Calls, Poll, Scheduler
from ds_flow.dispatch.cluster.ends import ENDED, Refusal, Row
from ds_flow.dispatch.cluster.handover import Chunk, Handover
from ds_flow.dispatch.cluster.waits import Place, Waits
from ds_flow.dispatch.commands import print_note, put_environment
from ds_flow.dispatch.rounds import JobSpec, Report, Round

LOOKS = 2  # clean polls that must agree that a job is not there
HISTORY_JOBS = 200  # jobs in one question about what is known of their ends
MINUTE_SECONDS = 60
REASONS_KEPT = 5  # of a round
REASON_LOOKS = 20  # with jobs that are pending, for one question why they are

UNFINISHED = frozenset({JobState.PENDING, JobState.RUNNING})  # as the cluster reports it

HALVED = frozenset({Refusal.TOO_LARGE, Refusal.TOO_MUCH_MEMORY})


@dataclass(slots=True)
class ClusterBackend:
    """The backend for one site. It remembers only what it waits for, and may lose that."""

    scheduler: Scheduler
    environ: Mapping[str, str]
    _waits: Waits = field(default_factory=Waits)
    _history: dict[Place, Row | None] = field(default_factory=dict)
    _pending_looks: dict[str, int] = field(default_factory=dict)  # by round
    _problems: Problems = field(default_factory=Problems)

    @property
    def _site(self) -> ClusterSite:
        return self.scheduler.site

    @property
    def poll_seconds(self) -> tuple[float, float]:
        """Quickly at first, for jobs of seconds, if the site allows it."""
        longest_s = self._site.poll_seconds
        return min(1.0, longest_s), longest_s

    def command(self, job: JobSpec) -> tuple[str, ...]:
        """The job itself: the cluster enforces its limits."""
        return job.command

    def most_memory_mb(self) -> int | None:
        """What the largest host has."""
        with suppress(DispatchError):  # a site may do without this command
            return self.scheduler.most_memory_mb(self.environ)
        return None

    def _calls(self, batch_round: Round) -> Calls:
        site = self._site
        return Calls(site, self.environ, batch_round, Handover.of(batch_round, site.max_array))

    # ------------------------------------------------------------------ submit

    def submit(self, batch_round: Round) -> bool:
        """Submit each chunk once. If an answer was lost, the chunk is looked up, not sent again."""
        put_environment(batch_round.environment_file, self.environ)
        calls = self._calls(batch_round)
        handover = calls.handover
        while (chunk := handover.next_to_submit()) is not None:
            if self._is_too_soon(handover) or not self._submit_chunk(calls, chunk):
                break
        for chunk in handover.asked():
            self._look_up(calls, chunk)
        return handover.is_complete

    def _is_too_soon(self, handover: Handover) -> bool:
        """Whether this minute has had its submissions. The next look goes on."""
        most, now = self._site.submissions_per_minute, time.time()
        asked = [now - one.asked_at for one in handover.chunks if one.asked_at is not None]
        return bool(most) and sum(0 <= since_s < MINUTE_SECONDS for since_s in asked) >= most

    def _submit_chunk(self, calls: Calls, chunk: Chunk) -> bool:
        """Submit one chunk. Returns whether to go on with the next."""
        chunk.asked_at = time.time()
        calls.handover.save()  # before the call: after a crash the chunk is looked up first
        answer = self.scheduler.submit(calls, chunk)
        if answer.job_id:
            chunk.job_ids, chunk.held = [answer.job_id], ""
        elif answer.refused:
            chunk.asked_at = None
            self._adapt(calls, chunk, answer.refused)
        else:
            self._tell(answer.said)
        calls.handover.save()
        return bool(answer.job_id) or (chunk.asked_at is None and not chunk.held)

    def _adapt(self, calls: Calls, chunk: Chunk, refusal: str) -> None:
        """Change the request to what this cluster accepts. Raises DispatchError if nothing helps.

        Where the site takes no job of this user now, the chunk waits.
        """
        handover, meaning = calls.handover, self.scheduler.meaning(calls, chunk, refusal)
        if meaning == Refusal.LEARNT or (meaning in HALVED and handover.halve(chunk)):
            return
        if meaning == Refusal.LATER:
            chunk.held = refusal
            calls.batch_round.note_alive()
            self._tell(f"{self.scheduler.submitter}: {refusal}")
            return
        is_beyond = meaning == Refusal.TOO_MUCH_MEMORY
        if is_beyond and calls.batch_round.jobs[chunk.first - 1].has_more_memory:
            chunk.refused = refusal  # the stage's own limit was accepted
            return
        handover.save()
        raise DispatchError(f"{self.scheduler.submitter} refused {chunk.name}: {refusal}")

    def _look_up(self, calls: Calls, chunk: Chunk) -> None:
        """Look up a chunk whose answer was lost. If it is certainly not there, send it again."""
        found = self.scheduler.find(calls, chunk.name)
        chunk.job_ids = sorted(found or (), key=int)
        chunk.looks += found == set()
        waited_s = time.time() - (chunk.asked_at or 0)  # negative if the clock was set back
        if chunk.looks >= LOOKS and not 0 <= waited_s <= self._site.grace_seconds:
            chunk.asked_at, chunk.looks = None, 0
        calls.handover.save()

    # ------------------------------------------------------------------ ask

    def ask(self, batch_round: Round, indices: Collection[int]) -> dict[int, Report]:
        """Read exit codes from disk, and ask the cluster once about all other jobs.

        While a job waits in its queue or is suspended, that counts as progress.
        """
        calls = self._calls(batch_round)
        poll = self.scheduler.poll(calls) if self._must_poll(batch_round, indices) else NO_ANSWER
        if any(poll.rows[index].is_idle for index in poll.rows.keys() & indices):
            batch_round.note_alive()
        if poll is not NO_ANSWER or calls.trouble:
            calls.handover.note(silent=calls.trouble)
        self._note_pending(calls, poll)
        ended = batch_round.ended()  # after the poll: what it reports as ended may have left a code
        reports = {
            index: self._report_ended(calls, index, poll)
            if index in ended
            else self._report_open(calls, index, poll)
            for index in indices
        }
        if calls.trouble:
            self._tell(calls.trouble)
        return {index: _named(calls, index, report) for index, report in reports.items()}

    def _note_pending(self, calls: Calls, poll: Poll) -> None:
        """Keep why jobs are pending, as the rows say, or else from a question of its own.

        That is asked at one of many looks that find pending jobs. The first such look does not
        ask: most jobs have begun by the second.
        """
        pending = [row for row in poll.rows.values() if row.state == JobState.PENDING]
        reasons = dict.fromkeys(row.waits for row in pending if row.waits)
        if reasons or not pending:
            if poll.is_clean:
                calls.handover.note(pending=list(reasons)[:REASONS_KEPT])
            return
        looks = self._pending_looks.get(calls.batch_round.name, 0)
        self._pending_looks[calls.batch_round.name] = looks + 1
        if looks % REASON_LOOKS == 1:
            calls.handover.note(pending=self.scheduler.pending_reasons(calls))

    def _must_poll(self, batch_round: Round, indices: Collection[int]) -> bool:
        """Whether a job has no exit code, or one that the cluster knows more about."""
        ended = batch_round.ended()
        return any(
            index not in ended or _is_explained_there(batch_round.exit_of(index))
            for index in indices
        )

    def _report_ended(self, calls: Calls, index: int, poll: Poll) -> Report:
        """Report a job with an exit code. For a code over 128, wait for the cluster's reason."""
        left, row = calls.batch_round.exit_of(index), poll.rows.get(index)
        if left is None:
            return self._report_torn(calls, index, row)
        if not _is_explained_there(left):
            return Report.of_end(self.scheduler.end_with_code(calls, index, left[0], row))
        is_known = row is not None and row.state in ENDED
        if not is_known and not self._waits.is_overdue(
            _place(calls, index), "reason", self._patience_s(row)
        ):
            return Report(state=JobState.RUNNING)
        known = self._end_row(calls, index, row)
        return Report.of_end(self.scheduler.end_with_code(calls, index, left[0], known))

    def _patience_s(self, row: Row | None) -> float:
        """How long a reason may take: longer if the cluster has not noticed the end yet."""
        is_late = row is not None and row.state in UNFINISHED
        return self._site.unknown_minutes * 60 if is_late else self._site.grace_seconds

    def _report_torn(self, calls: Calls, index: int, row: Row | None) -> Report:
        """Report a job whose exit code is not there or not readable: late, or torn, or never."""
        if not self._waits.is_overdue(_place(calls, index), "exit code", self._site.grace_seconds):
            return Report(state=JobState.UNKNOWN)
        return self._without_code(calls, index, self._end_row(calls, index, row))

    def _without_code(self, calls: Calls, index: int, known: Row | None) -> Report:
        """Report an end without an exit code, unless the code came while the cluster was asked."""
        if calls.batch_round.exit_of(index) is not None:
            return Report(state=JobState.UNKNOWN)
        return Report.of_end(self.scheduler.end_without_code(calls, index, known))

    def _report_open(self, calls: Calls, index: int, poll: Poll) -> Report:
        """Report a job without an exit code, from what the cluster says."""
        row, chunk = poll.rows.get(index), calls.handover.chunk_of(index)
        if chunk.refused:
            why = (
                f"memory limit reached, and {self.scheduler.title} gives no more ({chunk.refused})"
            )
            return Report.of_end((FailureClass.MEMORY, why))
        if not chunk.job_ids:
            return Report(state=JobState.PENDING)
        if row is None and not poll.is_clean:
            return Report(state=JobState.UNKNOWN)
        if row is None or row.state == JobState.UNKNOWN:
            return self._report_unseen(calls, index, row)
        if row.state in UNFINISHED:
            self._waits.forget(_place(calls, index))
            return self._report_unfinished(calls, index, row)
        if calls.find_claimer(index):
            return Report(state=JobState.UNKNOWN)
        return self._report_torn(calls, index, row)

    def _report_unfinished(self, calls: Calls, index: int, row: Row) -> Report:
        """Report a job that waits or runs. If it may wait no longer, it is ended."""
        limit_minutes = self._site.pending_minutes
        waited_s = time.time() - (calls.handover.chunk_of(index).asked_at or math.inf)
        is_over = limit_minutes and waited_s > limit_minutes * 60
        if row.state != JobState.PENDING or not is_over:
            return Report(state=row.state)
        self.scheduler.kill(calls, [calls.handover.native_id(index)])
        queue = calls.batch_round.jobs[index - 1].queue
        why = f"it waited in the queue {queue} for more than {limit_minutes:g} minutes"
        return Report.of_end((FailureClass.INFRASTRUCTURE, why))

    def _report_unseen(self, calls: Calls, index: int, row: Row | None) -> Report:
        """Report a job that is not listed or whose host is lost: alive, for a while."""
        absence = self._waits.count(_place(calls, index), "sight")
        missing_s = time.monotonic() - absence.since_s
        if row is None and absence.looks >= LOOKS and missing_s > self._site.grace_seconds:
            known = self._end_row(calls, index, None)
            if known and known.state in ENDED:
                return self._report_torn(calls, index, known)
            is_gone = known is None and _place(calls, index) in self._history
            if is_gone and calls.batch_round.claim_of(index) is None:
                return self._without_code(calls, index, None)
        limit_minutes = self._site.unknown_minutes
        if missing_s <= limit_minutes * 60:
            return Report(state=JobState.UNKNOWN)
        self.scheduler.kill(calls, [calls.handover.native_id(index)])
        seen = row.status if row else "not listed"
        why = f"out of {self.scheduler.title}'s sight for {limit_minutes:g} minutes ({seen})"
        return Report.of_end((FailureClass.INFRASTRUCTURE, why))

    def _end_row(self, calls: Calls, index: int, row: Row | None) -> Row | None:
        """How the cluster says a job ended: the row if that says all, else its history.

        That is asked once for many, and in one look once for each. An answer from before the job's
        end is asked for again.
        """
        if row is not None and self.scheduler.is_explained(row):
            return row
        name = calls.batch_round.name
        known = self._history.get((name, index))
        is_new = row is not None and row.state in ENDED and known and known.state not in ENDED
        if index not in calls.asked and (is_new or (name, index) not in self._history):
            missed = set(self._waits.of_round(name)) - {index} - calls.asked
            unasked = [at for at in sorted(missed) if (name, at) not in self._history]
            asked = {at: calls.native_id(at) for at in [index, *unasked][:HISTORY_JOBS]}
            calls.asked |= asked.keys()
            found = self.scheduler.history(calls, asked)
            self._history |= {(name, at): found[id_] for at, id_ in asked.items() if id_ in found}
        return self._history.get((name, index)) or row

    # ------------------------------------------------------------------ cancel, release

    def cancel(self, batch_round: Round) -> bool:
        """Kill all jobs, and check whether they have ended."""
        calls = self._calls(batch_round)
        handover = calls.handover
        for chunk in handover.asked():
            self._look_up(calls, chunk)
        if handover.job_ids:
            self.scheduler.kill(calls, handover.job_ids)
            poll = self.scheduler.poll(calls)
            if not poll.is_clean or any(row.state not in ENDED for row in poll.rows.values()):
                return False
        return not list(handover.asked())

    def release(self, batch_round: Round) -> bool:
        """Kill arrays that were accepted a second time, and remove the variables' file."""
        calls = self._calls(batch_round)
        for chunk in calls.handover.chunks:
            if len(chunk.job_ids) > 1:
                self.scheduler.kill(calls, chunk.job_ids)
        batch_round.environment_file.unlink(missing_ok=True)
        return True

    def _tell(self, trouble: str) -> None:
        """Print a problem with the cluster to the run's log, once until it changes."""
        executor = self.scheduler.executor
        if self._problems.report(executor, trouble):
            print_note(executor, f"{trouble}; asked again later")


def _named(calls: Calls, index: int, report: Report) -> Report:
    """The report with the job's id, so that it can be named although it never began."""
    if not calls.handover.chunk_of(index).job_ids:
        return report
    return replace(report, native_id=calls.handover.native_id(index))


def _place(calls: Calls, index: int) -> Place:
    return calls.batch_round.name, index


def _is_explained_there(left: tuple[int, str] | None) -> bool:
    """Whether the cluster knows more of an end: why a signal was sent, or what a torn code was."""
    return left is None or left[0] > 128  # noqa: PLR2004 - 128 + signal
