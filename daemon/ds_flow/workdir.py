"""A batch's files on disk while it is worked on, in `out/.work/<batch>/`."""

import hashlib
import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from ds_flow import CHECKOUT
from ds_flow.errors import DispatchError, LedgerError
from ds_flow.model import Manifest, Options, Plan, Rejected, unescape

ATTEMPT_MARK = "DS_FLOW_ATTEMPT"
"""Each process of an attempt carries `<batch>/<n>` in this environment variable."""

TRASH = ".trash-"  # a work directory on its way out; nothing reads it any more


# --------------------------------------------------------------------------- durable files


def sync_dir(folder: Path) -> None:
    """Make the names in a directory survive a power loss."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Make a file's bytes survive a power loss."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, content: Any) -> None:
    """Put a whole JSON file in place, durably: readers see the old one or the new one."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with part.open("x", encoding="utf-8") as file:
        json.dump(content, file, ensure_ascii=False, indent=1)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    sync_dir(path.parent)


def read_json(path: Path) -> Any:
    """Read a JSON file of ours. Raises LedgerError if it is not JSON, FileNotFoundError if gone."""
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise LedgerError(f"{path}: not JSON: {error}") from error


# --------------------------------------------------------------------------- the plan


def work_root(output_dir: Path) -> Path:
    """Name the folder of all work directories."""
    return output_dir / ".work"


def create(output_dir: Path, plan: Plan) -> Path:
    """Write a batch's plan, durably; its directory. The first plan stands, if there is one."""
    work = work_root(output_dir) / plan.batch
    (work / "attempts").mkdir(parents=True, exist_ok=True)
    if not (work / "batch.json").exists():
        write_json(work / "batch.json", plan.to_json())
        sync_dir(work.parent)
    return work


def read_plan(work: Path) -> Plan:
    """Read a batch's plan. Raises DispatchError if there is none, LedgerError if it is broken."""
    try:
        return Plan.from_json(read_json(work / "batch.json"))
    except FileNotFoundError as error:
        raise DispatchError(f"{work}: no such batch here (no batch.json)") from error
    except (TypeError, KeyError) as error:
        raise LedgerError(f"{work}/batch.json: not a plan of this version: {error!r}") from error


def input_path(plan: Plan, path: str) -> Path:
    """Turn an escaped path into the absolute raw one."""
    return Path(plan.options.root, unescape(path))


def remove(work: Path) -> None:
    """Remove a work directory that nothing needs any more.

    It is renamed first: a half-removed one could have lost its commit and kept an intent, and
    recovery would then take back what is published.
    """
    trash = work.with_name(f"{TRASH}{work.name}-{secrets.token_hex(4)}")
    work.rename(trash)
    shutil.rmtree(trash, ignore_errors=True)


def work_dirs(output_dir: Path) -> Iterator[Path]:
    """Every batch's work directory that is there now."""
    root = work_root(output_dir)
    if not root.is_dir():
        return
    for work in sorted(root.iterdir()):
        if work.name.startswith(TRASH):
            shutil.rmtree(work, ignore_errors=True)
        elif (work / "batch.json").is_file():
            yield work


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


def read_word(path: Path) -> str | None:
    """Read a one-word file (run_id, exit_code); None while it is missing or still empty."""
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except FileNotFoundError:
        return None


def write_word(path: Path, word: str) -> None:
    """Put a one-word file in place by one rename."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(f"{word}\n", encoding="utf-8")
    part.replace(path)


def last_attempt(work: Path) -> int:
    """The highest number that an attempt has taken; 0 if none has."""
    return max((int(path.name) for path in (work / "attempts").iterdir()), default=0)


def progress(work: Path, number: int) -> int:
    """When a batch's files last moved: the newest mtime_ns of the folders that an attempt fills."""
    folders = [attempt_dir(work, number), *work.glob("results/*"), *work.glob("jobs/*/*")]
    return max((folder.stat().st_mtime_ns for folder in folders if folder.is_dir()), default=0)


def count_results(work: Path) -> int:
    """How many files of a batch have a verdict."""
    return sum(1 for end in (".json", ASIDE) for _ in work.glob(f"results/*/*{end}"))


# --------------------------------------------------------------------------- results


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One input, processed: where its output lies until it is published."""

    path: str
    version: int | None
    sha256: str  # of the input bytes that were parsed
    bytes: int
    rows: int
    columns: tuple[str, ...]  # of the output: the data's, then processed_at, source_file, tag
    output: str  # file name inside the results folder
    output_sha256: str
    output_bytes: int

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Read what `asdict` wrote."""
        return cls(**{**row, "columns": tuple(row["columns"])})


LASTING = frozenset({"rejected"})
"""Causes that no later attempt can change; the others are judged again."""


