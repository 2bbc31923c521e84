"""The page in a real browser: what people read there is what the commands say."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from browser import browser, tab
from cli_project import Project, manifest_of
from clock import NOON
from ds_flow.cli.main import main
from ds_flow.core.retry_policy import Dead
from ds_flow.core.states import Cause, FileState, FireOutcome, RunState
from ds_flow.ledger.schedules import Fire
from page import served

BATCH, OTHER = "0123456789", "abcdef0123"  # nothing of them runs
EVIL = "<script>alert('cell')</script><img src=x onerror=alert(1)>"
HOSTILE = "student_<img src=x onerror=alert('name')>&\"'`id`.csv"
PAGES = (
    "/",
    "/runs",
    "/runs/101",
    "/files",
    "/files/data/student_a.csv",
    "/quarantine",
    "/schedules",
)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Runs that published, one dead batch, a hostile name, a hostile cell, a missed fire."""
    with Project(tmp_path_factory.mktemp("page")) as made:
        rows = made.admit("student_a.csv", HOSTILE, "student_b.csv")
        made.start(made.form(BATCH, rows), "101")
        manifest = manifest_of(BATCH, "101", rows[:2], rows[2:])
        refused = replace(manifest.rejected[0], reason=f"cell `{EVIL}` is no number")
        analysis = {"command": ["wc", "-l"], "stdout": f"{EVIL}\n", "error": ""}
        job = {"stage": "process", "index": 1, "native_id": "4711", "host": "node7", "exit_code": 0}
        times = {
            "started_at": NOON.isoformat(),
            "ended_at": (NOON + timedelta(seconds=9)).isoformat(),
        }
        job |= {"backend": "lsf", "reason": "", "round": "r", "key": "k", **times}
        short = {**job, "stage": "combine", "ended_at": times["started_at"]}
        manifest = replace(manifest, rejected=(refused,), analysis=analysis, jobs=(job, short))
        made.ledger.record(manifest, NOON + timedelta(seconds=12))
        (made.root / "out" / "manifest_101.json").write_text(json.dumps(manifest.to_json()))
        (made.root / "log" / "run_101.log").write_text(f"the log says {EVIL}\n")
        made.start(made.form(OTHER, made.admit("student_c.csv")), "102")
        made.ledger.end_run(
            OTHER,
            1,
            RunState.FAILED,
            error=f"it broke: `{EVIL}`",
            results=0,
            then=Dead("used up"),
            now=NOON,
        )
        fire = Fire(schedule="nightly", due_at=NOON, outcome=FireOutcome.MISSED, batch=None)
        made.ledger.schedules.record(fire, NOON)
        yield made


@pytest.fixture(scope="module")
def address(project: Project) -> Iterator[str]:
    with served(project) as found:
        yield found


