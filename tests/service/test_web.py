"""The page: what it says, what it refuses, and that it changes nothing."""

import asyncio
import dataclasses
import html
import json
import os
import re
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING
from datetime import timedelta
from pathlib import Path
from stat import S_IMODE
from typing import Any

import httpx
import hypothesis
import openapi_spec_validator
import pytest
import schemathesis
from conftest import require
from schemathesis import GenerationMode
from starlette.testclient import TestClient

from cli_project import SETTINGS, Project
from clock import NOON
from ds_flow.cli.main import main
from ds_flow.core.manifest import Input, Manifest, Output
from ds_flow.core.retry_policy import Dead
from ds_flow.core.states import BatchState, Cause, FileState, FireOutcome, RunState, Trigger
from ds_flow.ledger.ledger import Ledger
from ds_flow.ledger.pages import Done
from ds_flow.ledger.schedules import Fire
from ds_flow.settings.load import load_settings
from ds_flow.system.instance import WAKE_SIGNAL, single_instance
from ds_flow.web import charts, downloads
from ds_flow.web.app import THREADS, make_app
from ds_flow.web.events import Events
from ds_flow.work import profile_name
from hung_mount import hung_mount
from page import DS_FLOW, asked, open_files_of, served, set_up
from project import until

PAGES = (
    "/",
    "/runs",
    "/files",
    "/quarantine",
    "/schedules",
    "/runs/101",
    "/files/data/student_a.csv",
)
BATCH, OTHER = "0123456789", "abcdef0123"  # nothing of them runs
HOSTILE = "student_<img src=x onerror=alert(1)>&\"'.csv"


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """Two published runs, one dead batch, one rejected file, one that waits, and a hostile name."""
    with Project(tmp_path) as made:
        made.published(BATCH, "101", "student_a.csv", HOSTILE)
        rows = made.admit("student_b.csv")
        made.start(made.form(OTHER, rows), "102")
        made.ledger.end_run(
            OTHER, 1, RunState.FAILED, error="it broke", results=0, then=Dead("used up"), now=NOON
        )
        made.admit(
            "student_c.csv", cause=Cause.REJECTED, reason="line 3: cells: 2, 3 in the header"
        )
        made.admit("student_d.csv")
        yield made


@pytest.fixture
def page(project: Project) -> Iterator[TestClient]:
    with asked(project) as client:
        yield client