ASIDE = ".json.aside"  # no stem with ".json" after it ends so


class Results:
    """The verdicts on a batch's files under one code fingerprint, one JSON file a stem.

    A verdict is put by link(2): of two processes that judge the same file, the first wins and the
    other's output is dropped.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, stem: str) -> Result | Rejected | None:
        """The verdict on one file, or None while there is none that still stands."""
        for name in (f"{stem}.json", f"{stem}{ASIDE}"):
            try:
                row = read_json(self.folder / name)
            except FileNotFoundError:
                continue
            if "cause" in row:
                return Rejected(**row)
            result = Result.from_json(row)
            return result if self._is_whole(result) else None
        return None

    def _is_whole(self, result: Result) -> bool:
        try:
            return (self.folder / result.output).stat().st_size == result.output_bytes
        except FileNotFoundError:
            return False

    def temporary(self, stem: str) -> Path:
        """Name a fresh file for an output; it counts only once `put` has named it."""
        return self.folder / f"{stem}.{secrets.token_hex(4)}.csv"

    def put(self, stem: str, result: Result) -> None:
        """Record an output; where another process was first, drop this one."""
        if not self._is_whole(result):
            raise DispatchError(f"{self.folder / result.output}: not as long as it was written")
        if self.get(stem) is None:  # nothing there, or the record of an output that is gone
            (self.folder / f"{stem}.json").unlink(missing_ok=True)
        if not self._link(stem, asdict(result)):
            (self.folder / result.output).unlink(missing_ok=True)
        (self.folder / f"{stem}{ASIDE}").unlink(missing_ok=True)

    def set_aside(self, stem: str, rejected: Rejected) -> None:
        """Record why a file has no output."""
        if rejected.cause in LASTING:
            self._link(stem, asdict(rejected))
        else:
            write_json(self.folder / f"{stem}{ASIDE}", asdict(rejected))

    def _link(self, stem: str, row: Mapping[str, Any]) -> bool:
        part = self.folder / f".{stem[:180]}.{secrets.token_hex(4)}.part"
        part.write_text(json.dumps(row, ensure_ascii=False), encoding="utf-8")
        try:
            link_new(part, self.folder / f"{stem}.json")
        except FileExistsError:
            return False
        finally:
            part.unlink(missing_ok=True)
        return True


def link_new(source: Path, target: Path) -> None:
    """Give a file a second name. Raises FileExistsError if the name is taken by another file.

    Where the file system cannot link (FAT, some FUSE and SMB mounts), a durable copy is put there.
    """
    try:
        target.hardlink_to(source)
    except FileExistsError:
        if not target.samefile(source):
            raise
    except OSError as error:
        if error.errno not in CANNOT_LINK:
            raise
        _copy_new(source, target)


CANNOT_LINK = frozenset({1, 18, 31, 38, 95})  # EPERM, EXDEV, EMLINK, ENOSYS, EOPNOTSUPP


def part_name(name: str) -> str:
    """Name the unfinished copy of a file; recovery knows it, too."""
    return f".{name[:200]}.part"


def _copy_new(source: Path, target: Path) -> None:
    part = target.with_name(part_name(target.name))
    shutil.copyfile(source, part)
    sync_file(part)
    # Not atomic against other writers of this name: callers hold the publish lock or own the name.
    if target.exists():
        part.unlink()
        raise FileExistsError(target)
    part.rename(target)


# --------------------------------------------------------------------------- code


def code_fingerprint(options: Options) -> str:
    """Hex SHA-256 over the bytes of everything that decides an output, but for the input."""
    module = options.transform.partition(":")[0].replace(".", "/") + ".py"
    own = [Path(options.root, module)] if Path(options.root) != CHECKOUT else []
    found = [*sorted(CHECKOUT.glob("flows/*.py")), *sorted(CHECKOUT.glob("bash/*.sh")), *own]
    digest = hashlib.sha256()
    for path in found:
        if path.is_file():
            digest.update(f"{path.name}\0".encode() + path.read_bytes() + b"\0")
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
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def results_for(work: Path, options: Options) -> Results:
    """The results that the present code and settings may use."""
    both = code_fingerprint(options) + settings_fingerprint(options)
    return Results(work / "results" / hashlib.sha256(both.encode()).hexdigest()[:16])


def git_commit() -> str:
    """The checkout's commit, as a note; "" outside a repository or without git."""
    try:
        done = subprocess.run(
            ["git", "-C", str(CHECKOUT), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            check=False,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def read_manifest(path: Path) -> Manifest:
    """Read a manifest. Raises LedgerError if it is not one, FileNotFoundError if gone."""
    try:
        return Manifest.from_json(read_json(path))
    except (TypeError, KeyError) as error:
        raise LedgerError(f"{path}: not a manifest of this version: {error!r}") from error