@pytest.fixture
def printed(project: Project, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """What a command prints with `--json`."""

    def run(*argv: str) -> Any:
        assert main(["--config", str(project.config), *argv, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return run


def shown(value: object) -> str:
    return "\N{EN DASH}" if value in {None, ""} else str(value)


# --------------------------------------------------------------------------- the same words


def test_the_overview_has_the_counts_of_status(
    chromium: Browser, address: str, printed: Callable[..., Any]
) -> None:
    status = printed("status")
    with tab(chromium, address) as seen:
        seen.go("/")
        names = [name.lower() for name in seen.texts(".figures dt")]
        found = dict(zip(names, map(int, seen.texts(".figures dd")), strict=True))
        files = {state: status["files"][state] for state in ("processed", "waiting", "quarantined")}
        assert found == {
            **files,
            "files": status["discovered"],
            "batched": status["files"]["batched"],
            "arriving": status["arriving"],
            "runs": sum(status["runs"].values()),
        }
        todo = [one for one in status["problems"] if one["needs_person"]]
        assert seen.texts("h1") == [f"{len(todo)} things need you"]
        first = seen.texts(".verdict > ol > li > p:first-child")
        assert len(first) == 3
        for text, one in zip(first, todo, strict=False):
            assert text.startswith(one["text"])
        assert seen.texts(".how > code:last-child")[:3] == [one["command"] for one in todo[:3]]


def test_the_list_of_runs_is_that_of_runs(
    chromium: Browser, address: str, printed: Callable[..., Any]
) -> None:
    expected = [
        [
            *(run["run_id"], run["state"], run["trigger"]),
            *(str(len(run["inputs"])), str(len(run["outputs"])), shown(run["error"])),
        ]
        for run in reversed(printed("runs")["runs"])
    ]
    with tab(chromium, address) as seen:
        seen.go("/runs")
        assert [[*row[:3], *row[5:]] for row in seen.rows()] == expected
        seen.tab.get_by_label("State").select_option("failed")
        seen.follow("button", "Show")
        assert [row[0] for row in seen.rows()] == ["102"]


def test_a_run_is_that_of_show(
    chromium: Browser, address: str, printed: Callable[..., Any]
) -> None:
    run = printed("show", "101")
    manifest = run["manifest"]
    with tab(chromium, address) as seen:
        seen.go("/runs/101")
        inputs = seen.rows("section[aria-labelledby=h-in] tbody tr")
        assert [row[0] for row in inputs] == [one["path"] for one in manifest["inputs"]]
        outputs = seen.rows("section[aria-labelledby=h-out] tbody tr")
        assert {row[0] for row in outputs} == {
            "manifest_101.json",
            *(one["name"] for one in manifest["outputs"]),
        }
        (refused,) = seen.rows("section[aria-labelledby=h-rejected] tbody tr")
        (expected,) = manifest["rejected"]
        assert refused == [
            expected[key] if key != "line" else "2" for key in ("path", "cause", "line", "reason")
        ]
        assert seen.texts("section[aria-labelledby=h-analysis] pre") == [EVIL]
        assert seen.texts("pre.log") == [f"the log says {EVIL}"]
        seen.tab.get_by_text("Ids, hosts and exit codes").click()
        job, _ = seen.rows("#job-table tbody tr")
        assert job[:6] == ["process", "1", "done", "lsf", "4711", "node7"]
        assert seen.tab.locator(".gantt .work").count() == 2
        assert seen.texts(".gantt .num")[1:] == ["9.0 s", "under 1 s"]


def test_the_cells_of_a_row_begin_on_one_line_however_long_a_name_is(
    chromium: Browser, address: str
) -> None:
    tops = """row => [...row.querySelectorAll("td")].slice(0, 2).map(cell => {
        const range = document.createRange();
        range.selectNodeContents(cell);
        return [...range.getClientRects()].map(line => line.top);
    })"""
    with tab(chromium, address) as seen:
        seen.tab.set_viewport_size({"width": 390, "height": 900})
        seen.go("/files")
        long = seen.tab.locator("tbody tr", has=seen.tab.locator("a.path", has_text="onerror"))
        name, version = long.evaluate(tops)
        assert max(name) - min(name) > 10  # the name takes several lines
        assert abs(min(name) - min(version)) < 10


def test_the_list_of_files_is_that_of_files(
    chromium: Browser, address: str, printed: Callable[..., Any]
) -> None:
    keys = ("path", "version", "state", "run_id", "reason")
    expected = [[shown(one[key]) for key in keys] for one in printed("files")["files"]]
    with tab(chromium, address) as seen:
        seen.go("/files")
        assert [[*row[:3], *row[5:]] for row in seen.rows()] == expected


def test_a_file_is_that_of_explain(
    chromium: Browser, address: str, printed: Callable[..., Any]
) -> None:
    with tab(chromium, address) as seen:
        for name in ("student_a.csv", HOSTILE):
            answer = printed("explain", name)
            seen.go("/files")
            seen.follow("link", f"data/{name}")
            assert seen.texts(".lead") == [answer["verdict"]]
            events = [one["kind"] for one in reversed(answer["events"])]
            assert seen.texts(".events .kind") == events


def test_the_quarantine_is_that_of_files_with_what_explain_says_to_do(
    chromium: Browser, address: str, printed: Callable[..., Any]
) -> None:
    rows = printed("files", "--state", FileState.QUARANTINED)["files"]
    remedies = [printed("explain", row["path"])["next"].replace("`", "") for row in rows]
    with tab(chromium, address) as seen:
        seen.go("/quarantine")
        assert seen.texts(".case h2 a") == [row["path"] for row in rows]
        assert seen.texts(".case .reason") == [row["reason"] for row in rows]
        assert seen.texts(".case .how") == [f"What to do: {remedy}" for remedy in remedies]


def test_the_schedules_are_those_of_schedule(
    chromium: Browser, address: str, printed: Callable[..., Any]
) -> None:
    (schedule,) = printed("schedule")["schedules"]
    with tab(chromium, address) as seen:
        seen.go("/schedules")
        assert seen.texts(".case h2") == [f"{schedule['name']} {schedule['outcome']}"]
        times = seen.tab.locator(".case .facts time").evaluate_all(
            "all => all.map(t => t.dateTime)"
        )
        assert times == [schedule["next_at"], schedule["last_at"]]
        assert [row[2] for row in seen.rows()] == ["missed"]


# --------------------------------------------------------------------------- a browser's view


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.exhaustive
def test_a_page_is_the_same_without_a_script(chromium: Browser, address: str, page: str) -> None:
    texts = []
    for has_script in (True, False):
        with tab(chromium, address, java_script_enabled=has_script) as seen:
            seen.go(page)
            texts.append(seen.tab.locator("main").inner_text())
    assert texts[0] == texts[1]


@pytest.mark.parametrize("page", PAGES)
def test_no_hostile_name_or_cell_becomes_an_element(
    chromium: Browser, address: str, page: str
) -> None:
    with tab(chromium, address) as seen:
        seen.go(page)
        assert seen.tab.locator("img").count() == 0
        assert seen.tab.locator("script").count() == 1  # our own
        assert seen.tab.locator("script").get_attribute("src", timeout=0).startswith("/static/")  # type: ignore[union-attr] # it has one


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.exhaustive
def test_no_page_is_wider_than_the_screen(
    chromium: Browser, address: str, page: str, width: int
) -> None:
    with tab(chromium, address, viewport={"width": width, "height": 800}) as seen:
        seen.go(page)
        assert seen.tab.evaluate("document.documentElement.scrollWidth") == width


def test_a_keyboard_is_enough(chromium: Browser, address: str) -> None:
    with tab(chromium, address) as seen:
        seen.go("/runs")
        seen.tab.keyboard.press("Tab")
        assert seen.tab.evaluate("document.activeElement.className") == "skip"
        seen.tab.keyboard.press("Enter")
        seen.tab.keyboard.press("Tab")
        assert seen.tab.evaluate("document.activeElement.name") == "state"


def test_each_page_has_one_heading_and_names_what_it_shows(chromium: Browser, address: str) -> None:
    with tab(chromium, address) as seen:
        for page in PAGES:
            seen.go(page)
            assert seen.tab.locator("h1").count() == 1
            assert seen.tab.locator("svg:not([aria-label]):not([aria-labelledby])").count() == 0
            assert seen.tab.locator("nav a[aria-current=page]").count() == 1


def test_an_output_is_downloaded(chromium: Browser, project: Project, address: str) -> None:
    (project.root / "out" / "final_combined_101.csv").write_text("a\n1\n")
    with tab(chromium, address) as seen:
        seen.go("/runs/101")
        with seen.tab.expect_download() as coming:
            seen.tab.get_by_role("link", name="final_combined_101.csv").click()
        assert coming.value.suggested_filename == "final_combined_101.csv"
        assert Path(coming.value.path()).read_text() == "a\n1\n"


# --------------------------------------------------------------------------- live


@pytest.mark.exhaustive
def test_what_changes_appears_without_a_reload(
    chromium: Browser, project: Project, address: str
) -> None:
    with tab(chromium, address) as seen:
        seen.go("/files?state=waiting")
        seen.tab.locator(".live.on").wait_for(timeout=0)
        assert seen.texts(".empty") == ["No file matches."]
        seen.tab.evaluate("window.wasHere = true")
        project.admit("student_new.csv")
        seen.tab.locator("td:has-text('student_new.csv')").wait_for(timeout=0)
        assert seen.tab.evaluate("window.wasHere")
        seen.go("/")
        seen.tab.locator(".live.on").wait_for(timeout=0)
        waiting = seen.tab.locator(".figures div:has-text('waiting') dd")
        assert waiting.inner_text() == "1"
        project.admit("student_newer.csv")
        seen.tab.locator(".figures div:has-text('waiting') dd:has-text('2')").wait_for(timeout=0)


def test_what_a_person_types_is_not_taken_away(
    chromium: Browser, project: Project, address: str
) -> None:
    with tab(chromium, address) as seen:
        seen.go("/files")
        seen.tab.locator(".live.on").wait_for(timeout=0)
        field = seen.tab.get_by_label("Name begins with")
        field.fill("student_ty")
        told = seen.tab.evaluate("told")
        project.admit("student_typed.csv")
        seen.tab.wait_for_function("before => told !== before", arg=told, timeout=0)
        assert field.input_value() == "student_ty"
        field.press("Enter")
        seen.tab.wait_for_url("**/files?prefix=student_ty*", timeout=0)
        assert [row[0] for row in seen.rows()] == ["data/student_typed.csv"]


# --------------------------------------------------------------------------- actions


@pytest.mark.exhaustive
def test_an_action_needs_the_setting_and_the_token(
    chromium: Browser, address: str, tmp_path: Path
) -> None:
    with tab(chromium, address) as seen:
        seen.go("/files/data/student_c.csv")
        assert seen.tab.locator("form").count() == 0
    word = "a-token-of-the-team"
    with Project(tmp_path) as made:
        made.admit("student_c.csv", cause=Cause.REJECTED, reason="it is empty")
        with served(made, actions=True, token=word) as own, tab(chromium, own) as seen:
            for given, heading in (
                ("a-wrong-token-of-it", "Refused"),
                (word, "Asked for: release"),
            ):
                seen.go("/files/data/student_c.csv")
                seen.tab.get_by_text("Let it wait for a batch again").click()
                seen.tab.get_by_label("Your name").fill("Olga")
                seen.tab.get_by_label("Token").fill(given)
                seen.tab.get_by_role("button", name="Release").click()
                seen.tab.get_by_role("heading", name=heading).wait_for(timeout=0)
                if heading == "Refused":
                    assert [f for f in seen.faults if "403" in f] == seen.faults
                    seen.faults.clear()  # a browser tells of every 403
                    (row,) = made.ledger.read.versions("data/student_c.csv")
                    assert row.state == FileState.QUARANTINED
            assert made.ledger.read.versions("data/student_c.csv")[0].state == FileState.WAITING
            assert made.ledger.history.last("web.asked") is not None