@pytest.fixture
def printed(project: Project, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """What a command prints with `--json`."""

    def run(*argv: str) -> Any:
        assert main(["--config", str(project.config), *argv, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return run


# --------------------------------------------------------------------------- what it says


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("/api/status", ["status"]),
        ("/api/runs?limit=200", ["runs"]),
        ("/api/runs?limit=1", ["runs", "--limit", "1"]),
        ("/api/runs?state=failed", ["runs", "--state", "failed"]),
        ("/api/runs/101", ["show", "101"]),
        (f"/api/runs/{OTHER}/1", ["show", f"{OTHER}/1"]),
        ("/api/files", ["files"]),
        ("/api/files?state=quarantined", ["files", "--state", "quarantined"]),
        ("/api/files/data/student_a.csv", ["explain", "student_a.csv"]),
        ("/api/schedules", ["schedule"]),
    ],
)
def test_the_api_gives_what_the_command_prints(
    page: TestClient, printed: Callable[..., Any], address: str, words: list[str]
) -> None:
    answer = page.get(address)
    assert answer.status_code == 200
    found = answer.json()
    expected = printed(*words)
    assert (expected.pop("document"), expected.pop("schema")) == (words[0], 1)
    if night := expected.get("last_night"):
        night["since"] = found["last_night"]["since"]  # each is as of its own moment
    assert {key: found[key] for key in expected} == expected
    assert set(found) - set(expected) <= {"before", "next"}


@pytest.mark.parametrize("address", PAGES)
def test_a_page_is_html_that_needs_no_script(page: TestClient, address: str) -> None:
    answer = page.get(address)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "<h1" in answer.text
    assert not re.search(r"\sstyle=|<style|<script(?! src=\"/static/)|\son\w+=\"", answer.text)


def test_the_overview_says_what_needs_a_person(page: TestClient, project: Project) -> None:
    text = page.get("/").text
    for one in page.get("/api/status").json()["problems"][:3]:
        assert html.escape(one["text"], quote=False).replace("`", "") in text
        assert f"<code>{html.escape(one['command'])}</code>" in text
    assert "the daemon is not running" in text
    with single_instance(project.settings):  # an answer is kept for a moment
        until("it was running", lambda: "the daemon is not running" not in page.get("/").text)


def test_the_overview_of_an_empty_project_says_that_all_is_well(tmp_path: Path) -> None:
    with Project(tmp_path) as project:
        project.ledger.close()
        project.settings.ledger.unlink()
        with single_instance(project.settings), asked(project) as page:
            text = page.get("/").text
        assert "All is well" in text
        assert "No run yet" in text
        assert not project.settings.ledger.exists()


def test_the_metrics_are_those_of_the_command(
    page: TestClient, project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = page.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert main(["--config", str(project.config), "metrics"]) == 0
    printed = capsys.readouterr().out

    def steady(text: str) -> list[str]:
        return [line for line in text.splitlines() if not re.search("timestamp|age|free", line)]

    assert steady(answer.text) == steady(printed)


def test_a_run_has_its_files_its_reasons_and_its_log(page: TestClient, project: Project) -> None:
    (project.root / "log" / "run_101.log").write_text("first\n<b>second</b>\n")
    text = page.get("/runs/101").text
    assert 'href="/files/data/student_a.csv"' in text
    assert 'href="/runs/101/outputs/final_combined_101.csv"' in text
    assert "&lt;b&gt;second&lt;/b&gt;" in text
    assert "it broke" in page.get("/runs/102").text


def test_what_the_data_looks_like_is_shown_without_what_is_hidden(
    page: TestClient, project: Project
) -> None:
    cell = "<script>alert(1)</script>"
    seen = {"looks_like": "text", "empty": 0.25, "distinct": 3, "approximate": False}
    columns = [
        {"name": "score", "hidden": False, "smallest": cell, "largest": "9", **seen},
        {"name": "name", "hidden": True, "smallest": None, "largest": None, **seen},
    ]
    rows = [[cell, None], ["", None]]
    table = {"path": "data/student_a.csv", "rows": 2, "rows_looked_at": 2}
    table |= {"columns": columns, "first_rows": rows}
    profile = {"combined": None, "inputs": [table], "left_out": 3}
    (project.root / "out" / profile_name("101")).write_text(json.dumps(profile))
    text = page.get("/runs/101").text
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 2
    assert "<script>alert" not in text
    assert text.count(">hidden</") == 3  # the least and the most, and two cells
    assert "25.0 %" in text
    assert "and 3 more" in text


def test_of_a_long_log_the_end_is_shown(page: TestClient, project: Project) -> None:
    lines = [f"line {number}" for number in range(100_000)]
    (project.root / "log" / "run_101.log").write_text("\n".join(lines))
    text = page.get("/runs/101").text
    assert "line 99999" in text
    assert "line 100\n" not in text
    assert len(text) < 200_000


def test_a_link_in_place_of_a_log_or_an_output_is_not_followed(
    page: TestClient, project: Project
) -> None:
    secret = project.root / ".env"
    secret.write_text("SECRET=of-the-team\n")
    (project.root / "log" / "run_101.log").symlink_to(secret)
    (project.root / "out" / "final_combined_101.csv").symlink_to(secret)
    assert "of-the-team" not in page.get("/runs/101").text
    answer = page.get("/runs/101/outputs/final_combined_101.csv")
    assert (answer.status_code, "of-the-team" in answer.text) == (404, False)


def test_a_run_of_an_older_version_is_shown(page: TestClient, project: Project) -> None:
    """Its manifest lacks the keys that came later."""
    file = project.root / "out" / "manifest_101.json"
    manifest = json.loads(file.read_text())
    for kind, rows in (
        (Manifest, [manifest]),
        (Input, manifest["inputs"]),
        (Output, manifest["outputs"]),
    ):
        later = [one.name for one in dataclasses.fields(kind) if one.default is not MISSING]
        for row in rows:
            assert [row.pop(name) for name in later if name in row]
    file.write_text(json.dumps(manifest))
    assert "final_combined_101.csv" in page.get("/runs/101").text


def test_a_fault_of_the_page_is_told_in_words(page: TestClient, project: Project) -> None:
    (project.root / "out" / "manifest_101.json").write_text("[]")
    calm = TestClient(page.app, base_url=str(page.base_url), raise_server_exceptions=False)
    for address in ("/runs/101", "/api/runs/101"):
        answer = calm.get(address)
        assert answer.status_code == 503
        assert "a fault of its own; see its log" in answer.text
        assert answer.headers["content-security-policy"].startswith("default-src 'none'; ")
        assert answer.headers["cache-control"] == "no-store"


def test_a_quarantined_file_has_its_reason_and_its_remedy(page: TestClient) -> None:
    text = page.get("/quarantine").text
    assert "line 3: cells: 2, 3 in the header" in text
    assert "<code>ds-flow release -- data/student_c.csv</code>" in text
    assert f"<code>ds-flow logs {OTHER}</code>" in text


def test_a_run_of_yesterday_is_not_in_the_hour_of_now() -> None:
    now = NOON.replace(hour=12, minute=10)
    done = Done(now - timedelta(hours=23, minutes=50), NOON, "arrival", "succeeded", 3, 9)
    drawn = charts.throughput([done], now)
    assert len(drawn.columns) == charts.DAYS
    assert drawn.columns[-1].value == 0
    assert drawn.columns[-2].value == 3
    drawn = charts.throughput([dataclasses.replace(done, ended_at=now)], now)
    assert (len(drawn.columns), drawn.columns[-1].value) == (charts.HOURS, 3)


def test_a_missed_fire_is_shown(page: TestClient, project: Project) -> None:
    for days, outcome in enumerate((FireOutcome.RUN, FireOutcome.MISSED)):
        due_at = NOON + timedelta(days=days)
        fire = Fire(schedule="nightly", due_at=due_at, outcome=outcome, batch=None, detail="late")
        project.ledger.schedules.record(fire, due_at)
    text = page.get("/schedules").text
    assert text.count('<span class="pill bad">missed</span>') == 2  # the last, and in the list
    assert '<span class="pill good">run</span>' in text


def test_lists_are_paged_without_a_gap(page: TestClient, project: Project) -> None:
    project.admit(*(f"student_{number:03}.csv" for number in range(120)))
    seen: list[str] = []
    more: dict[str, Any] | None = {}
    while more is not None:
        found = page.get("/api/files", params={"limit": "50", **more}).json()
        seen += [one["path"] for one in found["files"]]
        more = found["next"]
    everything = [row.path for row in project.ledger.read.files()]
    assert seen == everything
    assert len(page.get("/api/files?prefix=student_00").json()["files"]) == 10
    text = page.get("/files?prefix=student_0").text
    assert text.count('class="path" href="/files/') == 50
    assert 'rel="next" href="/files?prefix=student_0&amp;after=' in text


@pytest.mark.parametrize("looked_at", [1, 2, 1000])
def test_a_page_that_looks_at_few_rows_comes_to_all_of_them(
    page: TestClient, project: Project, monkeypatch: pytest.MonkeyPatch, looked_at: int
) -> None:
    monkeypatch.setattr("ds_flow.ledger.pages.LOOKED_AT", looked_at)
    rows = project.ledger.read.versions("data/student_a.csv")
    project.start(project.form("1234567890", rows, Trigger.RERUN))
    for kind, query, wanted in (
        ("files", {"state": "quarantined"}, ["data/student_b.csv", "data/student_c.csv"]),
        ("runs", {"trigger": "rerun"}, ["1234567890"]),
        ("runs", {"trigger": "arrival"}, [OTHER, BATCH]),
    ):
        seen: list[str] = []
        more: dict[str, Any] = {}
        for _ in range(12):
            found = page.get(f"/api/{kind}", params={**query, "limit": "1", **more}).json()
            seen += [one.get("path") or one["batch"] for one in found[kind]]
            more = found["next"] if kind == "files" else {"before": found["before"]}
            if not more or None in more.values():
                break
        assert seen == wanted


# --------------------------------------------------------------------------- what it refuses


@pytest.mark.parametrize(
    ("address", "code", "words"),
    [
        ("/nope", 404, "this page does not exist"),
        ("/runs/7", 404, "no run &#39;7&#39;"),
        ("/api/runs/7", 404, "no run '7'; `ds-flow runs` lists them"),
        ("/api/runs?state=odd", 400, "should be one of starting, running, succeeded"),
        ("/api/runs?limit=0", 400, "limit should be from 1 to 200"),
        ("/api/runs?limit=x", 400, "limit should be a whole number"),
        ("/api/runs?before=99999999999999999999", 400, "before should be a whole number"),
        ("/files/etc/passwd", 404, "is neither in the ledger nor in the inbox"),
        ("/files//etc/passwd", 404, "is neither in the ledger nor in the inbox"),
        ("/files/data/%2e%2e/.env", 404, "is neither in the ledger nor in the inbox"),
        ("/api/files/data/x%5Cxzz", 400, "is no path as ds-flow writes it"),
        ("/runs/101/outputs/..%2f..%2f.env", 404, ""),
        ("/runs/101/outputs/manifest_102.json", 404, "has no output"),
        ("/runs/7/outputs/manifest_7.json", 404, "has no output"),
        ("/static/..%2fapp.py", 404, ""),
        ("/static/app.py", 404, ""),
    ],
)
def test_what_is_not_there_is_refused_in_words(
    page: TestClient, project: Project, address: str, code: int, words: str
) -> None:
    (project.root / ".env").write_text("SECRET=of-the-team\n")
    answer = page.get(address)
    assert answer.status_code == code
    assert words in answer.text
    assert "of-the-team" not in answer.text


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_the_page_only_reads(page: TestClient, method: str) -> None:
    assert page.request(method, "/runs").status_code == 405


@pytest.mark.parametrize("address", ["/", "/runs", "/api/status"])
def test_nothing_is_posted(page: TestClient, address: str) -> None:
    assert page.post(address).status_code == 405


@pytest.mark.parametrize(
    ("host", "code"),
    [
        ("127.0.0.1:8321", 200),
        ("localhost:8321", 200),
        ("[::1]:8321", 200),
        ("10.0.0.7", 200),
        ("evil.example", 421),
        ("evil.example:8321", 421),
        ("127.0.0.1.evil.example", 421),
        ("", 421),
    ],
)
def test_a_foreign_name_that_leads_here_is_refused(page: TestClient, host: str, code: int) -> None:
    assert page.get("/api/status", headers={"host": host}).status_code == code


def test_a_name_in_the_settings_is_welcome(project: Project) -> None:
    project.config.write_text(f"{project.config.read_text()}web: {{hosts: [flow.example]}}\n")
    with asked(project) as page:
        assert page.get("/", headers={"host": "Flow.Example"}).status_code == 200


@pytest.mark.parametrize("address", ["/", "/api/status", "/static/style.css", "/nope"])
def test_every_answer_forbids_a_browser_what_it_does_not_need(
    page: TestClient, address: str
) -> None:
    headers = page.get(address).headers
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert "server" not in headers


def test_an_output_is_an_attachment_under_its_own_name(page: TestClient, project: Project) -> None:
    names = project.ledger.read.outputs("101")
    name = next(name for name in names if "img" in name)
    (project.root / "out" / name).write_text("<script>alert(1)</script>\n")
    text = page.get("/runs/101").text
    address = re.search(r'href="(/runs/101/outputs/[^"]*img[^"]*)"', text)
    assert address is not None
    answer = page.get(address[1])
    assert answer.text == "<script>alert(1)</script>\n"
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"].startswith(
        "attachment; filename*=UTF-8''processed_"
    )
    assert page.get("/runs/101/outputs/manifest_101.json").json()["run_id"] == "101"


def test_a_download_that_nobody_takes_leaves_no_file_open(
    page: TestClient, project: Project
) -> None:
    """Whoever asked is gone before the first byte."""
    file = project.root / "out" / "final_combined_101.csv"
    file.write_text("a,b\n")
    answer = downloads.output(page.app.state.answers, "101", "final_combined_101.csv")  # type: ignore[attr-defined]

    async def gone(*_: object) -> Any:
        return {"type": "http.disconnect"}

    assert _is_open(file)
    asyncio.run(answer({"type": "http", "method": "GET"}, gone, gone))
    assert not _is_open(file)


def _is_open(file: Path) -> bool:
    return str(file) in {os.path.realpath(one) for one in Path("/proc/self/fd").iterdir()}


def test_a_hostile_name_is_text_and_no_element(page: TestClient) -> None:
    for address in ("/files", "/runs/101"):
        text = page.get(address).text
        assert "<img" not in text
        assert "student_&lt;img src=x onerror=alert(1)&gt;&amp;&#34;&#39;.csv" in text


def test_text_that_turns_a_reader_round_is_escaped(page: TestClient, project: Project) -> None:
    project.admit("student_\u202egnp.csv", cause=Cause.REJECTED, reason="\x1b[31m")
    text = page.get("/quarantine").text
    assert "\u202e" not in text
    assert "student_\\u202egnp.csv" in text
    assert "\x1b" not in text


# --------------------------------------------------------------------------- the description


def test_the_description_of_the_api_is_valid_and_complete(page: TestClient) -> None:
    described = page.get("/api/openapi").json()
    openapi_spec_validator.validate(described)
    routes = {route.path for route in page.app.routes if route.path.startswith("/api/")}  # type: ignore[attr-defined]
    plain = {path.replace(":path", "").replace("{name}", "{run}") for path in routes}
    assert set(described["paths"]) == plain


@pytest.mark.exhaustive
def test_no_question_to_the_api_is_a_fault_or_undescribed(project: Project) -> None:
    """Schemathesis asks with the values that the description allows, and with others."""
    settings = load_settings(project.config, {})
    app, here = make_app(settings), {"host": "localhost"}
    schema = schemathesis.openapi.from_asgi("/api/openapi", app, headers=here)
    asked_of = set()
    for operation in schema.get_all_operations():
        found: Any = operation.ok()  # type: ignore[union-attr] # an error raises here
        asked_of.add(found.path)
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)[: 1 + bool(found.query)]:

            @hypothesis.given(case=found.as_strategy(generation_mode=mode))
            @hypothesis.settings(max_examples=50, database=None, derandomize=True)
            def ask(case: schemathesis.Case[Any]) -> None:
                case.call_and_validate(headers=here)

            ask()
    assert asked_of >= {"/api/status", "/api/runs", "/api/files", "/api/files/{path}"}


