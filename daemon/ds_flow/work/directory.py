"""A batch's files on disk while it is worked on, in `out/.work/<batch>/`."""

import errno
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ds_flow.core import (
    ATTEMPT_MARK,
    CHECKOUT,
    WORK,
    BatchError,
    DispatchError,
    Manifest,
    Options,
    Plan,
    Rejected,
    inherited_variables,
    natural_order,
    unescape,
)
from ds_flow.system import read_json, read_word, sync_dir, write_json, write_word
from ds_flow.work.results import ASIDE, Result, Results

log = logging.getLogger(__name__)

OTHERS, OTHERS_WRITE = 0o077, 0o022  # bits of a mode

MANIFESTS_READ = 10_000  # the newest, to say which run published a batch

NO_ROOM = "no_room"  # in an attempt's folder: it met a disk that takes no more
TRASH = ".trash-"  # a work directory on its way out; nothing reads it any more


# --------------------------------------------------------------------------- the plan


def work_root(output_dir: Path) -> Path:
    """Name the folder of all work directories."""
    return output_dir / WORK


def make_root(output_dir: Path) -> Path:
    """Make the folder of all work directories this user's alone, whatever the umask is.

    What lies in it is run. Raises PermissionError if it is or may be another user's work.
    """
    root = work_root(output_dir)
    root.mkdir(0o700, parents=True, exist_ok=True)
    _refuse_foreign(root, root.lstat())  # the link, if it is one
    was = root.stat()
    _refuse_foreign(root, was)
    if was.st_mode & OTHERS_WRITE:
        for path in root.rglob("*"):
            _refuse_foreign(path, path.lstat())
    if was.st_mode & OTHERS:
        with suppress(OSError):  # its file system has no modes
            root.chmod(0o700)
        now = root.stat().st_mode
        if now & OTHERS_WRITE:
            why = "others may write to it, and so run commands here; that cannot be changed"
            raise PermissionError(errno.EPERM, why, str(root))
        if now != was.st_mode:
            why = f"others could look into it (its mode was {stat.S_IMODE(was.st_mode):o})"
            log.warning("work.closed", extra={"folder": root, "why": why})
    return root


def _refuse_foreign(path: Path, status: os.stat_result) -> None:
    if status.st_uid != os.geteuid():
        why = (
            f"belongs to the user {status.st_uid}, and ds-flow runs as {os.geteuid()}:"
            " run it as that user, or look at this and remove it"
        )
        raise PermissionError(errno.EPERM, why, str(path))


def create_work_dir(output_dir: Path, plan: Plan) -> Path:
    """Write a batch's plan, durably; its directory. The first plan stands, if there is one.

    The files' order in the plan is that of the manifest and of the combined file's rows.
    """
    work = make_root(output_dir) / plan.batch
    for folder in (work / "attempts", scratch(work)):
        folder.mkdir(parents=True, exist_ok=True)
    if not (work / "batch.json").exists():
        files = tuple(sorted(plan.files, key=lambda planned: natural_order(planned.path)))
        portable = replace(plan, files=files, options=plan.options.portable())
        write_json(work / "batch.json", portable.to_json())
        sync_dir(work.parent)
    return work


def scratch(work: Path) -> Path:
    """Name the folder for scratch files: a run fails on no other disk than its own."""
    return work / "tmp"


def read_plan(work: Path) -> Plan:
    """Read a batch's plan. Raises DispatchError if there is none, BatchError if it is broken."""
    try:
        plan = Plan.from_json(read_json(work / "batch.json"))
    except FileNotFoundError as error:
        run_id = _published_by(work)
        why = f"published already, by run {run_id}" if run_id else "no such batch here"
        raise DispatchError(f"batch {work.name}: {why} (no {work}/batch.json)") from error
    except (TypeError, KeyError) as error:
        raise BatchError(f"{work}/batch.json: not a plan of this version: {error!r}") from error
    if plan.batch != work.name:
        raise BatchError(f"{work}: a copy of batch {plan.batch}; remove it")
    output_dir = os.path.normpath(work.absolute().parents[1])
    return replace(plan, options=plan.options.located(output_dir))


