"""Logging for people (text) and machines (JSON lines), with the values of `.env` masked."""

import errno
import itertools
import json
import logging
import logging.handlers
import os
import re
import sys
from collections.abc import Collection, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from io import TextIOWrapper
from pathlib import Path
from types import TracebackType
from typing import TextIO

from ds_flow.core import Quota, local_time, printable
from ds_flow.system.private_files import IS_LINK, open_log

MASK = "***"
NAMED_AN_HOUR = 200  # files of one kind of news; a log of the default size then lasts for weeks
KEY = re.compile(r"""[^\s"']{16,}""")
"""What may be key material: a line of PEM, a value in a JSON file, but not the words between."""

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
PRIORITIES = {
    logging.DEBUG: 7,
    logging.INFO: 6,
    logging.WARNING: 4,
    logging.ERROR: 3,
    logging.CRITICAL: 2,
}
PLAIN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime"}


class Masked(logging.Formatter):
    """A formatter whose output never holds a secret: every text passes here last.

    Texts are masked before they are formatted, because that changes quotes and line ends.
    """

    def __init__(self, secrets: Collection[str], *, is_dated: bool = True) -> None:
        super().__init__("%(asctime)s " * is_dated + "%(levelname)-7s %(message)s")
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        """One record, masked."""
        hidden = {name: self._hide(value) for name, value in _extra(record).items()}
        hidden["msg"], hidden["args"] = self._hide(record.getMessage()), None
        return self._line(logging.makeLogRecord({**record.__dict__, **hidden, "exc_text": None}))

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - logging's name
        """Give the time of one record as this machine's clock shows it, with the offset."""
        return local_time(_time(record), datefmt or "milliseconds")

    def formatException(self, ei: ExcInfo) -> str:  # noqa: N802 - logging's name
        """One traceback, masked."""
        return mask(super().formatException(ei), self._secrets)

    def _hide(self, value: object) -> object:
        match value:
            case bool() | int() | float() | datetime() | None:
                return value
            case list() | tuple():
                return [self._hide(item) for item in value]
            case _:
                return mask(str(value), self._secrets)

    def _line(self, record: logging.LogRecord) -> str:
        """`time LEVEL word key=value …`, on one line but for a traceback."""
        line = super().format(record)
        first, newline, rest = line.partition("\n")
        extra = " ".join(f"{key}={_value(value)}" for key, value in _extra(record).items())
        return f"{first} {extra}".rstrip() + newline + rest


class JsonLines(Masked):
    """One JSON object a record."""

    def _line(self, record: logging.LogRecord) -> str:
        row = {
            "at": _time(record).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "message": record.getMessage(),
            **_extra(record),
        }
        if record.exc_info:
            row["traceback"] = self.formatException(record.exc_info)
        return json.dumps(row, ensure_ascii=False, default=_text)


class ToJournal(logging.StreamHandler[TextIO]):
    """Standard error where it leads into systemd's journal: each line with its priority."""

    def format(self, record: logging.LogRecord) -> str:
        """One record, each of its lines marked as sd-daemon(3) has it."""
        mark = f"<{PRIORITIES[record.levelno]}>"
        return mark + super().format(record).replace("\n", f"\n{mark}")


