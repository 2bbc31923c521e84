"""The Docker backend: each job of a round as a container of its own.

The engine accepts a container's name only once, so each job starts once, whoever asks for it. An
ended container is kept until the round is closed: its name stays taken until then, and what is
missing on disk can be read from the engine again.
"""

import os
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

from ds_flow.core import DispatchError, FailureClass, JobState
from ds_flow.dispatch.commands import KILL_AFTER_SECONDS, put_environment
from ds_flow.dispatch.docker import texts
from ds_flow.dispatch.docker.client import DockerClient, EngineSilentError
from ds_flow.dispatch.docker.handover import Handover
from ds_flow.dispatch.docker.texts import Container, Image
from ds_flow.dispatch.exit_codes import End
from ds_flow.dispatch.rounds import JobSpec, Report, Round
from ds_flow.system import put_file

START_GRACE_SECONDS = 5  # from a container's creation to its start, by whoever created it
CAUSE_GRACE_SECONDS = 3  # from a failed end to the engine's word that memory ran out


@dataclass(slots=True)
class Docker:
    """The backend for one engine. It remembers only what it waits for, and may lose that."""

    client: DockerClient
    _is_waiting: bool = False  # some jobs wait for others to end
    _seen_s: dict[tuple[str, str], float] = field(default_factory=dict)  # first, with its status

    @property
    def poll_seconds(self) -> tuple[float, float]:
        """A job that waits for another one's end should not wait long."""
        return 0.1, 0.5 if self._is_waiting else 5.0

    def command(self, job: JobSpec) -> tuple[str, ...]:
        """The job itself: the engine enforces all limits except the run limit."""
        return job.command

    def most_memory_mb(self) -> int | None:
        """What the engine has."""
        return self.client.unless_silent(self.client.memory_mb)

    # ------------------------------------------------------------------ submit

    def submit(self, batch_round: Round) -> bool:
        """Start a container for each job, as many at once as allowed."""
        handover = Handover(batch_round)
        if handover.is_cancelled:
            return True
        if handover.without_container():
            self.client.unless_silent(lambda: self._start_some(handover))
            handover.note_silent(self.client.silent)
            if handover.without_container() and self.client.is_lost:
                raise DispatchError(self.client.lost)
        self._is_waiting = bool(handover.without_container())
        return not self._is_waiting

    def _start_some(self, handover: Handover) -> None:
        batch_round = handover.batch_round
        put_environment(batch_round.environment_file, self.client.environ)
        places = max(0, self._places(batch_round) - len(handover.live()))
        for index in handover.without_container()[:places]:
            self._start(handover, index)

    def _places(self, batch_round: Round) -> int:
        cpus = max(job.cpus for job in batch_round.jobs)
        return self.client.site.max_parallel or max(1, len(os.sched_getaffinity(0)) // cpus)

    def _start(self, handover: Handover, index: int) -> None:
        """Start one container, or find the one that was started although the answer was lost."""
        if handover.was_asked(index) and self._find(handover, index):
            return
        argv = self._run_command(handover, index)
        handover.note_asked(index)
        answer = self.client.call(*argv)
        if answer.exit_code == 0:
            handover.put_container(index, answer.out.split()[-1])
        elif not self._find(handover, index):  # it may exist, although it could not be started
            name = texts.name_of(handover.batch_round, index)
            if texts.NAME_TAKEN.search(answer.err) and not self._is_overdue(name):
                return
            handover.forget_asked(index)
            why = texts.refusal(" ".join(answer.err.split()))
            raise DispatchError(f"{self.client.site.command} refused {name}: {why}")

    def _is_overdue(self, name: str) -> bool:
        """Whether a name has been taken for too long by a container that does not show.

        A slow engine takes the name first. The container shows when it is made, which may be after
        the call that asked for it has run out of time.
        """
        return self._is_so_for(name, "taken", self.client.site.unknown_minutes * 60)

    def _run_command(self, handover: Handover, index: int) -> list[str]:
        batch_round = handover.batch_round
        job = batch_round.jobs[index - 1]
        if texts.wants_script(batch_round, job):
            script = texts.script(batch_round, job)
            texts.script_path(batch_round, index).write_bytes(os.fsencode(script))
        options = (*self._user(), *texts.log_options(is_podman=self.client.is_podman))
        image = self._image(handover, job.image)
        return texts.run_command(batch_round, index, image, self.client.site, options)

    def _find(self, handover: Handover, index: int) -> bool:
        """Find a job's container by its name and record it. Returns whether there is one.

        Raises DispatchError if it belongs to another round of the same name, of a copied folder.
        """
        name = texts.name_of(handover.batch_round, index)
        found = self.client.inspect([name])
        for container in found:
            if container.folder != texts.mark_of(handover.batch_round.folder):
                raise DispatchError(f"the container {name} exists, but belongs to another batch")
            handover.put_container(index, container.id)
        return bool(found)

    def _user(self) -> Iterator[str]:
        """Be the caller inside, too, so that the caller owns the files."""
        if self.client.is_podman and os.getuid():
            yield "--userns=keep-id"
        else:
            yield from (f"--group-add={group}" for group in set(os.getgroups()) - {os.getgid()})
        yield f"--user={os.getuid()}:{os.getgid()}"

    def _image(self, handover: Handover, name: str) -> Image:
        """The image that a name means, the same for all jobs of a round."""
        known = handover.images()
        if name not in known:
            known[name] = self.client.image(name)
            handover.put_images(known)
        return known[name]

    # ------------------------------------------------------------------ ask

    def ask(self, batch_round: Round, indices: Collection[int]) -> dict[int, Report]:
        """Use what was recorded of ended containers, and ask one inspect about all others."""
        handover = Handover(batch_round)
        ids = {index: handover.container_id(index) for index in handover.live() & set(indices)}
        found: dict[str, Container] | None = {}
        if ids:
            found = self.client.unless_silent(lambda: self._follow(handover, ids))
            handover.note_silent(self.client.silent)
        return {index: self._report(handover, index, ids.get(index), found) for index in indices}

    def _follow(self, handover: Handover, ids: Mapping[int, str]) -> dict[str, Container]:
        """Look at these containers and do what their states require."""
        found = {one.id: one for one in self.client.inspect(list(ids.values()))}
        late: list[str] = []
        for index, container in ((index, found[one]) for index, one in ids.items() if one in found):
            if container.status in texts.NEW:
                self._follow_new(handover, index, container)
            elif container.status in texts.ENDED:
                self._follow_ended(handover, index, container)
            else:
                handover.claim(index, container)
                limit_s = handover.batch_round.jobs[index - 1].limit_minutes * 60
                if time.time() - container.started_s >= limit_s:
                    late.append(container.id)
        if late:
            self.client.call("stop", f"--time={texts.STOP_SECONDS}", *late)
        return found

    def _follow_new(self, handover: Handover, index: int, container: Container) -> None:
        """Start a container whose creator died before starting it, after a grace time."""
        error = container.error
        if not error and self._is_so_for(container.id, container.status, START_GRACE_SECONDS):
            answer = self.client.call("start", container.id)
            error = answer.text if answer.exit_code else ""
        if error:
            self._record(handover, index, replace(container, error=error))

    def _follow_ended(self, handover: Handover, index: int, container: Container) -> None:
        """Record an end. Of a failed one the engine may say a moment later that memory ran out."""
        has_cause = container.exit_code == 0 or container.is_out_of_memory
        if has_cause or self._is_so_for(container.id, container.status, CAUSE_GRACE_SECONDS):
            self._record(handover, index, container)

    def _is_so_for(self, which: str, status: str, seconds: float) -> bool:
        """Whether a container has been seen in this state for longer than this."""
        now_s = time.monotonic()
        return now_s - self._seen_s.setdefault((which, status), now_s) > seconds

    def _report(
        self,
        handover: Handover,
        index: int,
        container_id: str | None,
        found: Mapping[str, Container] | None,
    ) -> Report:
        job = handover.batch_round.jobs[index - 1]
        if (container := handover.end(index)) is not None:
            return _ended(handover, job, texts.end_of(container, job.limit_minutes))
        if handover.is_cancelled:
            return _ended(handover, job, (FailureClass.BY_HAND, "cancelled"))
        if container_id is None:
            return Report(state=JobState.PENDING)
        if found is None:
            if not self.client.is_lost:
                return Report(state=JobState.UNKNOWN)
            return _ended(handover, job, (FailureClass.INFRASTRUCTURE, self.client.lost))
        if container_id in found:
            is_new = found[container_id].status in texts.NEW
            return Report(state=JobState.PENDING if is_new else JobState.RUNNING)
        why = "its container is gone: somebody has removed it"
        return _ended(handover, job, (FailureClass.INFRASTRUCTURE, why))

    def _record(self, handover: Handover, index: int, container: Container) -> None:
        """Record a job's end, durably. The order matters after a crash.

        1. The claim: where and since when it ran.
        2. Its log.
        3. Its exit code, if it ran.
        4. What the engine reported. From here on the engine is not asked again.
        """
        handover.claim(index, container)
        self._put_log(handover.batch_round, index, container)
        has_run = container.status in texts.ENDED
        handover.put_end(index, container, exit_code=container.exit_code if has_run else None)

    def _put_log(self, batch_round: Round, index: int, container: Container) -> None:
        with put_file(batch_round.folder / f"{index}.log", mode=0o600) as file:
            answer = self.client.call("logs", container.id, output=file.fileno())
            file.seek(0)
            if answer.exit_code and not texts.ANSWERED.search(file.read().decode(errors="replace")):
                why = f"no log of {container.id[:12]}: exit code {answer.exit_code}"
                raise EngineSilentError(why)

    # ------------------------------------------------------------------ cancel, release

    def cancel(self, batch_round: Round) -> bool:
        """Remove all containers and let none follow. Returns whether none is left or can come."""
        Handover(batch_round).note_cancelled()
        return bool(self.client.unless_silent(lambda: self._remove_all(batch_round)))

    def release(self, batch_round: Round) -> bool:
        """Remove the round's containers and its variables."""
        batch_round.environment_file.unlink(missing_ok=True)
        return bool(self.client.unless_silent(lambda: self._remove_all(batch_round)))

    def _remove_all(self, batch_round: Round) -> bool:
        handover = Handover(batch_round)
        present = self.client.containers_of(batch_round.folder)
        for name, container_id in present.items():
            handover.put_container(int(name.rpartition("-")[2]), container_id)
        if present:
            self.client.call("rm", "--force", "--volumes", *present.values())
            present = self.client.containers_of(batch_round.folder)
        # The request of a caller that was killed may still be on its way.
        longest_s = self.client.site.command_seconds + KILL_AFTER_SECONDS
        may_follow = any(0 <= since_s <= longest_s for since_s in handover.unanswered_s())
        return not present and not may_follow


def _ended(handover: Handover, job: JobSpec, end: End) -> Report:
    image = handover.images().get(job.image)
    return Report.of_end(end, image.id if image else "", image.digest if image else "")
