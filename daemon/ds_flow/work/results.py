"""The verdicts on a batch's files: an output, or a reason why there is none."""

import hashlib
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from ds_flow.core import DispatchError, LedgerError, Rejected, shallow
from ds_flow.system import open_regular, read_json, read_word, write_bytes, write_json, write_word

LASTING = frozenset({"rejected"})
"""Causes that no later attempt can change; the others are judged again."""

CAUSES = LASTING | {"raised", "changed", "gone", "unreadable"}
RECORD_BYTES = 2**26  # of a verdict, at most: a table's header may be 16 MB of what JSON escapes
REASON_CHARACTERS = 10_000  # that are kept
NUMBER_LIMIT = 2**63  # of the ledger

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # another one: the machine was off since

OUTPUT_END = r"\.[0-9a-f]{8}\.csv"  # after the stem
ASIDE = ".json.aside"  # no stem with ".json" after it ends so


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
    content_sha256: str = ""  # of the output's cells, but for processed_at
    delimiter: str = ""  # of the input
    encoding: str = ""  # of the input
    format: str = ""  # csv, csv.gz, csv.zst, xlsx or parquet
    transform: str = ""  # the file of the transform, relative to the project if it is inside
    notes: tuple[str, ...] = ()  # what a reader of the manifest should know of the input
    header: tuple[str, ...] = ()  # of the input; () if it is too wide to be compared
    empty: tuple[int, ...] = ()  # cells in each of the header's columns
    rows_read: int = 0  # of the input; a transform may give fewer
    profile: Mapping[str, Any] | None = None  # of the input, as its job has described it

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Read what `shallow` gave; raises TypeError or KeyError on anything else."""
        tuples = ("columns", "notes", "header", "empty")
        lists = {name: tuple(row.get(name, ())) for name in tuples}
        made = cls(**{**row, **lists})
        texts = (made.path, made.sha256, made.output, made.output_sha256, made.content_sha256)
        names = (*made.columns, *made.notes, *made.header)
        numbers = (made.bytes, made.rows, made.output_bytes, made.rows_read, *made.empty)
        if not (
            all(
                map(
                    _is_text,
                    (*texts, made.delimiter, made.encoding, made.format, made.transform, *names),
                )
            )
            and all(map(_is_number, numbers))
        ):
            raise TypeError("not a result")
        return made


def _rejected(row: Mapping[str, Any]) -> Rejected:
    made = Rejected(**row)
    numbers = (one for one in (made.version, made.line) if one is not None)
    texts = (made.path, made.reason, made.sha256 or "")
    if made.cause not in CAUSES or not (
        all(map(_is_text, texts)) and all(map(_is_number, numbers))
    ):
        raise TypeError("not a rejection")
    return replace(made, reason=made.reason[:REASON_CHARACTERS])


def _is_text(value: object) -> bool:
    """Whether it is text that the ledger can hold: JSON can say half a character."""
    return isinstance(value, str) and value == value.encode(errors="replace").decode()


def _is_number(value: object) -> bool:
    return isinstance(value, int) and 0 <= value < NUMBER_LIMIT


class Results:
    """The verdicts on a batch's files under one code fingerprint, one JSON file a stem.

    The job writes them, and its image may be a stranger's: what is read here is judged as such.
    A verdict is put by link(2): of two processes that judge the same file, the first wins and the
    other's output is dropped.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, stem: str) -> Result | Rejected | None:
        """The verdict on one file, or None while there is none that still stands."""
        for name in (f"{stem}.json", f"{stem}{ASIDE}"):
            with suppress(FileNotFoundError, LedgerError, TypeError, KeyError):  # missing or torn
                row = read_json(self.folder / name, RECORD_BYTES)
                if not isinstance(row, dict):
                    continue
                if "cause" in row:
                    return _rejected(row)
                result = Result.from_json(row)
                start, end = result.output[: len(stem)], result.output[len(stem) :]
                if start == stem and re.fullmatch(OUTPUT_END, end) and self._is_whole(result):
                    return result
        return None

    def verdicts(self) -> Iterator[Result | Rejected]:
        """Every file's verdict."""
        for end in (".json", ASIDE):
            for record in sorted(self.folder.glob(f"*{end}")):
                if verdict := self.get(record.name.removesuffix(end)):
                    yield verdict

    def _is_whole(self, result: Result) -> bool:
        try:
            status = (self.folder / result.output).lstat()
        except FileNotFoundError:
            return False
        return is_plain(status) and status.st_size == result.output_bytes

    def temporary(self, stem: str) -> Path:
        """Name a fresh file for an output; it counts only once `put` has named it."""
        return self.folder / f"{stem}.{secrets.token_hex(4)}.csv"

    def put(self, stem: str, result: Result) -> None:
        """Record an output; where another process was first, drop this one."""
        if not self._is_whole(result):
            raise DispatchError(f"{self.folder / result.output}: not as long as it was written")
        if not self._link(stem, shallow(result)):
            (self.folder / result.output).unlink(missing_ok=True)
        (self.folder / f"{stem}{ASIDE}").unlink(missing_ok=True)

    def set_aside(self, stem: str, rejected: Rejected) -> None:
        """Record why a file has no output."""
        if rejected.cause in LASTING:
            self._link(stem, shallow(rejected))
        else:
            write_json(self.folder / f"{stem}{ASIDE}", shallow(rejected))

    def forget_torn(self) -> None:
        """Drop what a power loss has torn: an output that was not synced may keep its length."""
        boot = BOOT_ID.read_text(encoding="ascii").strip()
        here = self.folder.with_name(f".boot-{self.folder.name}")  # where no job can write
        if read_word(here) == boot:
            return
        for record in self.folder.glob("*.json"):
            verdict = self.get(record.stem)
            if verdict is None or (isinstance(verdict, Result) and not self._is_true(verdict)):
                record.unlink(missing_ok=True)
        write_word(here, boot)

    def _is_true(self, result: Result) -> bool:
        return measured(self.folder / result.output)[0] == result.output_sha256

    def _link(self, stem: str, row: Mapping[str, Any]) -> bool:
        # In this order: a record that another process puts between the two looks is whole.
        record = self.folder / f"{stem}.json"
        if os.path.lexists(record) and self.get(stem) is None:  # it is torn, or its output is gone
            record.unlink(missing_ok=True)
        content = json.dumps(row, ensure_ascii=False).encode()
        try:
            write_bytes(record, content, is_durable=False, is_new=True)
        except FileExistsError:
            return False
        return True


def is_plain(status: os.stat_result) -> bool:
    """Whether a file that a job left is a regular one, and makes its readers nobody else."""
    return stat.S_ISREG(status.st_mode) and not status.st_mode & (stat.S_ISUID | stat.S_ISGID)


def measured(path: Path) -> tuple[str, int]:
    """The SHA-256 and the length of a file that a job left, by this process's own reading.

    Raises DispatchError if it is not a plain file, OSError if it cannot be opened.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        status = os.fstat(file.fileno())
        if not is_plain(status):
            raise DispatchError(f"{path}: a job left it with a set-user-ID or set-group-ID bit")
        return hashlib.file_digest(file, "sha256").hexdigest(), status.st_size