# --------------------------------------------------------------------------- it changes nothing


def test_no_page_changes_a_file(page: TestClient, project: Project) -> None:
    assert page.get("/").status_code == 200  # nothing is being read any more
    project.ledger.close()
    before = open_files_of(project.root)
    for address in (*PAGES, "/api/status", "/api/openapi"):
        assert page.get(address).status_code == 200
    assert open_files_of(project.root) == before
    project.open()


def test_a_ledger_that_nobody_has_open_is_read_where_nothing_may_be_written(
    project: Project, page: TestClient
) -> None:
    """SQLite would make a -wal file, and fail."""
    assert page.get("/").status_code == 200  # nothing is being read any more
    project.ledger.close()
    assert not list(project.settings.ledger.parent.glob("ledger.db-*"))
    assert page.get("/api/files?state=waiting").json()["files"][0]["path"] == "data/student_d.csv"
    assert not list(project.settings.ledger.parent.glob("ledger.db-*"))
    project.open()


def test_what_is_written_meanwhile_is_read(page: TestClient, project: Project) -> None:
    assert len(page.get("/api/files").json()["files"]) == 5
    project.admit("student_e.csv")
    assert len(page.get("/api/files").json()["files"]) == 6
    project.ledger.close()
    assert len(page.get("/api/files").json()["files"]) == 6
    project.open().release(4, NOON)
    until("it waits", lambda: page.get("/api/status").json()["files"]["waiting"] == 3)


