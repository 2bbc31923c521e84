"""The arguments of the docker command, and what it prints: Docker's and podman's."""

import csv
import hashlib
import io
import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ds_flow.core import CHECKOUT, DispatchError, DockerSite, FailureClass
from ds_flow.dispatch.exit_codes import RUN_LIMIT_REACHED, End, of_exit_code
from ds_flow.dispatch.rounds import JobSpec, Round

LABEL = "ds-flow"
STOP_SECONDS = 10  # from SIGTERM to SIGKILL, at the run limit
LOG_MB = 1  # of a container's output that its engine keeps, at least

NEW = frozenset({"created", "configured", "initialized"})
ENDED = frozenset({"exited", "stopped", "dead"})

# The engine marks its own errors with "Error response from daemon".
SILENT = re.compile(
    r"cannot connect|daemon running\?|error during connect|connection re(fused|set)|\bEOF\b"
    r"|context deadline|i/o timeout",
    re.IGNORECASE,
)
ANSWERED = re.compile(r"error response from daemon", re.IGNORECASE)
NOT_THERE = re.compile(r"no such (container|object|image)|image not known", re.IGNORECASE)
NAME_TAKEN = re.compile(r"container name \S+ is already in use", re.IGNORECASE)
NO_SPACE = re.compile(r"no space left|quota exceeded", re.IGNORECASE)
LOST_EXIT_CODE = 255  # what the engine says of a container that ended while it was down itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What a name meant when a round was handed over."""

    id: str
    digest: str  # its name in a registry, "" if it was never in one


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """What the engine reports of one container."""

    id: str
    folder: str  # the mark of the folder of its round
    status: str  # the engine's own word for the state
    exit_code: int
    is_out_of_memory: bool
    error: str
    started_s: float  # since the epoch; 0 if it never has
    ended_s: float


# --------------------------------------------------------------------------- arguments


def name_of(batch_round: Round, index: int) -> str:
    """The name of a job's container. The engine accepts it once, so it is the job's claim."""
    return f"{batch_round.name}-{index}"


def run_command(
    batch_round: Round, index: int, image: Image, site: DockerSite, user: Sequence[str]
) -> list[str]:
    """The arguments that start a job's container with no more rights than it needs.

    Raises DispatchError if a path cannot be written on the engine's command line.
    """
    job = batch_round.jobs[index - 1]
    program, *arguments = job.command
    if wants_script(batch_round, job):
        program, arguments = "sh", [str(script_path(batch_round, index))]
    return [
        "run",
        *("--detach", "--init", "--pull=never"),
        f"--name={name_of(batch_round, index)}",
        *_labels(batch_round, index),
        *user,
        *_rights(site),
        *_limits(job, site),
        *(f"--mount={mount}" for mount in _mounts(batch_round, job)),
        *_variables(job),
        *site.extra,
        *job.extra,
        f"--entrypoint={program}",
        *("--", image.id, *arguments),
    ]


def _labels(batch_round: Round, index: int) -> Iterator[str]:
    batch = batch_round.opened_by.partition("/")[0]
    labels = {"batch": batch, "round": batch_round.name, "index": index}
    for name, value in {**labels, "folder": mark_of(batch_round.folder)}.items():
        yield f"--label={LABEL}.{name}={value}"


def mark_of(folder: Path) -> str:
    """Stand for a round's folder in a label: podman's filters cannot hold every path."""
    return hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]


def _rights(site: DockerSite) -> Iterator[str]:
    yield f"--network={site.network}"
    yield "--cap-drop=ALL"
    yield from (f"--cap-add={name}" for name in site.capabilities)
    yield "--security-opt=no-new-privileges"
    if site.read_only:
        yield "--read-only"


def _limits(job: JobSpec, site: DockerSite) -> Iterator[str]:
    memory = f"{job.memory_mb}m"
    yield f"--cpus={job.cpus}"
    yield from (f"--memory={memory}", f"--memory-swap={memory}")  # the same: no swap
    yield f"--pids-limit={site.pids}"
    if site.read_only:
        yield f"--tmpfs=/tmp:rw,nosuid,nodev,size={memory},mode=1777"  # counts as its memory


def log_options(*, is_podman: bool) -> tuple[str, ...]:
    """How the engine keeps a job's output: unchanged, only its end, and readable by `logs`."""
    if is_podman:
        return "--log-driver=k8s-file", f"--log-opt=max-size={16 * LOG_MB}mb"
    return "--log-driver=local", f"--log-opt=max-size={LOG_MB}m", "--log-opt=max-file=2"


def _variables(job: JobSpec) -> Iterator[str]:
    yield "--env=HOME=/tmp"  # the image may not know the caller's user
    if CHECKOUT / "daemon" in job.reads:
        yield f"--env=PYTHONPATH={CHECKOUT / 'daemon'}"


