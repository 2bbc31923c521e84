"""Slurm's commands: what is asked, and what is certain from their answers."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ds_flow.core import DispatchError, SlurmSite
from ds_flow.dispatch.cluster import (
    ENDED,
    NO_ANSWER,
    Calls,
    Chunk,
    Poll,
    Refusal,
    Row,
    Submitted,
    array_of,
    shown,
)
from ds_flow.dispatch.commands import Answer, call, print_note
from ds_flow.dispatch.exit_codes import End
from ds_flow.dispatch.slurm import texts
from ds_flow.system import NotRegularError, open_regular

OUTPUT_BYTES = 2**16  # of what slurmstepd says in a job's output, from its end
FOUND_DAYS = 7  # how far back an array is looked for in the accounts


@dataclass(frozen=True, slots=True)
class SlurmScheduler:
    """sbatch, squeue, scontrol, sacct and scancel."""

    site: SlurmSite
    executor: str = "slurm"
    title: str = "Slurm"
    submitter: str = "sbatch"

    def most_memory_mb(self, environ: Mapping[str, str]) -> int | None:
        """What the largest host has."""
        sinfo, limit_s = ["sinfo", "-h", "-N", "-o", "%m"], self.site.command_seconds
        return texts.largest_host_mb(call(sinfo, limit_s, cwd=Path("/"), environ=environ).out)

    # ------------------------------------------------------------------ sbatch

    def submit(self, calls: Calls, chunk: Chunk) -> Submitted:
        """Submit one chunk by sbatch."""
        most = max(calls.jobs_of(chunk), key=lambda job: job.memory_mb)
        command = texts.sbatch_command(chunk.name, chunk.count, most, self.site)
        script = texts.sbatch_script(calls.batch_round.folder, chunk.first - 1)
        answer = calls.call(command, stdin=script)
        if accepted := texts.ACCEPTED.search(answer.out):
            return Submitted(job_id=accepted[1])
        is_error = answer.exit_code and not answer.timed_out and texts.ERROR.search(answer.err)
        if is_error and not texts.UNSURE.search(answer.err):
            return Submitted(refused=texts.refusal(answer.err))
        return Submitted(said=f"sbatch: no job id in its answer: {shown(answer)}")

    def meaning(self, calls: Calls, chunk: Chunk, refusal: str) -> Refusal:
        """What a refusal of sbatch means.

        If this user has no jobs there, and may not have as many as the array, it is too large.
        """
        if texts.TOO_LARGE.search(refusal):
            return Refusal.TOO_LARGE
        if texts.TOO_MUCH_MEMORY.search(refusal):
            return Refusal.TOO_MUCH_MEMORY
        is_other = texts.LIMIT.search(refusal)
        is_full = texts.TOO_MANY_JOBS.search(refusal)
        if is_full or (texts.POLICY.search(refusal) and not is_other):
            is_alone = chunk.count > 1 and not self._has_jobs(calls)
            return Refusal.TOO_LARGE if is_alone else Refusal.LATER
        return Refusal.LATER if texts.LATER.search(refusal) else Refusal.FINAL

    def _has_jobs(self, calls: Calls) -> bool:
        """Whether this user has jobs there, or may have."""
        listed = calls.call(["squeue", "-h", "-u", f"{os.getuid()}", "-o", "%F"])
        return bool(listed.exit_code or texts.arrays_in(listed.out))

    def find(self, calls: Calls, name: str) -> set[str] | None:
        """The ids of this user's arrays of this name."""
        whose = ("-u", f"{os.getuid()}")
        listed = calls.call(["squeue", "-h", "-t", "all", *whose, "-n", name, "-o", "%F"])
        found = texts.arrays_in(listed.out)
        if found or listed.exit_code:
            return found or None
        since = ("-S", f"now-{FOUND_DAYS}days")
        answer = self._accounts(calls, [*whose, "--name", name, *since, "-o", "JobID"])
        if answer is None:
            return set()
        return None if answer.exit_code else texts.arrays_in(answer.out)

    # ------------------------------------------------------------------ squeue

    def poll(self, calls: Calls) -> Poll:
        """Ask once about all arrays, also for what ended a short time ago."""
        ids = ",".join(calls.handover.job_ids)
        if not ids:
            return NO_ANSWER
        answer = calls.call(["squeue", "-h", "-r", "-t", "all", "-o", texts.FIELDS, "-j", ids])
        if answer.exit_code and not is_not_there(answer):
            calls.trouble = f"squeue: {shown(answer)}"
            return NO_ANSWER
        return calls.poll_of(answer, texts.rows_in_queue(answer.out))

    def pending_reasons(self, _calls: Calls) -> list[str]:
        """None: squeue has said them."""
        return []

    # ------------------------------------------------------------------ scontrol, sacct, scancel

    def history(self, calls: Calls, asked: Mapping[int, str]) -> dict[str, Row | None]:
        """How elements ended: from slurmctld, then from accounts, then from their own output."""
        rows: dict[str, Row] = {}
        is_certain = True
        for array in dict.fromkeys(map(array_of, asked.values())):
            answer = calls.call(["scontrol", "-o", "show", "job", array])
            if answer.exit_code and not is_not_there(answer):
                calls.trouble = f"scontrol: {shown(answer)}"
                return {}
            rows |= _ours(calls, texts.rows_of_jobs(answer.out))
        if forgotten := sorted(set(asked.values()) - rows.keys()):
            question = ["-j", ",".join(forgotten), "-o", texts.ACCOUNT_FIELDS]
            kept = self._accounts(calls, question)
            is_certain = kept is None or not kept.exit_code
            rows |= _ours(calls, texts.rows_in_accounts(kept.out if kept else ""))
        told = {id_: _said(calls, index) for index, id_ in asked.items() if id_ not in rows}
        rows |= {id_: texts.row_said(id_, term) for id_, term in told.items() if term}
        return {id_: rows.get(id_) for id_ in asked.values() if is_certain or id_ in rows}

    def _accounts(self, calls: Calls, asked: Sequence[str]) -> Answer | None:
        """What sacct says; None at a site without accounts, which is learnt and said once."""
        if calls.handover.learnt.get("has_accounts") is False:
            return None
        try:
            answer = calls.call(["sacct", "-n", "-P", "-X", *asked])
            said = answer.text if texts.NO_ACCOUNTS.search(answer.text) else ""
        except DispatchError as error:
            answer, said = None, str(error)
        if said:
            calls.handover.learn(has_accounts=False)
            print_note("slurm", f"{said}: how a job ended is known only for a short time")
            return None
        if answer and answer.exit_code:
            calls.trouble = f"sacct: {shown(answer)}"
        return answer

    def kill(self, calls: Calls, ids: Sequence[str]) -> None:
        """Ask Slurm to cancel jobs. The exit code is ignored: it is 0 also for unknown ones.

        The name is said, too: an id may be that of another array by now.
        """
        for chunk in calls.handover.chunks:
            if own := [id_ for id_ in ids if array_of(id_) in chunk.job_ids]:
                calls.call(["scancel", f"--user={os.getuid()}", f"--name={chunk.name}", *own])

    # ------------------------------------------------------------------ ends

    def is_explained(self, row: Row) -> bool:
        """Whether the state says all. A failure may have been a signal, which squeue omits."""
        return row.state in ENDED and (row.status != "FAILED" or row.exit_code is not None)

    def end_with_code(self, calls: Calls, index: int, code: int, row: Row | None) -> End:
        """Why a job with an exit code ended."""
        return texts.end_with_code(code, row, _said(calls, index) if code else "")

    def end_without_code(self, calls: Calls, index: int, row: Row | None) -> End:
        """Why a job without an exit code ended."""
        is_claimed = calls.batch_round.claim_of(index) is not None
        return texts.end_without_code(row, _said(calls, index), is_claimed=is_claimed)


def _said(calls: Calls, index: int) -> str:
    """Slurm's word for an end in what slurmstepd added to the job's output; or ""."""
    chunk = calls.handover.chunk_of(index)
    name = f"{chunk.name}_{index - chunk.first + 1}.out"
    try:
        with os.fdopen(open_regular(calls.batch_round.folder / "slurm" / name), "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - OUTPUT_BYTES))
            return texts.term_in_output(file.read().decode(errors="replace"))
    except (FileNotFoundError, NotRegularError):
        return ""


def _ours(calls: Calls, rows: Sequence[Row]) -> dict[str, Row]:
    """The rows by native id, without those of another array that has the id of a lost one."""
    of = calls.handover.index_of
    return {f"{row.job_id}_{row.index}": row for row in rows if of(row.job_id, row.index, row.name)}


def is_not_there(answer: Answer) -> bool:
    """Whether Slurm says that it does not know the job."""
    return not answer.timed_out and bool(texts.NOT_THERE.search(answer.text))
