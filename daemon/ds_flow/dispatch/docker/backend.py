"""The Docker backend: each job of a round as a container of its own.

A container's name can be had once, so a job starts once whoever asks for it. An ended container is
kept until the round is closed: until then its name is taken, and what is on disk can be told anew.
"""

import os
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from ds_flow.core import DispatchError, FailureClass, JobState
from ds_flow.dispatch.commands import KILL_AFTER_SECONDS, put_environment
from ds_flow.dispatch.docker import texts
from ds_flow.dispatch.docker.client import Engine, EngineSilentError
from ds_flow.dispatch.docker.texts import Container, Image
from ds_flow.dispatch.rounds import JobSpec, Report, Round
from ds_flow.system import read_json, sync_file, write_json, write_word

START_GRACE_SECONDS = 5  # from a container's creation to its start, by whoever created it

# What stands in a round's folder of a job, beside what every backend leaves there.
ASKED = ".asked"  # its container was asked for, perhaps without an answer
CONTAINER = ".container"  # the id of its container
ENDED = ".ended.json"  # what the engine said of its end
IMAGES = "images.json"  # what the images' names meant
CANCELLED = "cancelled"


@dataclass(slots=True)
class Docker:
    """The backend for one engine; its memory is of waits only, and may be lost."""

    engine: Engine
    _is_waiting: bool = False  # some jobs wait for others to end
    _created_s: dict[str, float] = field(default_factory=dict)  # first seen so, by container

    @property
    def poll_seconds(self) -> tuple[float, float]:
        """While a job waits for another's end, that should be seen soon."""
        return 0.1, 0.5 if self._is_waiting else 5.0

    def command(self, job: JobSpec) -> tuple[str, ...]:
        """The job itself: the engine keeps its limits, but for that of time."""
        return job.command

    # ------------------------------------------------------------------ submit

    def submit(self, batch_round: Round) -> bool:
        """Start a container for each job, so many at once as may be."""
        if _is_cancelled(batch_round):
            return True
        left = sorted(set(batch_round.indices) - _marked(batch_round, CONTAINER))
        if left:
            self.engine.listen(lambda: self._start_some(batch_round, left))
            left = sorted(set(batch_round.indices) - _marked(batch_round, CONTAINER))
            if self.engine.is_lost:
                raise DispatchError(self.engine.lost)
        self._is_waiting = bool(left)
        return not left

    def _start_some(self, batch_round: Round, left: Collection[int]) -> None:
        put_environment(batch_round.folder, self.engine.environ)
        live = _marked(batch_round, CONTAINER) - _marked(batch_round, ENDED)
        for index in list(left)[: max(0, self._places(batch_round) - len(live))]:
            self._start(batch_round, index)

    def _places(self, batch_round: Round) -> int:
        cpus = max(job.cpus for job in batch_round.jobs)
        return self.engine.site.max_parallel or max(1, len(os.sched_getaffinity(0)) // cpus)

    def _start(self, batch_round: Round, index: int) -> None:
        """Start one container, or find the one that was started when the answer was lost."""
        asked = _path(batch_round, index, ASKED)
        if asked.exists() and self._take(batch_round, index):
            return
        argv = self._run_command(batch_round, index)
        asked.touch()
        answer = self.engine.call(*argv)
        if answer.exit_code == 0:
            write_word(_path(batch_round, index, CONTAINER), answer.out.split()[-1])
        elif not self._take(batch_round, index):  # it may be there, and not to be started
            asked.unlink()
            (batch_round.folder / IMAGES).unlink(missing_ok=True)
            why = texts.refusal(" ".join(answer.err.split()))
            name = texts.name_of(batch_round, index)
            raise DispatchError(f"{self.engine.site.command} refused {name}: {why}")

    def _run_command(self, batch_round: Round, index: int) -> list[str]:
        job = batch_round.jobs[index - 1]
        if texts.wants_script(batch_round, job):
            script = texts.script(batch_round, job)
            texts.script_path(batch_round, index).write_bytes(os.fsencode(script))
        options = (*self._user(), *texts.log_options(is_podman=self.engine.is_podman))
        image = self._image(batch_round, job.image)
        return texts.run_command(batch_round, index, image, self.engine.site, options)

    def _take(self, batch_round: Round, index: int) -> bool:
        """Know a job's container by its name; whether it is there.

        Raises DispatchError if another round of the same name, of a copied folder, has it.
        """
        name = texts.name_of(batch_round, index)
        found = self.engine.inspect([name])
        for container in found:
            if container.folder != texts.mark_of(batch_round.folder):
                raise DispatchError(f"there is a container {name}, and it is not of this batch")
            write_word(_path(batch_round, index, CONTAINER), container.id)
        return bool(found)

    def _user(self) -> Iterator[str]:
        """Be the caller inside, too, so that its files are the caller's."""
        if self.engine.is_podman and os.getuid():
            yield "--userns=keep-id"
        else:
            yield from (f"--group-add={group}" for group in set(os.getgroups()) - {os.getgid()})
        yield f"--user={os.getuid()}:{os.getgid()}"

    def _image(self, batch_round: Round, name: str) -> Image:
        """The image that a name means, the same for all jobs of a round."""
        known = _images(batch_round)
        if name not in known:
            known[name] = self.engine.image(name)
            rows = {key: asdict(image) for key, image in known.items()}
            write_json(batch_round.folder / IMAGES, rows)
        return known[name]

    # ------------------------------------------------------------------ ask

    def ask(self, batch_round: Round, indices: Collection[int]) -> dict[int, Report]:
        """By what was told of ended containers, and one inspect for all others."""
        ended = _marked(batch_round, ENDED)
        started = _marked(batch_round, CONTAINER)
        ids = {
            index: _path(batch_round, index, CONTAINER).read_text(encoding="utf-8").strip()
            for index in (started - ended).intersection(indices)
        }
        found: dict[str, Container] | None = {}
        if ids:
            found = self.engine.listen(lambda: self._follow(batch_round, ids))
        return {index: self._report(batch_round, index, ids.get(index), found) for index in indices}

    def _follow(self, batch_round: Round, ids: Mapping[int, str]) -> dict[str, Container]:
        """See how these containers do, and do what their states ask for."""
        found = {one.id: one for one in self.engine.inspect(list(ids.values()))}
        late: list[str] = []
        for index, container in ((index, found[one]) for index, one in ids.items() if one in found):
            if container.status in texts.NEW:
                self._follow_new(batch_round, index, container)
            elif container.status in texts.ENDED:
                self._record(batch_round, index, container)
            else:
                _claim(batch_round, index, container)
                limit_s = batch_round.jobs[index - 1].limit_minutes * 60
                if time.time() - container.started_s >= limit_s:
                    late.append(container.id)
        if late:
            self.engine.call("stop", f"--time={texts.STOP_SECONDS}", *late)
        return found

    def _follow_new(self, batch_round: Round, index: int, container: Container) -> None:
        """Start a container whose creator did not live to, once it surely did not."""
        since_s = self._created_s.setdefault(container.id, time.monotonic())
        error = container.error
        if not error and time.monotonic() - since_s > START_GRACE_SECONDS:
            answer = self.engine.call("start", container.id)
            error = answer.text if answer.exit_code else ""
        if error:
            self._record(batch_round, index, replace(container, error=error))

    def _report(
        self,
        batch_round: Round,
        index: int,
        container_id: str | None,
        found: Mapping[str, Container] | None,
    ) -> Report:
        left = _read_end(batch_round, index)
        if left is not None:
            end = texts.end_of(left, batch_round.jobs[index - 1].limit_minutes)
            return self._ended(batch_round, index, *end)
        if _is_cancelled(batch_round):
            return self._ended(batch_round, index, FailureClass.BY_HAND, "cancelled")
        if container_id is None:
            return Report(state=JobState.PENDING)
        if found is None:
            if not self.engine.is_lost:
                return Report(state=JobState.UNKNOWN)
            return self._ended(batch_round, index, FailureClass.INFRASTRUCTURE, self.engine.lost)
        if container_id in found:
            is_new = found[container_id].status in texts.NEW
            return Report(state=JobState.PENDING if is_new else JobState.RUNNING)
        why = "its container is gone: somebody has removed it"
        return self._ended(batch_round, index, FailureClass.INFRASTRUCTURE, why)

    def _ended(
        self, batch_round: Round, index: int, failure: FailureClass | None, reason: str
    ) -> Report:
        image = _images(batch_round).get(batch_round.jobs[index - 1].image)
        return Report(
            state=JobState.FAILED if failure else JobState.SUCCEEDED,
            failure=failure,
            reason=reason,
            image_id=image.id if image else "",
            image_digest=image.digest if image else "",
        )

    def _record(self, batch_round: Round, index: int, container: Container) -> None:
        """Leave what a job printed and how it ended where every backend does, durably."""
        _claim(batch_round, index, container)
        self._put_log(batch_round, index, container)
        if container.status in texts.ENDED:
            path = _path(batch_round, index, ".exit")
            write_word(path, f"{container.exit_code} {container.ended_s:.0f}")
            sync_file(path)
        write_json(_path(batch_round, index, ENDED), asdict(container))

    def _put_log(self, batch_round: Round, index: int, container: Container) -> None:
        path = _path(batch_round, index, ".log")
        part = path.with_suffix(".part")
        part.touch(0o600)
        with part.open("wb") as file:
            answer = self.engine.call("logs", container.id, output=file.fileno())
        if answer.exit_code and not texts.ANSWERED.search(part.read_text(errors="replace")):
            raise EngineSilentError(f"no log of {container.id[:12]}: exit code {answer.exit_code}")
        sync_file(part)
        part.replace(path)

    # ------------------------------------------------------------------ cancel, release

    def cancel(self, batch_round: Round) -> bool:
        """Remove what is there and let nothing follow; whether nothing is, nor can be, left."""
        (batch_round.folder / CANCELLED).touch()
        return bool(self.engine.listen(lambda: self._remove_all(batch_round)))

    def release(self, batch_round: Round) -> bool:
        """Remove the round's containers, and take the variables away."""
        (batch_round.folder / "env").unlink(missing_ok=True)
        return bool(self.engine.listen(lambda: self._remove_all(batch_round)))

    def _remove_all(self, batch_round: Round) -> bool:
        there = self.engine.containers_of(batch_round.folder)
        for name, container_id in there.items():
            index = int(name.rpartition("-")[2])
            write_word(_path(batch_round, index, CONTAINER), container_id)
        if there:
            self.engine.call("rm", "--force", "--volumes", *there.values())
            there = self.engine.containers_of(batch_round.folder)
        return not there and not self._may_yet_come(batch_round)

    def _may_yet_come(self, batch_round: Round) -> bool:
        """Whether a killed caller's request may still be on its way."""
        longest_s = self.engine.site.command_seconds + KILL_AFTER_SECONDS
        for index in _marked(batch_round, ASKED) - _marked(batch_round, CONTAINER):
            since_s = time.time() - _path(batch_round, index, ASKED).stat().st_mtime
            if 0 <= since_s <= longest_s:
                return True
        return False


def _path(batch_round: Round, index: int, suffix: str) -> Path:
    return batch_round.folder / f"{index}{suffix}"


def _marked(batch_round: Round, suffix: str) -> set[int]:
    """The jobs that have a file of this suffix."""
    names = (entry.name for entry in os.scandir(batch_round.folder))
    stems = (name.removesuffix(suffix) for name in names if name.endswith(suffix))
    return {int(stem) for stem in stems if stem.isdecimal()}


def _is_cancelled(batch_round: Round) -> bool:
    return (batch_round.folder / CANCELLED).exists()


def _claim(batch_round: Round, index: int, container: Container) -> None:
    """Leave where and since when a job runs; once, when it has begun."""
    path = _path(batch_round, index, ".claim")
    if container.started_s and not path.exists():
        words = (os.uname().nodename, container.id[:12], f"{container.started_s:.0f}")
        write_word(path, " ".join(words))


def _images(batch_round: Round) -> dict[str, Image]:
    try:
        rows = read_json(batch_round.folder / IMAGES)
    except FileNotFoundError:
        return {}
    return {name: Image(**row) for name, row in rows.items()}


def _read_end(batch_round: Round, index: int) -> Container | None:
    try:
        return Container(**read_json(_path(batch_round, index, ENDED)))
    except FileNotFoundError:
        return None