def test_a_ledger_of_an_older_version_is_left_to_the_daemon(tmp_path: Path) -> None:
    with Project(tmp_path) as project:
        project.ledger._store._db.execute("PRAGMA user_version = 1")
        with asked(project) as page:
            answer = page.get("/")
    assert answer.status_code == 503
    assert "start the daemon: it migrates the ledger" in answer.text


def test_a_ledger_that_is_no_ledger_is_told(tmp_path: Path) -> None:
    with Project(tmp_path) as project:
        project.ledger.close()
        project.settings.ledger.write_bytes(b"x" * 5000)
        with asked(project) as page:
            answer = page.get("/runs")
        assert answer.status_code == 503
        assert "file is not a database" in answer.text
        project.settings.ledger.unlink()
        project.open()


def test_a_folder_that_cannot_be_looked_into_ends_no_listening(project: Project) -> None:
    project.ledger.close()
    out, away = project.root / "out", project.root / "away"
    with asked(project) as page:
        out.rename(away)
        out.symlink_to(out)  # a circle
        answers = page.app.state.answers  # type: ignore[attr-defined]
        assert answers.mark() == ""
        assert not Events(answers)._renew()
        assert page.get("/runs").status_code == 503
        out.unlink()
        away.rename(out)
    project.open()


@pytest.mark.parametrize(
    ("folder", "still"), [("log", ["/runs", "/files", "/api/runs", "/api/schedules"]), ("out", [])]
)
@pytest.mark.exhaustive
def test_a_disk_that_does_not_answer_is_told_and_holds_up_no_other_page(
    project: Project, folder: str, still: list[str]
) -> None:
    place = project.root / folder
    with asked(project) as page, _once_it_has_read(page), hung_mount(place):
        for address in ("/", "/runs/101", "/files/data/student_a.csv", "/metrics"):
            for _ in range(THREADS):
                answer = page.get(address)
                assert answer.status_code == 503
                assert f"{place} (fuse.dead) does not answer; mend or unmount it" in answer.text
        for address in still:
            assert page.get(address).status_code == 200
        assert page.get("/static/style.css").status_code == 200


