"""One line a move, for people or machines, and never a secret."""

import json
import logging
import os
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clock import machine_in
from ds_flow.system import logging_setup

SECRET = "hunter2 hunter2"  # noqa: S105 - a sample
KEY = '-----BEGIN "KEY"-----\nhunter2\tC:\\hunter2 ü\r\n  hunter2+/==\n'

log = logging.getLogger("ds_flow.sample")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "log" / "ds-flow.log"


def set_up(file: Path, *, json_lines: bool = False, max_bytes: int = 10_000, keep: int = 2) -> None:
    logging_setup.set_up_logging(
        level="INFO",
        json_lines=json_lines,
        secrets=[SECRET, KEY],
        file=file,
        max_bytes=max_bytes,
        keep=keep,
    )


def test_a_record_is_one_line_with_its_ids(file: Path) -> None:
    set_up(file)
    log.info("batch.queued", extra={"batch": "0123", "files": 2, "why": "two\nlines"})

    (line,) = file.read_text().splitlines()
    assert line.endswith(r"INFO    batch.queued batch=0123 files=2 why=two\nlines")


def test_people_read_local_times_with_their_offset_and_machines_utc(file: Path) -> None:
    at = datetime(2026, 7, 1, 12, tzinfo=UTC)
    set_up(file)
    with machine_in("Asia/Kathmandu"):
        log.info("batch.retrying", extra={"due_at": at})
    time, line = file.read_text().split(maxsplit=1)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+05:45", time)
    assert line.split() == ["INFO", "batch.retrying", "due_at=2026-07-01T17:45:00+05:45"]
    file.unlink()

    set_up(file, json_lines=True)
    with machine_in("Asia/Kathmandu"):
        log.info("batch.retrying", extra={"due_at": at})
    row = json.loads(file.read_text())
    assert row["at"].endswith("+00:00")
    assert row["due_at"] == "2026-07-01T12:00:00+00:00"


def test_the_journal_gets_priorities_and_notes_the_time_itself(tmp_path: Path) -> None:
    code = """
import logging, os
from ds_flow.system import set_up_logging
status = os.fstat(2)
os.environ["JOURNAL_STREAM"] = f"{status.st_dev}:{status.st_ino}"
set_up_logging(level="INFO", json_lines=False, secrets=[])
log = logging.getLogger("ds_flow.sample")
log.info("batch.queued", extra={"files": 2})
try:
    1 / 0
except ZeroDivisionError:
    log.exception("stage.bug")
"""
    with (tmp_path / "journal").open("w") as journal:
        subprocess.run([sys.executable, "-c", code], stderr=journal, check=True)

    first, second, *rest = (tmp_path / "journal").read_text().splitlines()
    assert first == "<6>INFO    batch.queued files=2"
    assert second == "<3>ERROR   stage.bug"
    assert all(line.startswith("<3>") for line in rest)


def test_a_traceback_follows_its_record(file: Path) -> None:
    set_up(file)
    try:
        _ = dict[str, str]()[SECRET]
    except KeyError:
        log.exception("stage.bug", extra={"stage": "admit"})

    first, *rest = file.read_text().splitlines()
    assert first.endswith("stage.bug stage=admit")
    assert rest[0].startswith("Traceback")
    assert SECRET not in file.read_text()


@pytest.mark.parametrize("json_lines", [False, True])
def test_no_secret_reaches_a_log(
    file: Path,
    capsys: pytest.CaptureFixture[str],
    json_lines: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    set_up(file, json_lines=json_lines)
    shown = {"command": ["login", SECRET, [KEY]], "other": KEY, "why": KeyError(KEY)}
    log.warning("password is %s, or %s", SECRET, KEY, extra=shown)
    try:
        _ = dict[str, str]()[KEY]
    except KeyError:
        log.exception("stage.bug")

    for text in (file.read_text(), capsys.readouterr().err):
        assert "hunter2" not in text
        assert logging_setup.MASK in text


def test_a_machine_reads_one_object_a_record(file: Path) -> None:
    set_up(file, json_lines=True)
    log.error("batch.dead", extra={"batch": "0123", "path": Path("é")})

    row = json.loads(file.read_text())
    assert row.pop("at")
    assert row == {"level": "ERROR", "message": "batch.dead", "batch": "0123", "path": "é"}


def test_a_full_log_is_turned_over_and_few_are_kept(file: Path) -> None:
    set_up(file, max_bytes=500, keep=2)
    for number in range(100):
        log.info("line", extra={"number": number})

    kept = sorted(path.name for path in file.parent.iterdir())
    assert kept == ["ds-flow.log", "ds-flow.log.1", "ds-flow.log.2"]
    assert "number=99" in file.read_text()


@pytest.mark.parametrize("how", ["moved", "removed", "replaced", "with its folder"])
def test_a_log_that_somebody_took_away_is_opened_anew(file: Path, how: str) -> None:
    set_up(file)
    log.info("before")
    old = file.with_name("ds-flow.log-20260101")
    if how == "removed":
        file.unlink()
    elif how == "with its folder":
        shutil.rmtree(file.parent)
    else:
        file.rename(old)
    if how == "replaced":  # logrotate's `create`
        file.touch()

    log.info("after")
    log.info("again")

    assert [line.split()[-1] for line in file.read_text().splitlines()] == ["after", "again"]
    if how in {"moved", "replaced"}:
        assert old.read_text().endswith("before\n")


def test_a_log_whose_text_was_cut_off_goes_on_at_its_start(file: Path) -> None:
    set_up(file)
    log.info("before")
    os.truncate(file, 0)  # logrotate's `copytruncate`

    log.info("after")

    assert [line.split()[-1] for line in file.read_text().splitlines()] == ["after"]


def test_set_up_again_replaces_what_was_set_up(file: Path) -> None:
    set_up(file)
    set_up(file)
    log.info("once")

    assert len(file.read_text().splitlines()) == 1


def test_a_log_that_cannot_be_written_stops_nothing(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up(file)
    file.mkdir()

    log.info("still here")

    assert "still here" in capsys.readouterr().err


def test_of_a_secret_of_many_lines_the_keys_are_hidden_and_other_words_are_not() -> None:
    pem = "-----BEGIN KEY-----\nMIIEvQIBADANBgkq/+==\n-----END KEY-----\n"
    document = '{\n "type": "service_account",\n "key_id": "0123456789abcdef"\n}\n'
    answer = '{\n "type": "service_account",\n "rows": 1\n}'

    assert (
        logging_setup.mask(f"{answer}\n  MIIEvQIBADANBgkq/+==", [pem, document])
        == f"{answer}\n  ***"
    )
    assert logging_setup.mask('id="0123456789abcdef"', [pem, document]) == 'id="***"'
    assert logging_setup.mask(f"{pem}, {document}", [pem, document]) == "***, ***"


@given(st.text(), st.lists(st.text(min_size=1), max_size=4))
def test_masking_leaves_no_secret(text: str, secrets: list[str]) -> None:
    secrets = [secret for secret in secrets if secret not in logging_setup.MASK]

    masked = logging_setup.mask(" ".join([text, *secrets]), secrets)

    assert not secrets or logging_setup.MASK in masked


def test_a_secret_that_was_written_as_json_is_masked() -> None:
    value = 'sq"uote \\ zz9plüral'

    for written in (json.dumps({"q": value}), json.dumps({"q": value}, ensure_ascii=False)):
        assert logging_setup.mask(written, [value]) == '{"q": "***"}'
