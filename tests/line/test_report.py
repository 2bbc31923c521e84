"""Reports: what they tell of a run and of a night, and that nothing in one can run or load."""

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from conftest import require

from cli_project import Project, manifest_of
from clock import NOON, machine_in
from ds_flow.cli.commands.report import span_of
from ds_flow.cli.main import main
from ds_flow.core.errors import SettingsError
from ds_flow.core.retry_policy import Dead, RetryAt
from ds_flow.core.states import Cause, RunState
from ds_flow.reports.charts import Column, columns, gantt
from ds_flow.reports.html import report_html
from ds_flow.reports.parts import LISTED
from ds_flow.settings.load import Settings, load_settings
from ds_flow.upkeep.alerts import SAID
from ds_flow.upkeep.daily import WRITTEN, daily_report, last_due
from ds_flow.views.report import run_report, span_report
from project import until
from samples import BATCH, OTHER_BATCH

HOSTILE = '<script>alert(1)</script><img src=x onerror="a()">.csv'
LATER = NOON + timedelta(hours=1)
DAY = timedelta(days=1)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """One published file, one rejected, one dead batch, one file set aside on arrival."""
    with Project(tmp_path) as made:
        rows = made.admit("student_a.csv", "student_b.csv", f"student_{HOSTILE}".replace("/", "_"))
        made.start(made.form(BATCH, rows), "1001")
        made.publish(BATCH, "1001", rows[1:], rows[:1])  # by path: the hostile one is the first
        made.start(made.form(OTHER_BATCH, made.admit("student_c.csv")), "1002")
        made.ledger.end_run(
            OTHER_BATCH,
            1,
            RunState.FAILED,
            error="<b>it broke</b>",
            results=0,
            then=Dead("1 of 1 attempts"),
            now=NOON,
        )
        made.admit("student_d.csv", cause=Cause.NAME, reason="no such name")
        yield made


def of_run(project: Project, run_id: str = "1001") -> dict[str, Any]:
    row = project.ledger.read.run(run_id)
    assert row is not None
    return run_report(project.settings, project.ledger, row, LATER)


def of_span(project: Project, span: timedelta = DAY) -> dict[str, Any]:
    return span_report(project.settings, project.ledger, LATER - span, LATER)


def facts(document: dict[str, Any]) -> dict[str, Any]:
    return {one["name"]: one["value"] for one in document["facts"]}