class _FewNames(logging.Filter):
    """Lets through some names of each kind in an hour, and says how many others there were."""

    def __init__(self, target: logging.Handler) -> None:
        super().__init__()
        self._target = target
        self._quota = Quota(NAMED_AN_HOUR, 3600)

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to log a record. Only those that name a file are counted."""
        if not hasattr(record, "path") or record.exc_info:
            return True
        kind = record.getMessage()
        count, untold = self._quota.count(kind, record.created)
        if untold:
            self._say(kind, f"{untold} more files in the hour before")
        if count == NAMED_AN_HOUR + 1:
            self._say(
                kind, f"{NAMED_AN_HOUR} files are named: further ones are counted for an hour"
            )
        return count <= NAMED_AN_HOUR

    def _say(self, kind: str, why: str) -> None:
        level = {"levelno": logging.WARNING, "levelname": "WARNING"}
        said = {"name": __name__, "msg": "log.counted", **level, "kind": kind, "why": why}
        self._target.handle(logging.makeLogRecord(said))


def _is_journal() -> bool:
    """Whether standard error leads into the journal (systemd.exec(5), JOURNAL_STREAM)."""
    named = os.environ.get("JOURNAL_STREAM")
    status = os.fstat(2)
    return named == f"{status.st_dev}:{status.st_ino}"


def mask(text: str, secrets: Collection[str]) -> str:
    """Put a mask in place of every secret, and of the keys in one of many lines.

    What was written as a literal of Python, as tracebacks have it, or as JSON is found, too.
    """
    keys = (KEY.findall(secret) for secret in secrets if len(secret.splitlines()) > 1)
    parts = {*secrets, *itertools.chain.from_iterable(keys)}
    forms = {form for part in parts for form in _forms(part)}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, MASK)
    return text


def _forms(part: str) -> tuple[str, ...]:
    as_json = (json.dumps(part), json.dumps(part, ensure_ascii=False))
    return part, *(literal[1:-1] for literal in (repr(part), *as_json))


def masked(text: str, environ: Mapping[str, str]) -> str:
    """Hide, in a run, the values of the variables that DS_FLOW_MASK names."""
    names = environ.get("DS_FLOW_MASK", "").split(",")
    return mask(text, [environ[name] for name in names if environ.get(name)])


def _time(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


def _text(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _extra(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in record.__dict__.items() if key not in PLAIN}


def _value(value: object) -> str:
    text = local_time(value) if isinstance(value, datetime) else printable(str(value))
    return json.dumps(text, ensure_ascii=False) if " " in text or not text else text


class _Rotated(logging.handlers.RotatingFileHandler):
    """A log in a folder where other users may write, too.

    If somebody moves or removes it, as logrotate(8) does, the next record opens a new one.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record to the file that has the log's name now."""
        if self.stream is not None and not self._is_in_place(self.stream):
            with suppress(OSError):
                self.stream.close()
            self.stream = None
        super().emit(record)

    def _is_in_place(self, stream: TextIOWrapper) -> bool:
        try:
            return os.path.samestat(os.lstat(self.baseFilename), os.fstat(stream.fileno()))
        except (OSError, ValueError):
            return False

    def _open(self) -> TextIOWrapper:
        Path(self.baseFilename).parent.mkdir(parents=True, exist_ok=True)
        return os.fdopen(open_log(Path(self.baseFilename)), "a", encoding=self.encoding)


def set_up_logging(
    *,
    level: str,
    json_lines: bool,
    secrets: Collection[str],
    file: Path | None = None,
    max_bytes: int = 0,
    keep: int = 0,
) -> None:
    """Send the package's log to standard error and, for the daemon, to a rotated file.

    Called again, it replaces what the last call set up. A log that cannot be written (a full
    disk, a lost permission) never stops the line: the record is dropped.
    """
    logging.raiseExceptions = False
    formatter = JsonLines if json_lines else Masked
    is_journal = _is_journal()  # which notes the time itself
    stream = (ToJournal if is_journal else logging.StreamHandler)(sys.stderr)
    stream.setFormatter(formatter(secrets, is_dated=not is_journal))
    targets: list[logging.Handler] = [stream]
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.is_symlink():
            raise PermissionError(errno.EPERM, IS_LINK, str(file))
        rotated = _Rotated(file, maxBytes=max_bytes, backupCount=keep, encoding="utf-8", delay=True)
        rotated.setFormatter(formatter(secrets))
        targets.append(rotated)
    package = logging.getLogger("ds_flow")
    for old in package.handlers[:]:
        package.removeHandler(old)
        old.close()
    for target in targets:
        target.addFilter(_FewNames(target))
        package.addHandler(target)
    package.setLevel(level)
    package.propagate = False