@contextmanager
def _once_it_has_read(page: TestClient) -> Iterator[None]:
    """Nothing of what it does at its start goes on."""
    for address in ("/", "/metrics"):
        assert page.get(address).status_code == 200
    yield


# --------------------------------------------------------------------------- actions

WORD = "a-token-of-the-team"
OWN = {"origin": "http://127.0.0.1:8321", "sec-fetch-site": "same-origin"}


@contextmanager
def acting(project: Project, **web: object) -> Iterator[Callable[..., Any]]:
    """A page with actions: a function that sends one form."""
    set_up(project, **{"actions": True, "token": WORD, **web})
    with asked(project) as page:

        def send(action: str, headers: dict[str, str] = OWN, **form: str) -> Any:
            given = {"target": "data/student_c.csv", "name": "Olga", "token": WORD, **form}
            return page.post(f"/actions/{action}", data=given, headers=headers)

        yield send


def test_an_action_is_done_and_recorded_with_who_asked(project: Project) -> None:
    with acting(project) as send:
        answer = send("release")
    assert answer.status_code == 200
    assert "data/student_c.csv version 1: waiting" in answer.text
    assert project.ledger.read.versions("data/student_c.csv")[-1].state == FileState.WAITING
    noted = project.ledger.history.last("web.asked")
    assert noted is not None
    assert noted[1] == "release data/student_c.csv by Olga, from testclient"