def _mounts(batch_round: Round, job: JobSpec) -> Iterator[str]:
    """What the job reads and writes, under the same paths as outside. Engines sort by depth."""
    own = [batch_round.folder] if wants_script(batch_round, job) else []
    lists = [job.stdin] if job.stdin else []
    is_writable = dict.fromkeys((*job.reads, *own, *lists), False)
    is_writable |= dict.fromkeys(job.writes, True)
    for path in is_writable:
        around = [above for above in path.parents if above in is_writable]
        if not around or is_writable[around[0]] != is_writable[path]:
            yield mount(path, is_writable=is_writable[path])


def mount(path: Path, *, is_writable: bool) -> str:
    """The value of a --mount: one record of CSV.

    Raises DispatchError for a path that it cannot hold.
    """
    if not _is_text(str(path)) or {"\r", "\n"}.intersection(str(path)):
        raise DispatchError(f"{str(path)!a}: no container engine can mount this path; rename it")
    text = io.StringIO()
    fields = ["type=bind", f"source={path}", f"target={path}"]
    csv.writer(text, lineterminator="").writerow([*fields, *([] if is_writable else ["readonly"])])
    return text.getvalue()


# --------------------------------------------------------------------------- scripts


def wants_script(batch_round: Round, job: JobSpec) -> bool:
    """Whether a job needs a script, instead of being the container's own command.

    It does if it has variables of `.env` (the engine shows a container's command to everyone),
    standard input (a container has none), or arguments that are not UTF-8.
    """
    has_variables = batch_round.environment_file.exists()
    return has_variables or job.stdin is not None or not all(map(_is_text, job.command))


def script_path(batch_round: Round, index: int) -> Path:
    """Where such a job's script is."""
    return batch_round.folder / f"{index}.sh"


def script(batch_round: Round, job: JobSpec) -> str:
    """The script: it sets the variables and becomes the command."""
    variables = batch_round.environment_file
    lines = [f". {shlex.quote(str(variables))}\n"] if variables.exists() else []
    stdin = f" <{shlex.quote(str(job.stdin))}" if job.stdin else ""
    return "".join([*lines, f"exec {shlex.join(job.command)}{stdin}\n"])


def _is_text(word: str) -> bool:
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


# --------------------------------------------------------------------------- output


def image_in(text: str) -> Image:
    """Read an `image inspect`."""
    row = json.loads(text)[0]
    digests = row.get("RepoDigests") or [""]
    return Image(id=row["Id"], digest=str(digests[0]))


def containers_in(text: str) -> list[Container]:
    """Read a `container inspect`. It lists only the containers that exist."""
    rows = json.loads(text) if text.strip() else []
    return [_container(row) for row in rows]


def listed_in(text: str) -> dict[str, str]:
    """Read a `ps` of names and ids."""
    return dict(line.split() for line in text.splitlines())


def _container(row: Mapping[str, Any]) -> Container:
    state = row["State"]
    return Container(
        id=row["Id"],
        folder=(row["Config"].get("Labels") or {}).get(f"{LABEL}.folder", ""),
        status=state["Status"].lower(),
        exit_code=state["ExitCode"],
        is_out_of_memory=bool(state.get("OOMKilled")),
        error=" ".join(state.get("Error", "").split()),
        started_s=_time_s(state["StartedAt"]),
        ended_s=_time_s(state["FinishedAt"]),
    )


def _time_s(text: str) -> float:
    """Seconds since the epoch; 0 for the year 1, which is Go's for never."""
    time = datetime.fromisoformat(text)
    return time.timestamp() if time.year > 1 else 0


# --------------------------------------------------------------------------- ends


def end_of(container: Container, limit_minutes: float) -> End:
    """Why a container ended."""
    code = container.exit_code
    if container.status not in ENDED:
        return FailureClass.INFRASTRUCTURE, _not_started(container)
    if code == 0:
        return None, ""
    if container.is_out_of_memory:
        return FailureClass.MEMORY, "memory limit reached"
    if container.ended_s - container.started_s >= limit_minutes * 60:
        return FailureClass.LIMIT, RUN_LIMIT_REACHED
    if code == LOST_EXIT_CODE or container.status == "dead":
        why = f"the engine lost track of its container (exit code {code})"
        return FailureClass.INFRASTRUCTURE, why
    return of_exit_code(code)


def _not_started(container: Container) -> str:
    why = "the engine's disk is full: " if NO_SPACE.search(container.error) else ""
    return f"its container could not be started: {why}{container.error}"


def refusal(text: str) -> str:
    """An engine's refusal in words; with what it means, if the engine does not say it."""
    why = "the engine's disk is full: " if NO_SPACE.search(text) else ""
    return f"{why}{text}"
