"""One batch on disk while it is worked on, in `out/.work/<batch>/`."""

import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self

from ds_flow.core import (
    ATTEMPT_MARK,
    BatchError,
    DispatchError,
    Manifest,
    Plan,
    Rejected,
    natural_order,
)
from ds_flow.system import (
    read_json,
    read_word,
    remove_tree,
    sync_dir,
    write_json,
    write_word,
)
from ds_flow.work.fingerprint import code_fingerprint, settings_fingerprint
from ds_flow.work.logs import name_log
from ds_flow.work.published import REMOVED, read_manifest
from ds_flow.work.results import ASIDE, Result, Results
from ds_flow.work.root import make_root, work_root

MANIFESTS_READ = 10_000  # the newest, to say which run published a batch

NO_ROOM = "no_room"  # in an attempt's folder: it met a disk that takes no more
UNFIT = "unfit"  # in an attempt's folder: the team's code could not be loaded
TRASH = ".trash-"  # a work directory on its way out; nothing reads it any more


@dataclass(frozen=True)
class Batch:
    """A batch's work directory. It need not exist.

    The plan, the code's fingerprint and the results' folder are found out once. Whoever looks
    again later opens the batch anew.
    """

    folder: Path

    @classmethod
    def at(cls, output_dir: Path, batch_id: str) -> Self:
        """Open a batch by its id."""
        return cls(work_root(output_dir) / batch_id)

    @classmethod
    def create(cls, output_dir: Path, plan: Plan) -> Self:
        """Write a batch's plan, durably. The first plan stands, if there is one.

        The files' order in the plan is that of the manifest and of the combined file's rows.
        """
        batch = cls(make_root(output_dir) / plan.batch)
        for folder in (batch.folder / "attempts", batch.scratch):
            folder.mkdir(parents=True, exist_ok=True)
        if not batch.plan_file.exists():
            files = tuple(sorted(plan.files, key=lambda planned: natural_order(planned.path)))
            portable = replace(plan, files=files, options=plan.options.portable())
            write_json(batch.plan_file, portable.to_json())
            sync_dir(batch.folder.parent)
        return batch

    def remove(self) -> None:
        """Remove a work directory that nothing needs any more.

        It is renamed first, so nobody takes one that is half removed for an uncommitted batch.
        """
        trash = self.folder.with_name(f"{TRASH}{self.id}-{secrets.token_hex(4)}")
        with suppress(FileNotFoundError):  # another process was first
            self.folder.rename(trash)
        remove_tree(trash)

    # ----------------------------------------------------------------------- paths

    @property
    def id(self) -> str:
        """The batch's id."""
        return self.folder.name

    @property
    def output_dir(self) -> Path:
        """The folder that the batch is published to."""
        return Path(os.path.normpath(self.folder.absolute().parents[1]))

    @property
    def plan_file(self) -> Path:
        """The file that holds the plan."""
        return self.folder / "batch.json"

    @property
    def scratch(self) -> Path:
        """The folder for scratch files: a run fails on no other disk than its own."""
        return self.folder / "tmp"

    @property
    def jobs(self) -> Path:
        """The folder of the jobs of all stages."""
        return self.folder / "jobs"

    @property
    def combined(self) -> Path:
        """The folder of the combined files."""
        return self.folder / "combined"

    @property
    def analysis(self) -> Path:
        """The file that tells what came of an analysis that was done again."""
        return self.folder / "analysis.json"

    # ----------------------------------------------------------------------- read once

    @cached_property
    def plan(self) -> Plan:
        """The plan. Raises DispatchError if there is none, BatchError if it is broken."""
        try:
            plan = Plan.from_json(read_json(self.plan_file))
        except FileNotFoundError as error:
            run_id = self._published_by()
            why = f"published already, by run {run_id}" if run_id else "no such batch here"
            raise DispatchError(f"batch {self.id}: {why} (no {self.plan_file})") from error
        except (TypeError, KeyError) as error:
            why = f"not a plan of this version: {error!r}"
            raise BatchError(f"{self.plan_file}: {why}") from error
        if plan.batch != self.id:
            raise BatchError(f"{self.folder}: a copy of batch {plan.batch}; remove it")
        return replace(plan, options=plan.options.located(str(self.output_dir)))

    def _published_by(self) -> str:
        """The run that published a batch whose work directory is gone, or ""."""
        folders = (self.output_dir, self.output_dir / REMOVED)
        found = (path for folder in folders for path in folder.glob("manifest_*.json"))
        manifests = sorted(found, key=lambda path: path.name, reverse=True)
        for path in manifests[:MANIFESTS_READ]:
            with suppress(BatchError, FileNotFoundError):
                row = read_json(path)
                if isinstance(row, dict) and row.get("batch") == self.id:
                    return str(row.get("run_id", ""))
        return ""

    @cached_property
    def code_fingerprint(self) -> str:
        """The fingerprint of the code that decides an output."""
        return code_fingerprint(self.plan.options)

    @cached_property
    def results(self) -> Results:
        """The results that the present code and settings may use."""
        both = self.code_fingerprint + settings_fingerprint(self.plan.options)
        name = hashlib.sha256(both.encode()).hexdigest()[:16]
        return Results(self.folder / "results" / name)

    def read_own_manifest(self, path: Path) -> Manifest:
        """Read the batch's commit. Raises BatchError if it is another's, as in a copied folder."""
        manifest = read_manifest(path)
        if manifest.batch != self.id:
            raise BatchError(
                f"{self.folder}: holds the commit of batch {manifest.batch}; remove it"
            )
        return manifest

    # ----------------------------------------------------------------------- attempts

    def attempt_dir(self, number: int) -> Path:
        """Name one attempt's folder."""
        return self.folder / "attempts" / str(number)

    def run_id(self, number: int) -> str | None:
        """The Run ID that an attempt has told; None while it has not."""
        return read_word(self.attempt_dir(number) / "run_id")

    def marked_attempt(self) -> int | None:
        """The number of the attempt whose mark this process carries, if it is one of this batch."""
        batch_id, _, number = os.environ.get(ATTEMPT_MARK, "").partition("/")
        return int(number) if batch_id == self.id else None

    def own_attempt(self) -> int:
        """The number of this process's attempt; a person's `resume`, unmarked, gets the next."""
        return self.marked_attempt() or self.new_attempt()

    def name_attempt(self, number: int, run_id: str, log_dir: Path) -> None:
        """Tell everyone an attempt's Run ID, and give its log the final name."""
        write_word(self.attempt_dir(number) / "run_id", run_id)
        name_log(log_dir, self.id, number, run_id)

    def new_attempt(self) -> int:
        """Make the next attempt's folder; its number."""
        number = self.last_attempt() + 1
        self.attempt_dir(number).mkdir(parents=True)
        return number

    def was_unfit(self) -> bool:
        """Whether an attempt found that the team's code cannot be loaded."""
        return any(self.folder.glob(f"attempts/*/{UNFIT}"))

    def last_attempt(self) -> int:
        """The highest number that an attempt has taken; 0 if none has."""
        names = (path.name for path in self.folder.glob("attempts/*"))
        return max((int(name) for name in names if name.isdecimal()), default=0)

    # ----------------------------------------------------------------------- figures

    def last_progress_ns(self, number: int) -> int:
        """When the batch last got on: the newest mtime_ns of the folders that an attempt fills.

        A backend touches a round's folder while its jobs wait in a queue.
        """
        filled = (*self.folder.glob("results/*"), *self.folder.glob("jobs/*/*"))
        folders = (self.attempt_dir(number), *filled)
        return max((folder.stat().st_mtime_ns for folder in folders if folder.is_dir()), default=0)

    def count_results(self) -> int:
        """How many files of the batch have a verdict."""
        return sum(1 for end in (".json", ASIDE) for _ in self.folder.glob(f"results/*/*{end}"))

    def result_bytes(self) -> int:
        """How many bytes of processed and combined files the batch has on disk."""
        places = ("results/*/*.csv", "combined/*.csv", "combined/*.parquet")
        return sum(path.lstat().st_size for place in places for path in self.folder.glob(place))

    def needed_bytes(self) -> int:
        """How many bytes must be free for outputs, as the last attempt has measured; or 0."""
        word = read_word(self.attempt_dir(self.last_attempt()) / NO_ROOM)
        return int(word) if word and word.isdecimal() else 0

    def own_reasons(self) -> dict[str, str]:
        """Why files failed by themselves, by path, as the newest code has judged them."""
        found = (path for path in self.folder.glob("results/*") if path.is_dir())
        folders = sorted(found, key=lambda folder: folder.stat().st_mtime_ns)
        newest: dict[str, Result | Rejected] = {}
        for folder in reversed(folders):
            for verdict in Results(folder).verdicts():
                newest.setdefault(verdict.path, verdict)
        return {path: one.sentence for path, one in newest.items() if isinstance(one, Rejected)}


def batches_in(output_dir: Path) -> Iterator[Batch]:
    """Every batch whose work directory is there now, and each that nobody may look into."""
    root = work_root(output_dir)
    if not root.is_dir():
        return
    for batch in map(Batch, sorted(root.iterdir())):
        if batch.id.startswith(TRASH):
            remove_tree(batch.folder)
        elif _may_have_plan(batch):
            yield batch


def _may_have_plan(batch: Batch) -> bool:
    try:
        return stat.S_ISREG(batch.plan_file.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True  # whoever reads it says why it cannot be read
