"""LSF's commands: what is asked, and what is certain from their answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ds_flow.core import LsfSite
from ds_flow.dispatch.cluster import (
    NO_ANSWER,
    Calls,
    Chunk,
    Poll,
    Refusal,
    Row,
    Submitted,
    shown,
)
from ds_flow.dispatch.commands import Answer, call
from ds_flow.dispatch.exit_codes import End
from ds_flow.dispatch.lsf import texts


@dataclass(frozen=True, slots=True)
class LsfScheduler:
    """bsub, bjobs, bhist and bkill."""

    site: LsfSite
    executor: str = "lsf"
    title: str = "LSF"
    submitter: str = "bsub"

    def most_memory_mb(self, environ: Mapping[str, str]) -> int | None:
        """What the largest host has."""
        answer = call(["lshosts", "-w"], self.site.command_seconds, cwd=Path("/"), environ=environ)
        return texts.largest_host_mb(answer.out)

    # ------------------------------------------------------------------ bsub

    def submit(self, calls: Calls, chunk: Chunk) -> Submitted:
        """Submit one chunk by bsub."""
        folder = calls.batch_round.folder
        command = texts.bsub_command(
            chunk.name,
            chunk.count,
            max(calls.jobs_of(chunk), key=lambda job: job.memory_mb),
            folder,
            self.site,
            plain=self._is_plain(calls),
        )
        answer = calls.call(command, stdin=texts.bsub_script(folder, chunk.first - 1))
        if accepted := texts.ACCEPTED.search(f"{answer.out}\n{answer.err}"):
            return Submitted(job_id=accepted[1])
        if answer.exit_code and not answer.timed_out and texts.REFUSED.search(answer.text):
            return Submitted(refused=answer.text)
        return Submitted(said=f"bsub: no job id in its answer: {shown(answer)}")

    def _is_plain(self, calls: Calls) -> bool:
        """Whether memory is requested as numbers without units."""
        is_refused = self.site.memory_unit == "auto" and calls.handover.learnt.get("is_plain")
        return bool(is_refused) or self.site.memory_unit == "plain"

    def meaning(self, calls: Calls, _chunk: Chunk, refusal: str) -> Refusal:
        """What a refusal of bsub means. A refused unit is left out from now on."""
        if texts.BEYOND_LIMIT.search(refusal):
            return Refusal.TOO_MUCH_MEMORY
        if texts.TOO_LARGE.search(refusal):
            return Refusal.TOO_LARGE
        is_unit = texts.BAD_UNIT.search(refusal) and self.site.memory_unit == "auto"
        if not is_unit or self._is_plain(calls):
            return Refusal.FINAL
        calls.handover.learn(is_plain=True)
        return Refusal.LEARNT

    def find(self, calls: Calls, name: str) -> set[str] | None:
        """The ids of arrays of this name. None if LSF gave no certain answer."""
        listed = calls.call(["bjobs", "-a", "-w", "-J", name])
        found = texts.ids_in(listed.out)
        if found or not is_not_there(listed):
            return found or None
        history = calls.call(["bhist", "-n", "0", "-a", "-l", "-J", name])
        found = texts.ids_in(history.out)
        return found if found or is_not_there(history) else None

    # ------------------------------------------------------------------ bjobs

    def poll(self, calls: Calls) -> Poll:
        """Ask once about all arrays, in JSON if this LSF supports it."""
        ids = calls.handover.job_ids
        if not ids:
            return NO_ANSWER
        if calls.handover.learnt.get("speaks_json") is not False:
            answer = calls.call(["bjobs", "-a", "-json", "-o", texts.FIELDS, *ids])
            rows = texts.rows_in_json(answer.out)
            if rows is not None or not texts.NO_SUCH_OPTION.search(answer.err):
                return _poll_of(calls, answer, rows or [])
            calls.handover.learn(speaks_json=False)
        answer = calls.call(["bjobs", "-a", "-w", *ids])
        names = [chunk.name for chunk in calls.handover.chunks]
        return _poll_of(
            calls, answer, [row for name in names for row in texts.rows_in_table(answer.out, name)]
        )

    def pending_reasons(self, calls: Calls) -> list[str]:
        """Why this round's jobs wait, in LSF's words."""
        return texts.pending_reasons(calls.call(["bjobs", "-p", *calls.handover.job_ids]).out)

    # ------------------------------------------------------------------ bhist, bkill

    def history(self, calls: Calls, asked: Mapping[int, str]) -> dict[str, Row | None]:
        """What bhist says of elements, by native id."""
        answer = calls.call(["bhist", "-n", "0", "-l", *asked.values()])
        rows = {f"{row.job_id}[{row.index}]": row for row in texts.rows_in_history(answer.out)}
        if not rows and not is_not_there(answer):
            calls.trouble = f"bhist: {shown(answer)}"
            return {}
        return {id_: rows.get(id_) for id_ in asked.values()}

    def kill(self, calls: Calls, ids: Sequence[str]) -> None:
        """Ask LSF to kill jobs. The exit code is ignored: it is 255 even if LSF is killing them."""
        calls.call(["bkill", *ids])

    # ------------------------------------------------------------------ ends

    def is_explained(self, row: Row) -> bool:
        """Whether bjobs gave the reason, or the exit code."""
        return bool(row.term) or row.exit_code is not None

    def end_with_code(self, _calls: Calls, _index: int, code: int, row: Row | None) -> End:
        """Why a job with an exit code ended."""
        return texts.end_with_code(code, row)

    def end_without_code(self, _calls: Calls, _index: int, row: Row | None) -> End:
        """Why a job without an exit code ended."""
        return texts.end_without_code(row)


def _poll_of(calls: Calls, answer: Answer, rows: Sequence[Row]) -> Poll:
    """The rows by job index. An empty answer is none, with exit code 0, too."""
    if not rows and not is_not_there(answer):
        calls.trouble = f"bjobs: {shown(answer)}"
        return NO_ANSWER
    return calls.poll_of(answer, rows)


def is_not_there(answer: Answer) -> bool:
    """Whether LSF says that it does not know the job. An empty answer does not say so."""
    return not answer.timed_out and bool(texts.NOT_THERE.search(answer.text))