def test_a_batch_is_retried_and_cancelled_and_a_run_made_again(project: Project) -> None:
    with acting(project) as send:
        assert f"batch {OTHER}: retried now, as batch " in send("retry", target="102").text
        assert "2 files" in send("rerun", target="101").text
        queued = [batch.id for batch in project.ledger.read.batches_in(BatchState.QUEUED)]
        assert len(queued) == 2
        for batch in queued:
            assert f"batch {batch}: cancelled" in send("cancel", target=batch).text
        assert not project.ledger.read.batches_in(BatchState.QUEUED)
        assert "is cancelled already" in send("cancel", target=queued[0]).text


def test_a_running_daemon_is_woken(project: Project) -> None:
    woken: list[int] = []
    before = signal.signal(WAKE_SIGNAL, lambda number, _: woken.append(number))
    try:
        with single_instance(project.settings), acting(project) as send:
            assert "No daemon" not in send("release").text
    finally:
        signal.signal(WAKE_SIGNAL, before)
    assert woken == [WAKE_SIGNAL]


@pytest.mark.parametrize(
    ("changed", "code", "words"),
    [
        ({"token": ""}, 403, "The token is wrong"),
        ({"token": "a-token-of-the-tear"}, 403, "The token is wrong"),
        ({"name": " "}, 403, "The field &#39;name&#39; is empty"),
        ({"target": ""}, 403, "The field &#39;target&#39; is empty"),
        ({"name": "x" * 9000}, 403, "The form is too long"),
        ({str(number): "x" for number in range(10)}, 403, "The form has too many fields"),
        ({"target": "data/nobody.csv"}, 404, "is not in the ledger"),
        ({"target": "data/student_a.csv"}, 404, "is processed, not quarantined"),
        ({"headers": {}}, 403, "not from this page"),
        ({"headers": {"origin": "null"}}, 403, "not from this page"),
        ({"headers": {"origin": "http://evil.example"}}, 403, "not from this page"),
        ({"headers": {**OWN, "sec-fetch-site": "cross-site"}}, 403, "not from this page"),
        ({"headers": {**OWN, "content-type": "text/plain"}}, 403, "A form should be"),
    ],
)
def test_an_action_is_refused_in_words(
    project: Project, changed: dict[str, Any], code: int, words: str
) -> None:
    with acting(project) as send:
        answer = send("release", **changed)
    assert (answer.status_code, words in answer.text) == (code, True)
    assert project.ledger.read.versions("data/student_c.csv")[-1].state == FileState.QUARANTINED


def test_without_the_setting_or_a_token_there_are_no_actions(project: Project) -> None:
    with acting(project, actions=False) as send:
        answer = send("release")
        assert (answer.status_code, "Actions are off" in answer.text) == (403, True)
        assert send("release", headers={}, token="").status_code == 403
    project.config.write_text(f"{SETTINGS}web: {{actions: true}}\n")
    with asked(project) as page:
        refused = page.post("/actions/release", data={"token": ""}, headers=OWN)
        assert (refused.status_code, "There is no token" in refused.text) == (403, True)
        assert "<form" not in page.get("/files/data/student_c.csv").text
    assert project.ledger.history.last("web.asked") is None


