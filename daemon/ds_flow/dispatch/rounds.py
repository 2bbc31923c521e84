"""A round on disk: one submission of a stage's open jobs, and what became of each."""

import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from ds_flow.core import CHECKOUT, DispatchError, FailureClass, JobState
from ds_flow.dispatch.exit_codes import End
from ds_flow.system import write_word

RUN_JOB = CHECKOUT / "bash" / "run_job.sh"  # what runs a job and leaves the files here
LOG_BYTES = 2**16  # of a job's log that is kept, its end

EXIT = re.compile(r"([0-9]{1,3}) ([0-9]{1,11})\n")
CLAIM = re.compile(r"(\S+) (\S+) ([0-9]{1,11})\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """One command that a stage hands to a backend."""

    key: str  # what it does, unique in its stage: a later attempt finds its outcome again by it
    command: tuple[str, ...]
    stdin: Path | None = None
    cpus: int = 1
    memory_mb: int = 2048
    limit_minutes: float = 720
    queue: str = ""  # of LSF
    image: str = ""  # of Docker
    reads: tuple[Path, ...] = ()  # what it reads and writes, where a backend must bring it there
    writes: tuple[Path, ...] = ()

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote."""
        paths = {name: tuple(map(Path, row.get(name, ()))) for name in ("reads", "writes")}
        stdin = Path(row["stdin"]) if row["stdin"] else None
        return cls(**{**row, **paths, "command": tuple(row["command"]), "stdin": stdin})

    def to_json(self) -> dict[str, Any]:
        """One JSON object."""
        paths = {name: [str(path) for path in getattr(self, name)] for name in ("reads", "writes")}
        return {**asdict(self), **paths, "stdin": str(self.stdin) if self.stdin else None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a backend says of one job now. Why it ended counts only in an end state."""

    state: JobState
    failure: FailureClass | None = None
    reason: str = ""
    image_id: str = ""  # what ran, where that was an image
    image_digest: str = ""  # its name in a registry, if it has one

    @classmethod
    def of_end(cls, end: End, image_id: str = "", image_digest: str = "") -> Self:
        """Report a job that has ended."""
        failure, reason = end
        return cls(
            state=JobState.FAILED if failure else JobState.SUCCEEDED,
            failure=failure,
            reason=reason,
            image_id=image_id,
            image_digest=image_digest,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one job in one round. It succeeded if `failure` is None."""

    key: str
    index: int
    round: str
    opened_by: str  # the attempt
    failure: FailureClass | None
    reason: str
    exit_code: int | None
    host: str
    native_id: str
    started_at: str
    ended_at: str
    image_id: str = ""
    image_digest: str = ""

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Read what `asdict` wrote."""
        failure = FailureClass(row["failure"]) if row["failure"] else None
        return cls(**{**row, "failure": failure})


@dataclass(frozen=True, slots=True)
class Round:
    """One submission: `<batch>/jobs/<stage>/<number>/`. It is open until its verdict is there."""

    folder: Path
    name: str  # dsf-<batch>-<stage>-<number>: what a backend's queue shows
    opened_by: str  # the attempt
    executor: str
    jobs: tuple[JobSpec, ...]  # job i has the index i + 1

    @property
    def indices(self) -> range:
        """The jobs' indices, from 1 as schedulers count."""
        return range(1, len(self.jobs) + 1)

    @property
    def environment_file(self) -> Path:
        """Where the variables of `.env` are for the jobs: bash/run_job.sh reads it."""
        return self.folder / "env"

    def note_alive(self) -> None:
        """Let this moment count as progress, though nothing has moved: `workdir.progress`."""
        os.utime(self.folder)

    def ended(self) -> set[int]:
        """The jobs that have left an exit code, by one look at the folder."""
        names = (entry.name for entry in os.scandir(self.folder))
        return {int(name[:-5]) for name in names if name.endswith(".exit")}

    def exit_of(self, index: int) -> tuple[int, str] | None:
        """A job's exit code and when it ended, once the job has left them."""
        found = _read(self.folder / f"{index}.exit", EXIT)
        return (int(found[1]), _time(found[2])) if found else None

    def claim_of(self, index: int) -> tuple[str, str, str] | None:
        """The host, native id and start time of a job that has begun."""
        found = _read(self.folder / f"{index}.claim", CLAIM)
        return (found[1], found[2], _time(found[3])) if found else None

    def is_starved(self, index: int) -> bool:
        """Whether the kernel killed a job for want of memory."""
        return (self.folder / f"{index}.starved").exists()

    def log_of(self, index: int) -> str:
        """What a job printed: its last 64 KiB, after a line that says so if that is not all."""
        try:
            with (self.folder / f"{index}.log").open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                left_out = file.seek(max(0, size - LOG_BYTES))
                mark = f"... {left_out} bytes before this are left out\n" if left_out else ""
                return mark + file.read().decode(errors="replace")
        except FileNotFoundError:
            return ""

    def verdict(self) -> list[Outcome] | None:
        """What became of every job; None while the round is open, or if its verdict is torn."""
        try:
            rows = json.loads((self.folder / "verdict.json").read_bytes())
            return [Outcome.from_json(row) for row in rows]
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return None

    def close(self, outcomes: Sequence[Outcome]) -> None:
        """Record the verdict, whole, by one rename."""
        rows = [asdict(outcome) for outcome in outcomes]
        write_word(self.folder / "verdict.json", json.dumps(rows))

    @property
    def is_released(self) -> bool:
        """Whether its backend holds nothing of it any more."""
        return (self.folder / "released").exists()

    def mark_released(self) -> None:
        """Record that."""
        (self.folder / "released").touch()


def rounds_in(stage_dir: Path) -> Iterator[Round]:
    """A stage's rounds, oldest first; one that a power loss has torn is passed over."""
    for folder in _folders(stage_dir):
        with suppress(FileNotFoundError, ValueError, TypeError, KeyError):
            row = json.loads((folder / "round.json").read_bytes())
            jobs = tuple(JobSpec.from_json(job) for job in row["jobs"])
            executor = row.get("executor", "local")
            yield Round(folder, row["name"], row["opened_by"], executor, jobs)


def _folders(stage_dir: Path) -> list[Path]:
    found = stage_dir.iterdir() if stage_dir.is_dir() else ()
    return sorted(
        (path for path in found if path.name.isdecimal()), key=lambda path: int(path.name)
    )


def open_round(
    stage_dir: Path,
    batch: str,
    opened_by: str,
    executor: str,
    jobs: Sequence[JobSpec],
    commands: Sequence[Sequence[str]],
) -> Round:
    """Write the next round, whole, under its number. `commands` are what really runs, by index."""
    number = 1 + max((int(folder.name) for folder in _folders(stage_dir)), default=0)
    name = f"dsf-{batch}-{stage_dir.name}-{number}"
    part = stage_dir / f".{number}.{secrets.token_hex(4)}"
    part.mkdir(parents=True)
    for index, (job, command) in enumerate(zip(jobs, commands, strict=True), 1):
        (part / f"{index}.args").write_bytes(b"".join(os.fsencode(arg) + b"\0" for arg in command))
        if job.stdin is not None:
            (part / f"{index}.stdin").symlink_to(job.stdin)
    row = {"name": name, "opened_by": opened_by, "executor": executor}
    text = json.dumps({**row, "jobs": [job.to_json() for job in jobs]})
    write_word(part / "round.json", text)
    folder = stage_dir / str(number)
    try:
        part.rename(folder)
    except OSError as error:
        raise DispatchError(f"{folder}: another process opened this round: {error}") from error
    return Round(folder, name, opened_by, executor, tuple(jobs))


def _read(path: Path, form: re.Pattern[str]) -> re.Match[str] | None:
    """Read what run_job.sh wrote; None if that is missing, unfinished, or torn by a power loss."""
    try:
        return form.fullmatch(path.read_text(encoding="utf-8", errors="replace"))
    except FileNotFoundError:
        return None


def _time(seconds: str) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).isoformat()