class Page(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def update_manifest(project: Project, run_id: str, **keys: Any) -> None:
    path = project.root / "out" / f"manifest_{run_id}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


# --------------------------------------------------------------------------- what it tells


def test_a_report_of_a_run_tells_what_came_in_what_was_set_aside_and_what_came_out(
    project: Project,
) -> None:
    told = of_run(project)
    found = facts(told)
    assert (found["files in"], found["set aside"], found["rows"]) == (3, 1, 6)
    assert found["bytes published"] == 27
    (aside,) = told["set_aside"]
    assert aside["reason"] == "line 2: cells: 1 in this row, 2 in the header"
    assert [one["path"] for one in told["inputs"]] == ["data/student_a.csv", "data/student_b.csv"]
    assert told["problems"] == ["1 file set aside"]
    assert "4 final.csv" in Page(report_html(told)).text


def test_a_report_of_a_failed_run_begins_with_its_error(project: Project) -> None:
    told = of_run(project, "1002")
    assert told["problems"] == ["failed: <b>it broke</b>"]
    assert [one["path"] for one in told["inputs"]] == ["data/student_c.csv"]
    assert "<b>it broke</b>" in Page(report_html(told)).text


def test_a_report_of_a_night_adds_up_all_runs(project: Project) -> None:
    told = of_span(project)
    found = facts(told)
    assert (found["files arrived"], found["files published"], found["runs"]) == (5, 2, 2)
    assert (found["set aside"], found["rows"], found["runs without success"]) == (3, 6, 1)
    assert told["problems"] == ["1 run failed", "3 files set aside"]
    reasons = {one["path"]: one["reason"] for one in told["set_aside"]}
    assert reasons["data/student_d.csv"] == "no such name"
    todo = {one["path"]: (one["remedy"], one["command"]) for one in told["set_aside"]}
    assert todo["data/student_d.csv"] == (
        "rename the file",
        "ds-flow explain -- data/student_d.csv",
    )
    assert "ds-flow release -- data/student_c.csv" in Page(report_html(told)).text
    assert {row["run_id"] for row in told["runs"]} == {"1001", "1002"}
    assert [chart["title"] for chart in told["charts"]] == ["Rows published", "Files published"]


def test_what_is_older_than_the_span_is_left_out(project: Project) -> None:
    told = of_span(project, timedelta(minutes=30))
    assert told["problems"] == []
    assert told["runs"] == []
    assert "All is well" in Page(report_html(told)).text


def test_a_run_that_failed_and_whose_batch_was_published_later_needs_nobody(
    project: Project,
) -> None:
    rows = project.admit("student_e.csv")
    project.start(project.form("c" * 10, rows), "1003")
    again = RetryAt(NOON)
    project.ledger.end_run(
        "c" * 10, 1, RunState.LOST, error="the host died", results=0, then=again, now=NOON
    )
    assert "1 run lost" in of_span(project)["problems"]
    project.start("c" * 10, "1004")
    manifest = replace(manifest_of("c" * 10, "1004", rows), attempt=2)
    project.ledger.record(manifest, NOON)
    told = of_span(project)
    assert "1 run lost" not in told["problems"]
    assert facts(told)["runs repaired by a later one"] == 1
    assert facts(told)["runs without success"] == 1


def test_a_report_says_of_how_many_runs_it_read_the_manifests(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert of_span(project)["note"] == ""
    project.published("c" * 10, "1003", "student_e.csv")
    monkeypatch.setattr("ds_flow.views.report.READ", 1)
    told = of_span(project)
    assert "newest 1 of 2 published runs" in Page(report_html(told)).text


def test_drift_changes_and_previews_are_told_where_they_are_known(project: Project) -> None:
    path = "data/student_a.csv"
    drift = [{"path": path, "text": "column `score` is missing", "since": ""}]
    manifest = manifest_of(BATCH, "1001", project.ledger.read.latest([path])).to_json()
    outputs = [
        {**one, "compared": "changed", "because": ["code"]} for one in manifest["outputs"][:1]
    ]
    update_manifest(project, "1001", drift=drift, outputs=outputs)
    column = {"name": "id", "looks_like": "whole number", "empty": 0.25, "distinct": 3}
    column |= {"smallest": "17", "largest": "<b>19", "hidden": False, "approximate": True}
    secret = {**column, "name": "name", "smallest": "Ann", "largest": "Zoe"}
    rows = [["17", "Ann"], ["<i>18", "Zoe"]]
    table = {"path": path, "rows": 3000, "rows_looked_at": 500}
    table |= {"columns": [column, secret], "first_rows": rows}
    profile = {"combined": None, "inputs": [table], "left_out": 4}
    (project.root / "out" / "profile_1001.json").write_text(json.dumps(profile))
    project.config.write_text(f"{project.config.read_text()}privacy: {{hide_columns: [name]}}\n")
    project.settings = load_settings(project.config, {})
    told = of_run(project)
    text = Page(report_html(told)).text
    for words in ("column `score` is missing", "whole number", "25.0 %", "code", "500 of 3,000"):
        assert words in text
    for words in ("17", "<b>19", "<i>18", "hidden", "And 4 more files."):
        assert words in text
    assert "Ann" not in text
    assert "Zoe" not in text
    assert "1 difference from earlier files" in told["problems"]
    assert of_span(project)["drift"] == drift
    assert [one["because"] for one in of_span(project)["changes"]] == [["code"]]


def test_long_lists_are_cut_and_the_rest_is_counted(project: Project) -> None:
    names = [f"student_{number}.csv" for number in range(LISTED + 7)]
    project.admit(*names, cause=Cause.NAME, reason="no")
    told = of_span(project)
    assert len(told["set_aside"]) == LISTED
    assert told["more"]["set_aside"] == 10
    assert "And 10 more." in Page(report_html(told)).text


def test_a_run_that_is_alive_or_lost_its_manifest_has_a_report(project: Project) -> None:
    (project.root / "out" / "manifest_1001.json").write_text("torn")
    assert of_span(project)["drift"] == []
    (project.root / "out" / "manifest_1001.json").unlink()
    assert facts(of_run(project))["files in"] == 3
    project.start(project.form("c" * 10, project.admit("student_e.csv")), "1003")
    assert "running" in Page(report_html(of_run(project, "1003"))).text
    assert report_html(of_span(project))


# --------------------------------------------------------------------------- nothing runs


@pytest.fixture(params=["run", "failed", "night"])
def page(project: Project, request: pytest.FixtureRequest) -> str:
    if request.param == "night":
        return report_html(of_span(project))
    return report_html(of_run(project, {"run": "1001", "failed": "1002"}[request.param]))


def test_nothing_in_a_report_runs_or_loads_anything(page: str) -> None:
    found = Page(page)
    tags = {tag for tag, _ in found.elements}
    assert not tags & {"script", "img", "link", "iframe", "object", "embed", "form", "base", "a"}
    for _, attributes in found.elements:
        assert not [name for name in attributes if name.startswith("on")]
        assert not attributes.keys() & {"src", "href", "srcset", "style", "xlink:href"}
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert "url(" not in style
    assert "@import" not in style


def test_what_would_turn_the_text_round_is_escaped_in_a_report(project: Project) -> None:
    document = of_run(project)
    said = {"title": "a\u202eb", "analysis": "one\ntwo\u202e\n"}
    preview = {"path": "c\u202e", "columns": [], "rows": 1, "rows_looked_at": 1}
    profile = {"combined": None, "inputs": [preview], "left_out": 0}

    page = report_html({**document, **said, "profile": profile})

    assert "\u202e" not in page
    assert r"<h1>a\u202eb</h1>" in page
    assert "one\ntwo" in page


def test_the_policy_allows_this_style_sheet_and_nothing_else(page: str) -> None:
    policies = [
        attributes["content"]
        for tag, attributes in Page(page).elements
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    (policy,) = policies
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'sha256-")


def test_a_real_browser_shows_a_report_with_its_style(project: Project, tmp_path: Path) -> None:
    """Chromium applies the sheet only if its hash is the one in the policy."""
    file = tmp_path / "report.html"
    file.write_text(report_html(of_run(project)))
    done = subprocess.run(
        [
            require("chromium"),
            *("--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"),
            *("--virtual-time-budget=1000", f"--user-data-dir={tmp_path / 'browser'}"),
            *("--dump-dom", file.as_uri()),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Content Security Policy" not in done.stderr
    assert "Run 1001" in Page(done.stdout).text


# --------------------------------------------------------------------------- the command


def test_the_command_writes_a_file_or_prints_the_page_or_its_document(
    project: Project, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    config = ["--config", str(project.config)]
    assert main([*config, "report", "1001", "--output", str(tmp_path / "run.html")]) == 0
    assert "Run 1001" in (tmp_path / "run.html").read_text()
    assert main([*config, "report", "--since", "9999d"]) == 0
    assert capsys.readouterr().out.startswith("<!doctype html>")
    assert main([*config, "report", BATCH, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "Run 1001"


def test_a_chart_tells_times_as_this_machines_clock_shows_them(project: Project) -> None:
    with machine_in("Europe/Berlin"):
        (rows, _) = of_span(project)["charts"]
    began = LATER - DAY
    assert rows["bars"][0]["words"] == f"{began + timedelta(hours=1):%Y-%m-%d %H:%M:%S}: 0"
    assert rows["ends"][0] == began.isoformat()


@pytest.mark.parametrize("words", [["1001", "--since", "1h"], ["--since", "1w"], ["--since", "0h"]])
def test_what_makes_no_sense_is_a_usage_error(project: Project, words: list[str]) -> None:
    assert main(["--config", str(project.config), "report", *words]) == 2


def test_a_span_is_minutes_hours_or_days() -> None:
    assert [span_of(words) for words in ("90m", "24h", "7d")] == [
        timedelta(minutes=90),
        timedelta(hours=24),
        timedelta(days=7),
    ]


# --------------------------------------------------------------------------- every day


def of_day(project: Project, daily: str | None = "07:00") -> Settings:
    if daily:
        text = project.config.read_text()
        project.config.write_text(f"{text}report: {{daily: '{daily}'}}\n")
    return load_settings(project.config, {})


def test_a_time_of_day_needs_no_quotes_and_has_to_be_one(project: Project) -> None:
    text = project.config.read_text()
    project.config.write_text(f"{text}report: {{daily: 17:30}}\n")
    assert load_settings(project.config, {}).report.daily == "17:30"
    project.config.write_text(f"{text}report: {{daily: 24:00}}\n")
    with pytest.raises(SettingsError, match=r"report\.daily"):
        load_settings(project.config, {})


@pytest.mark.parametrize(
    ("now", "due"),
    [
        ("2026-01-01T07:00", "2026-01-01T07:00"),
        ("2026-01-01T06:59", "2025-12-31T07:00"),
        ("2026-03-29T12:00", "2026-03-29T07:00"),  # the clocks went forward at night
    ],
)
def test_the_last_time_that_was_due_is_by_this_machines_clock(now: str, due: str) -> None:
    with machine_in("Europe/Berlin"):
        at = datetime.fromisoformat(now).astimezone()
        assert last_due("07:00", at.astimezone(UTC)) == datetime.fromisoformat(due).astimezone()


def test_the_command_writes_the_report_of_the_day_and_notes_its_path(project: Project) -> None:
    config = ["--config", str(project.config)]
    assert main([*config, "report", "--daily"]) == 0
    (file,) = (project.root / "out" / "reports").iterdir()
    assert re.fullmatch(r"report_\d{4}-\d\d-\d\d\.html", file.name)
    assert file.read_text().startswith("<!doctype html>")
    last = project.ledger.history.last(WRITTEN)
    assert last is not None
    assert last[1] == f"out/reports/{file.name}"
    assert main([*config, "report", "--daily", "--json"]) == 2


def test_the_daemon_has_a_report_written_once_after_each_time(project: Project) -> None:
    chosen, daily = of_day(project), daily_report()
    at = NOON + timedelta(days=400)
    for kept_at, is_due in (
        (at, True),  # there was none so far
        (at + timedelta(hours=1), False),
        (at + timedelta(days=1), True),
        (at + timedelta(days=1, minutes=1), False),
        (at - timedelta(days=9), True),  # the clock was set back: it is not silent for nine days
    ):
        daily.keep(chosen, project.ledger, kept_at, 0.0)
        assert daily.child.is_there == is_due
        daily.child.close()
        daily = daily_report()
        if is_due:
            project.ledger.history.note(WRITTEN, "out/reports/x.html", kept_at)


def test_without_the_setting_there_is_no_report(project: Project) -> None:
    daily = daily_report()
    daily.keep(project.settings, project.ledger, NOON, 0.0)
    assert not daily.child.is_there


def test_a_report_that_cannot_be_written_is_tried_again_an_hour_later(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    chosen, daily = of_day(project), daily_report()
    (project.root / "out" / "reports").write_text("in the way")
    daily.keep(chosen, project.ledger, LATER, 0.0)

    def has_ended() -> bool:
        daily.keep(chosen, project.ledger, LATER, 1.0)
        return not daily.child.is_there

    until("it has ended", has_ended)
    (record,) = [one for one in caplog.records if one.getMessage() == "report.failed"]
    assert "reports" in record.why  # type: ignore[attr-defined]
    daily.keep(chosen, project.ledger, LATER, 3600.0)
    assert not daily.child.is_there
    daily.keep(chosen, project.ledger, LATER, 3602.0)
    assert daily.child.is_there
    daily.child.close()


def test_a_person_is_told_where_the_daily_report_is(project: Project) -> None:
    project.ledger.history.note(WRITTEN, "out/reports/report_2026-01-01.html", NOON)
    told = project.ledger.history.take_alert(WRITTEN, NOON, every=DAY, gather=timedelta())
    assert told is not None
    assert WRITTEN in SAID
    assert told.examples == ("out/reports/report_2026-01-01.html",)


# --------------------------------------------------------------------------- charts


def test_bars_stay_within_their_chart() -> None:
    few = columns("few", [Column("a", 3), Column("b", 0)])
    many = columns("many", [Column(str(number), number) for number in range(200)])
    at = datetime(2026, 1, 1, tzinfo=UTC)
    jobs = [
        {
            "stage": "process",
            "index": number,
            "started_at": (at + timedelta(seconds=number)).isoformat(),
            "ended_at": (at + timedelta(seconds=number)).isoformat(),
        }
        for number in range(5)
    ]
    for chart in (few, many, *gantt("jobs", jobs)):
        assert len(chart["bars"]) in {2, 5, 200}
        for bar in chart["bars"]:
            assert bar["x"] >= 0
            assert bar["x"] + bar["width"] <= 721
            assert bar["y"] + bar["height"] <= chart["height"] + 0.1


def test_a_few_columns_are_named_in_their_order_and_many_by_their_ends() -> None:
    few = columns("few", [Column("a", 3), Column("b", 1)])
    assert few["ends"][0] == "From left to right: a, b"
    many = columns("many", [Column(str(number), number) for number in range(20)])
    assert many["ends"] == ["0", "19"]


def test_a_job_whose_times_are_unknown_is_not_drawn() -> None:
    assert [*gantt("jobs", [{"stage": "process", "started_at": None}])] == []


def test_nothing_is_drawn_of_nothing(project: Project) -> None:
    empty = replace(project.settings, project_name="other")
    told = span_report(empty, project.ledger, LATER, LATER + DAY)
    assert told["charts"] == []