def _published_by(work: Path) -> str:
    """The run that published a batch whose work directory is gone, or ""."""
    output_dir = work.parent.parent
    found = (*output_dir.glob("manifest_*.json"), *output_dir.glob("removed/manifest_*.json"))
    manifests = sorted(found, key=lambda path: path.name, reverse=True)
    for path in manifests[:MANIFESTS_READ]:
        with suppress(BatchError, FileNotFoundError):
            row = read_json(path)
            if isinstance(row, dict) and row.get("batch") == work.name:
                return str(row.get("run_id", ""))
    return ""


def input_path(plan: Plan, path: str) -> Path:
    """Turn an escaped path into the absolute raw one."""
    return Path(plan.options.root, unescape(path))


def remove_work_dir(work: Path) -> None:
    """Remove a work directory that nothing needs any more.

    It is renamed first, so nobody takes a directory that is half removed for an uncommitted batch.
    """
    trash = work.with_name(f"{TRASH}{work.name}-{secrets.token_hex(4)}")
    with suppress(FileNotFoundError):  # another process was first
        work.rename(trash)
    shutil.rmtree(trash, ignore_errors=True)


def work_dirs(output_dir: Path) -> Iterator[Path]:
    """Every batch's work directory that is there now, and each that nobody may look into."""
    root = work_root(output_dir)
    if not root.is_dir():
        return
    for work in sorted(root.iterdir()):
        if work.name.startswith(TRASH):
            shutil.rmtree(work, ignore_errors=True)
        elif _may_have_plan(work):
            yield work