def test_the_answer_to_a_form_stays_as_it_is(project: Project) -> None:
    """Fetched again for news, its address would answer that it takes forms only."""
    with acting(project) as send:
        for answer in (send("release", token=""), send("release")):
            assert "<script" not in answer.text


def test_there_is_no_other_action(project: Project) -> None:
    with acting(project) as send:
        assert send("gc").status_code == 404


# --------------------------------------------------------------------------- the process


def test_the_page_is_a_process_that_ends_in_order(project: Project) -> None:
    import urllib.request

    with served(project) as address:
        with urllib.request.urlopen(f"{address}/api/runs/101") as answer:  # noqa: S310 - our own
            assert json.load(answer)["run_id"] == "101"
        listener = urllib.request.urlopen(f"{address}/events")  # noqa: S310 - our own
        assert listener.readline() == b"retry: 5000\n"


def test_a_listener_hears_of_a_change(project: Project) -> None:
    import urllib.request

    with served(project) as address:
        listener = urllib.request.urlopen(f"{address}/events")  # noqa: S310 - our own
        heard = [listener.readline() for _ in range(3)]
        assert heard[1:] == [b"data: 0\n", b"\n"]
        with urllib.request.urlopen(f"{address}/api/status") as answer:  # noqa: S310 - our own
            assert json.load(answer)["files"]["waiting"] == 1
        project.admit("student_e.csv")
        waiting = 1
        while waiting == 1:  # the first news may be that it arrives
            until("there was news", lambda: listener.readline().startswith(b"data:"))
            with urllib.request.urlopen(f"{address}/api/status") as answer:  # noqa: S310 - our own
                waiting = json.load(answer)["files"]["waiting"]
        assert waiting == 2


def test_the_first_look_is_news_to_whoever_listens(project: Project) -> None:
    """What moved between the page and the first look would never be told otherwise."""
    import urllib.request

    with (
        served(project) as address,
        urllib.request.urlopen(f"{address}/events") as listener,  # noqa: S310 - our own
    ):
        said = [listener.readline() for _ in range(3)]
        while not said[-1].startswith((b"data:", b":")):  # a comment says that nothing has come
            said.append(listener.readline())
    assert [line for line in said if line.startswith(b"data:")] == [b"data: 0\n", b"data: 1\n"]


def test_an_address_that_is_taken_is_said_to_be(project: Project) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        set_up(project, listen=listen)
        command = [*DS_FLOW, "web", "--config", str(project.config)]
        refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 78
    assert refused.stderr == f"ds-flow: web.listen: {listen}: another process listens there\n"


