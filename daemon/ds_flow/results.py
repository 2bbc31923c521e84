"""The verdicts on a batch's files: an output, or a reason why there is none."""

import hashlib
import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from ds_flow.durable import link_new, read_json, read_word, write_json, write_word
from ds_flow.errors import DispatchError, LedgerError
from ds_flow.manifest import Rejected

LASTING = frozenset({"rejected"})
"""Causes that no later attempt can change; the others are judged again."""


BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # another one: the machine was off since

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

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Read what `asdict` wrote."""
        return cls(**{**row, "columns": tuple(row["columns"])})


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
            with suppress(FileNotFoundError, LedgerError, TypeError, KeyError):  # missing or torn
                row = read_json(self.folder / name)
                if "cause" in row:
                    return Rejected(**row)
                result = Result.from_json(row)
                return result if self._is_whole(result) else None
        return None

    def verdicts(self) -> Iterator[Result | Rejected]:
        """Every file's verdict."""
        for end in (".json", ASIDE):
            for record in sorted(self.folder.glob(f"*{end}")):
                if verdict := self.get(record.name.removesuffix(end)):
                    yield verdict

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
        if not self._link(stem, asdict(result)):
            (self.folder / result.output).unlink(missing_ok=True)
        (self.folder / f"{stem}{ASIDE}").unlink(missing_ok=True)

    def set_aside(self, stem: str, rejected: Rejected) -> None:
        """Record why a file has no output."""
        if rejected.cause in LASTING:
            self._link(stem, asdict(rejected))
        else:
            write_json(self.folder / f"{stem}{ASIDE}", asdict(rejected))

    def forget_torn(self) -> None:
        """Drop what a power loss has torn: an output that was not synced may keep its length."""
        boot, here = BOOT_ID.read_text(encoding="ascii").strip(), self.folder / "boot"
        if read_word(here) == boot:
            return
        for record in self.folder.glob("*.json"):
            verdict = self.get(record.stem)
            if verdict is None or (isinstance(verdict, Result) and not self._is_true(verdict)):
                record.unlink(missing_ok=True)
        write_word(here, boot)

    def _is_true(self, result: Result) -> bool:
        with (self.folder / result.output).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == result.output_sha256

    def _link(self, stem: str, row: Mapping[str, Any]) -> bool:
        # In this order: a record that another process puts between the two looks is whole.
        record = self.folder / f"{stem}.json"
        if record.exists() and self.get(stem) is None:  # it is torn, or its output is gone
            record.unlink(missing_ok=True)
        part = self.folder / f".{stem[:180]}.{secrets.token_hex(4)}.part"
        part.write_text(json.dumps(row, ensure_ascii=False), encoding="utf-8")
        try:
            link_new(part, self.folder / f"{stem}.json")
        except FileExistsError:
            return False
        finally:
            part.unlink(missing_ok=True)
        return True