def _may_have_plan(work: Path) -> bool:
    try:
        return stat.S_ISREG((work / "batch.json").stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True  # whoever reads it says why it cannot be read


# --------------------------------------------------------------------------- attempts


def attempt_dir(work: Path, number: int) -> Path:
    """Name one attempt's folder."""
    return work / "attempts" / str(number)


def marked_attempt(work: Path) -> int | None:
    """The number of the attempt whose mark this process carries, if it is one of this batch."""
    batch, _, number = os.environ.get(ATTEMPT_MARK, "").partition("/")
    return int(number) if batch == work.name else None


def own_attempt(work: Path) -> int:
    """The number of this process's attempt; a person's `resume`, unmarked, gets the next one."""
    return marked_attempt(work) or new_attempt(work)


def attempt_log(log_dir: Path, batch: str, number: int) -> Path:
    """Where an attempt's output goes until its Run ID is known."""
    return log_dir / f"attempt_{batch}_{number}.log"


def name_attempt(work: Path, number: int, run_id: str, log_dir: Path) -> None:
    """Tell everyone an attempt's Run ID, and give its log the final name."""
    write_word(attempt_dir(work, number) / "run_id", run_id)
    log = attempt_log(log_dir, work.name, number)
    if log.exists():
        log.rename(log_dir / f"run_{run_id}.log")


def new_attempt(work: Path) -> int:
    """Make the next attempt's folder; its number."""
    number = last_attempt(work) + 1
    attempt_dir(work, number).mkdir(parents=True)
    return number


def last_attempt(work: Path) -> int:
    """The highest number that an attempt has taken; 0 if none has."""
    names = (path.name for path in work.glob("attempts/*"))
    return max((int(name) for name in names if name.isdecimal()), default=0)


def last_progress_ns(work: Path, number: int) -> int:
    """When a batch last got on: the newest mtime_ns of the folders that an attempt fills.

    A backend touches a round's folder while its jobs wait in a queue.
    """
    folders = [attempt_dir(work, number), *work.glob("results/*"), *work.glob("jobs/*/*")]
    return max((folder.stat().st_mtime_ns for folder in folders if folder.is_dir()), default=0)


def count_results(work: Path) -> int:
    """How many files of a batch have a verdict."""
    return sum(1 for end in (".json", ASIDE) for _ in work.glob(f"results/*/*{end}"))


def result_bytes(work: Path) -> int:
    """How many bytes of processed and combined files a batch has on disk."""
    places = ("results/*/*.csv", "combined/*.csv")
    return sum(path.lstat().st_size for place in places for path in work.glob(place))


def needed_bytes(work: Path) -> int:
    """How many bytes must be free for outputs, as a batch's last attempt has measured; or 0."""
    word = read_word(attempt_dir(work, last_attempt(work)) / NO_ROOM)
    return int(word) if word and word.isdecimal() else 0


def own_reasons(work: Path) -> dict[str, str]:
    """Why files of a batch failed by themselves, by path, as the newest code has judged them."""
    found = (path for path in work.glob("results/*") if path.is_dir())
    folders = sorted(found, key=lambda folder: folder.stat().st_mtime_ns)
    newest: dict[str, Result | Rejected] = {}
    for folder in reversed(folders):
        for verdict in Results(folder).verdicts():
            newest.setdefault(verdict.path, verdict)
    return {path: one.sentence for path, one in newest.items() if isinstance(one, Rejected)}


# --------------------------------------------------------------------------- code


def own_code(options: Options) -> list[Path]:
    """Files and whole folders of the project from which the transform may be imported."""
    root, package = Path(options.root), re.split("[.:]", options.transform)[0]
    places = (root / "flows", root / f"{package}.py", root / package)
    return [place for place in places if place.exists()]


def code_fingerprint(options: Options) -> str:
    """Hex SHA-256 over the bytes of everything that decides an output, but for the input."""
    places = [CHECKOUT / "flows", CHECKOUT / "bash", *own_code(options)]
    digest = hashlib.sha256()
    for place in dict.fromkeys(place.resolve() for place in places):
        for path in sorted([place, *place.rglob("*.py"), *place.glob("*.sh")]):
            if path.is_file():
                name = path.relative_to(place.parent)
                digest.update(os.fsencode(name) + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def settings_fingerprint(options: Options) -> str:
    """Hex SHA-256 over the settings that decide an output's content."""
    content = [
        options.tag,
        options.delimiter,
        options.encoding,
        options.columns,
        options.transform,
        options.stages["analyze"].command,
    ]
    if options.first_column:  # without it, as in older versions
        content.append(["first_column", options.first_column])
    stages = sorted(options.stages.items())
    content += [(name, stage.image) for name, stage in stages if stage.executor == "docker"]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def has_settings(manifest: Manifest, options: Options) -> bool:
    """Whether a run's outputs were made with these settings, whatever its tag was."""
    # The tag is part of the fingerprint: with the old tag, only the other settings can differ.
    options = replace(options, tag=manifest.tag)
    return settings_fingerprint(options) == manifest.settings_fingerprint


def results_for(work: Path, options: Options) -> Results:
    """The results that the present code and settings may use."""
    both = code_fingerprint(options) + settings_fingerprint(options)
    return Results(work / "results" / hashlib.sha256(both.encode()).hexdigest()[:16])


def git_commit() -> str:
    """The checkout's commit, as a note; "" outside a repository or without git."""
    try:
        done = subprocess.run(
            # Whoever asks: git trusts no repository of another user by itself.
            ["git", "-c", "safe.directory=*", "-C", str(CHECKOUT), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            check=False,
            timeout=10,
            env=inherited_variables(os.environ),
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def read_own_manifest(work: Path, path: Path) -> Manifest:
    """Read a batch's commit. Raises BatchError if it is another batch's, as in a copied folder."""
    manifest = read_manifest(path)
    if manifest.batch != work.name:
        raise BatchError(f"{work}: holds the commit of batch {manifest.batch}; remove it")
    return manifest


def read_manifest(path: Path) -> Manifest:
    """Read a manifest. Raises BatchError if it is not one, FileNotFoundError if gone."""
    try:
        return Manifest.from_json(read_json(path))
    except (TypeError, KeyError) as error:
        raise BatchError(f"{path}: not a manifest of this version: {error!r}") from error
