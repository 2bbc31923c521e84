"""Logging for people (text) and machines (JSON lines), with the values of `.env` masked."""

import json
import logging
import logging.handlers
import sys
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path

from ds_flow.names import printable

MASK = "***"
PLAIN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime"}


class Masked(logging.Formatter):
    """A formatter whose output never holds a secret: the last place that every text passes."""

    def __init__(self, secrets: Collection[str]) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s")
        self._secrets = sorted(secrets, key=len, reverse=True)

    def format(self, record: logging.LogRecord) -> str:
        """One record, masked."""
        return mask(self._line(record), self._secrets)

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
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "message": record.getMessage(),
            **_extra(record),
        }
        if record.exc_info:
            row["traceback"] = self.formatException(record.exc_info)
        return json.dumps(row, ensure_ascii=False, default=str)


def mask(text: str, secrets: Collection[str]) -> str:
    """Put a mask in place of every secret."""
    for secret in secrets:
        text = text.replace(secret, MASK)
    return text


def _extra(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in record.__dict__.items() if key not in PLAIN}


def _value(value: object) -> str:
    text = printable(str(value))
    return json.dumps(text, ensure_ascii=False) if " " in text or not text else text


def set_up(
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
    formatter = (JsonLines if json_lines else Masked)(secrets)
    targets: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        targets.append(
            logging.handlers.RotatingFileHandler(
                file, maxBytes=max_bytes, backupCount=keep, encoding="utf-8", delay=True
            )
        )
    package = logging.getLogger("ds_flow")
    for old in package.handlers[:]:
        package.removeHandler(old)
        old.close()
    for target in targets:
        target.setFormatter(formatter)
        package.addHandler(target)
    package.setLevel(level)
    package.propagate = False