def test_a_socket_is_for_its_user_and_group(project: Project) -> None:
    place = project.root / "web.socket"
    set_up(project, listen=place)
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(place))
    stale.close()  # its process has died
    command = [*DS_FLOW, "web", "--config", str(project.config)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        until("the socket was there", lambda: _answers(place), while_lives=process)
        assert S_IMODE(place.stat().st_mode) == 0o660
        again = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (again.returncode, "another process listens there" in again.stderr) == (78, True)
        process.send_signal(signal.SIGTERM)
        process.wait()
    assert not place.exists()


def _answers(place: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        if client.connect_ex(str(place)):
            return False
        client.sendall(b"GET /api/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return client.recv(100).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("listen", ["192.0.2.1:8321", "/nowhere/web.socket"])
def test_a_place_where_it_cannot_listen_is_named(project: Project, listen: str) -> None:
    set_up(project, listen=listen)
    command = [*DS_FLOW, "web", "--config", str(project.config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 78
    assert f"ds-flow: web.listen: {listen}: " in done.stderr


def test_no_other_command_imports_the_page(project: Project) -> None:
    probe = (
        "import sys; from ds_flow.cli import main; import ds_flow.service; code = main();"
        " heavy = {'starlette', 'uvicorn', 'jinja2', 'anyio', 'ds_flow.web'} & set(sys.modules);"
        " sys.exit(str(heavy) if heavy else code)"
    )
    command = [DS_FLOW[0], "-c", probe, "status", "--config", str(project.config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_ledger_that_the_page_reads_is_the_one_the_daemon_writes(project: Project) -> None:
    """A reader never keeps a writer waiting."""
    with served(project), Ledger(project.settings.ledger)._store.transaction():
        pass


# --------------------------------------------------------------------------- without rights


READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'


@contextmanager
def served_read_only(project: Project, **web: object) -> Iterator[str]:
    """The page as its unit runs it: all of the project is read-only to it."""
    if os.geteuid():
        pytest.skip("only root can mount")
    unshare = (require("unshare"), "--mount", "--propagation=private")
    before = [*unshare, "sh", "-c", READ_ONLY, str(project.root)]
    with served(project, before=before, **web) as address:
        yield address


@pytest.mark.exhaustive
def test_a_page_that_may_write_nowhere_reads_beside_the_daemon_and_without_it(
    project: Project,
) -> None:
    rows = project.ledger.read.versions("data/student_d.csv")
    project.form("1234567890", rows)
    with served_read_only(project) as address, httpx.Client(base_url=address) as page:
        for step in ("open", "closed", "open again"):
            if step == "closed":
                project.ledger.close()
            elif step == "open again":
                project.open().hold_back("1234567890", "the disk is full", NOON)
            for place in PAGES:
                assert page.get(place).status_code == 200, (step, place)
            status = page.get("/api/status").json()
            assert status["files"]["batched"] == 1
            expected = ["the disk is full"] if step == "open again" else []
            until("it is told", lambda: page.get("/api/status").json()["held_back"] == expected)  # noqa: B023 - at once


@pytest.mark.exhaustive
def test_a_page_that_may_not_write_says_which_command_to_type(project: Project) -> None:
    word = {"actions": True, "token": WORD}
    with served_read_only(project, **word) as address, httpx.Client(base_url=address) as page:
        for path, command in (
            ("data/student_c.csv", "ds-flow release -- data/student_c.csv"),
            (
                "data/student_$(id)`id`.csv",
                "ds-flow release -- 'data/student_$(id)\\x60id\\x60.csv'",
            ),
        ):
            given = {"target": path, "name": "Olga", "token": WORD}
            answer = page.post("/actions/release", data=given, headers={"origin": address})
            assert answer.status_code == 403
            assert f"<code>{command}</code>" in html.unescape(answer.text)


OTHER_USER = ("setpriv", "--reuid=5555", "--regid=1234", "--clear-groups", "--")


@pytest.fixture
def shared() -> Iterator[Project]:
    """A project whose group may read all but `.env`, the work folder and the lock files."""
    if os.geteuid():
        pytest.skip("only root can be two users")
    require("setpriv")
    can_run = subprocess.run([*OTHER_USER, *DS_FLOW, "--version"], capture_output=True, check=False)
    if can_run.returncode:
        pytest.skip("another user cannot run this Python")
    with tempfile.TemporaryDirectory() as folder:  # others may not pass through pytest's own
        Path(folder).chmod(0o711)
        root = Path(folder, "project")
        root.mkdir()
        with Project(root) as made:
            yield made


def give_to_group(project: Project, group: int) -> None:
    for path in (project.root, *project.root.rglob("*")):
        if path.suffix != ".csv":  # else it would arrive again
            os.chown(path, 0, group)
    for name in ("out", "log", "config", "data"):
        (project.root / name).chmod(0o750)
    for end in ("", "-wal", "-shm"):
        (project.root / "out" / f"ledger.db{end}").chmod(0o640)
    (project.root / "out" / ".work").chmod(0o700)
    (project.root / ".env").chmod(0o400)


@pytest.mark.exhaustive
def test_another_user_of_the_group_may_serve_the_page(shared: Project) -> None:
    shared.published(BATCH, "101", "student_a.csv")
    shared.start(shared.form(OTHER, shared.admit("student_b.csv")), "102")
    shared.admit("student_c.csv", cause=Cause.REJECTED, reason="it is empty")
    shared.drop("student_new.csv")
    (shared.root / "out" / ".work" / OTHER / "jobs").mkdir(parents=True)
    (shared.root / ".env").write_text("SECRET=of-the-team\n")
    with single_instance(shared.settings):
        give_to_group(shared, 1234)
        with served(shared, before=OTHER_USER) as address, httpx.Client(base_url=address) as page:
            for place in (*PAGES, "/runs/102", "/files/data/student_b.csv", "/metrics"):
                assert page.get(place).status_code == 200, place
            status = page.get("/api/status").json()
            assert status["daemon"] == {"running": True, "pid": os.getpid()}
            assert status["arriving"] == 1
            new = page.get("/api/files/data/student_new.csv").json()
            assert "still arriving" in new["verdict"]
