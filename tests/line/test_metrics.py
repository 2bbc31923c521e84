"""The metrics: what they say of a ledger, and that Prometheus and its tools take them."""

import http.server
import json
import re
import subprocess
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import require
from prometheus_client.parser import text_string_to_metric_families

from cli_project import Project
from clock import NOON
from ds_flow.cli.main import main
from ds_flow.core.program import CHECKOUT
from ds_flow.core.retry_policy import Dead
from ds_flow.core.states import Cause, FireOutcome, RunState, Trigger
from ds_flow.ledger.schedules import Fire
from ds_flow.views.metrics import metrics_text
from project import until
from samples import BATCH, OTHER_BATCH

MONITORING = CHECKOUT / "config" / "monitoring"
LATER = NOON + timedelta(minutes=10)
LISTENS = re.compile(r'msg="Listening on" address=(127\.0\.0\.1:[0-9]+)')
NAME = re.compile(r"\bds_flow_\w+")


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """One published file, one rejected, one dead batch, one waiting file, one missed fire."""
    with Project(tmp_path) as made:
        rows = made.admit("student_a.csv", "student_b.csv")
        made.start(made.form(BATCH, rows), "1001")
        made.publish(BATCH, "1001", rows[:1], rows[1:])
        made.start(made.form(OTHER_BATCH, made.admit("student_c.csv")), "1002")
        made.ledger.end_run(
            OTHER_BATCH,
            1,
            RunState.FAILED,
            error="it broke",
            results=0,
            then=Dead("1 of 1 attempts"),
            now=NOON + timedelta(seconds=7),
        )
        made.admit("student_d.csv")
        made.ledger.schedules.record(
            Fire(schedule="nightly", due_at=NOON, outcome=FireOutcome.MISSED), NOON
        )
        yield made


def text_of(project: Project, pid: int | None = 1) -> str:
    return metrics_text(project.settings, project.ledger, pid, LATER)


def samples(text: str) -> dict[str, float]:
    """Each sample by its name and its labels other than the project."""
    found = {}
    for family in text_string_to_metric_families(text):
        for one in family.samples:
            labels = {key: word for key, word in one.labels.items() if key != "project"}
            listed = ",".join(f"{key}={word}" for key, word in labels.items())
            found[one.name.removeprefix("ds_flow_") + (f"{{{listed}}}" if listed else "")] = (
                one.value
            )
    return found


def test_the_metrics_say_what_the_ledger_holds(project: Project) -> None:
    found = samples(text_of(project))
    told = {
        "daemon_up": 1,
        "files{state=waiting}": 1,
        "files{state=processed}": 1,
        "files{state=quarantined}": 2,
        "batches{state=succeeded}": 1,
        "batches{state=dead}": 1,
        "quarantined_files{cause=rejected}": 1,
        "quarantined_files{cause=dead}": 1,
        "oldest_waiting_file_age_seconds": 600,
        "oldest_unfinished_batch_age_seconds": 0,
        "runs_total{end=succeeded,trigger=arrival}": 1,
        "runs_total{end=failed,trigger=arrival}": 1,
        "runs_live": 0,
        "published_bytes_total{output=processed}": 9,
        "published_bytes_total{output=combined}": 9,
        "published_rows_total{output=processed}": 3,
        "last_success_timestamp_seconds": NOON.timestamp(),
        "failed_analyses": 0,
        "schedule_missed_fires{schedule=nightly}": 1,
        "disk_needed_bytes": 100 * 2**20,
        "recent_run_duration_seconds_bucket{le=5}": 1,
        "recent_run_duration_seconds_bucket{le=10}": 2,
        "recent_run_duration_seconds_count": 2,
        "recent_publish_latency_seconds_count": 1,
    }
    assert {name: found.get(name) for name in told} == told
    assert found["recent_run_duration_seconds_sum"] == pytest.approx(7, abs=0.01)
    assert found["schedule_next_fire_timestamp_seconds{schedule=nightly}"] > LATER.timestamp()
    assert found["disk_free_bytes{place=outputs}"] > 0
    assert samples(text_of(project, None))["daemon_up"] == 0


def test_a_new_project_has_zeros_where_something_may_begin(tmp_path: Path) -> None:
    with Project(tmp_path) as empty:
        found = samples(text_of(empty))
    assert {name: value for name, value in found.items() if name.startswith("batches")} == {
        f"batches{{state={state}}}": 0
        for state in ("queued", "running", "retrying", "succeeded", "dead", "cancelled")
    }
    assert found["quarantined_files{cause=rejected}"] == 0
    assert found["runs_total{end=failed,trigger=schedule}"] == 0
    assert "last_success_timestamp_seconds" not in found


def test_what_is_older_than_a_day_is_in_no_histogram_but_stays_in_the_counters(
    project: Project,
) -> None:
    later = NOON + timedelta(days=2)
    found = samples(metrics_text(project.settings, project.ledger, None, later))
    assert found["recent_run_duration_seconds_count"] == 0
    assert found["recent_publish_latency_seconds_count"] == 0
    assert found["schedule_missed_fires{schedule=nightly}"] == 0
    assert found["runs_total{end=succeeded,trigger=arrival}"] == 1


def test_a_rerun_of_an_old_file_is_no_latency(project: Project) -> None:
    before = samples(text_of(project))["recent_publish_latency_seconds_count"]
    rows = project.ledger.read.latest(["data/student_a.csv"])
    project.start(project.form("a" * 10, rows, Trigger.RERUN), "1003")
    project.publish("a" * 10, "1003", rows)
    assert samples(text_of(project))["recent_publish_latency_seconds_count"] == before


def test_a_file_that_was_released_waits_since_then(project: Project) -> None:
    row = project.admit("student_d.csv", "student_e.csv", cause=Cause.REJECTED, reason="bad")
    project.start(
        project.form("b" * 10, project.ledger.read.latest(["data/student_d.csv"])), "1004"
    )
    project.ledger.release(row[1].id, NOON + timedelta(minutes=9))
    assert samples(text_of(project))["oldest_waiting_file_age_seconds"] == 60


def test_the_number_of_samples_does_not_grow_with_files_and_runs(project: Project) -> None:
    before = samples(text_of(project))
    for number in range(5):
        rows = project.admit(f"student_x{number}.csv", f"student_y{number}.csv")
        project.start(project.form(f"{number:010x}", rows), f"20{number}")
        project.publish(f"{number:010x}", f"20{number}", rows[:1], rows[1:])
    assert samples(text_of(project)).keys() == before.keys()


def test_no_question_for_the_metrics_reads_a_table_of_files_for_each_run(project: Project) -> None:
    asked: list[str] = []
    project.ledger._store._db.set_trace_callback(asked.append)
    text_of(project)
    few = len(asked)
    for number in range(5):
        rows = project.admit(f"student_x{number}.csv")
        project.start(project.form(f"{number:010x}", rows), f"20{number}")
        project.publish(f"{number:010x}", f"20{number}", rows)
    asked.clear()
    text_of(project)
    assert len(asked) == few


def test_the_command_prints_the_metrics_or_puts_them_in_place_by_a_rename(
    project: Project, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "textfile" / "ds-flow.prom"
    file.parent.mkdir()
    file.write_text("old")
    other = file.with_name("same.prom")
    other.hardlink_to(file)
    config = ["--config", str(project.config)]
    assert main([*config, "metrics", "--output", str(file)]) == 0
    assert other.read_text() == "old"
    assert sorted(path.name for path in file.parent.iterdir()) == ["ds-flow.prom", "same.prom"]
    assert main([*config, "metrics"]) == 0
    assert samples(file.read_text()).keys() == samples(capsys.readouterr().out).keys()
    assert file.stat().st_mode & 0o777 == other.stat().st_mode & 0o777


# --------------------------------------------------------------------------- Prometheus' own tools


def promtool(*words: str, text: str = "") -> None:
    done = subprocess.run(
        [require("promtool"), *words], input=text, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


def test_promtool_finds_nothing_to_say_about_the_metrics(project: Project) -> None:
    promtool("check", "metrics", text=text_of(project))


def test_names_that_need_escapes_pass_promtool(project: Project) -> None:
    strange = replace(project.settings, project_name='a "b" \\ c\nd')
    text = metrics_text(strange, project.ledger, None, LATER)
    promtool("check", "metrics", text=text)
    families = [*text_string_to_metric_families(text)]
    assert {one.labels["project"] for family in families for one in family.samples} == {
        'a "b" \\ c\nd'
    }


def test_the_alert_rules_pass_promtool_and_their_tests() -> None:
    promtool("check", "rules", str(MONITORING / "alerts.yml"))
    promtool("test", "rules", str(MONITORING / "alerts_test.yml"))


def test_every_rule_is_tested_to_fire() -> None:
    rules = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"][0]["rules"]
    tests = (MONITORING / "alerts_test.yml").read_text()
    assert [one["alert"] for one in rules if f'alertname="{one["alert"]}"' not in tests] == []


def expressions(what: Any) -> Iterator[str]:
    """Every expression and query in a document, however deep."""
    if isinstance(what, dict):
        for key, inner in what.items():
            if key in {"expr", "query"} and isinstance(inner, str):
                yield inner
            else:
                yield from expressions(inner)
    elif isinstance(what, list):
        for inner in what:
            yield from expressions(inner)


@pytest.mark.parametrize("file", ["alerts.yml", "alerts_test.yml", "grafana.json"])
def test_every_expression_names_only_metrics_that_exist(project: Project, file: str) -> None:
    document = yaml.safe_load((MONITORING / file).read_text())  # JSON is YAML
    text = "\n".join(expressions(document)) if file != "alerts_test.yml" else str(document)
    exist = {name.split("{")[0] for name in samples(text_of(project))}
    assert {name.removeprefix("ds_flow_") for name in NAME.findall(text)} <= exist
    assert NAME.findall(text)


def test_the_guide_lists_every_metric(project: Project) -> None:
    guide = (CHECKOUT / "docs" / "metrics.md").read_text()
    listed = set(re.findall(r"^\| `(ds_flow_\w+)`", guide, re.MULTILINE))
    exist = set(re.findall(r"^# TYPE (\w+)", text_of(project), re.MULTILINE))
    assert listed == exist


# --------------------------------------------------------------------------- a real Prometheus


@contextmanager
def serving(text: str) -> Iterator[int]:
    """Serve a text on loopback, at a port of its own."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def prometheus(folder: Path, target: int) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """Start a Prometheus that scrapes one port and knows the rules; its address."""
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(MONITORING / "alerts.yml")],
        "scrape_configs": [
            {"job_name": "ds-flow", "static_configs": [{"targets": [f"127.0.0.1:{target}"]}]}
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    words = [
        require("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        "--web.listen-address=127.0.0.1:0",
    ]
    said = folder / "prometheus.log"
    with said.open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log)

    def address() -> list[str]:
        return LISTENS.findall(said.read_text())

    try:
        until("it listens", address, while_lives=process)
        yield f"http://{address()[0]}", process
    finally:
        process.terminate()
        process.wait()


def ask(address: str, path: str, **query: str) -> Any:
    """What its API answers; {} while it does not."""
    asked = f"{address}{path}?{urllib.parse.urlencode(query)}"
    try:
        with urllib.request.urlopen(asked) as answer:  # noqa: S310 - http, on loopback
            return json.load(answer)["data"]
    except OSError:
        return {}


@pytest.mark.exhaustive
def test_a_real_prometheus_scrapes_the_metrics_and_evaluates_the_rules(
    project: Project, tmp_path: Path
) -> None:
    require("prometheus")
    text = text_of(project, None)
    with serving(text) as target, prometheus(tmp_path, target) as (address, process):

        def value(expression: str) -> list[str]:
            found = ask(address, "/api/v1/query", query=expression).get("result", [])
            return [one["value"][1] for one in found]

        until("it was scraped", lambda: value("ds_flow_daemon_up"), while_lives=process)
        assert value('ds_flow_files{state="quarantined"}') == ["2"]
        assert value("histogram_quantile(0.5, ds_flow_recent_run_duration_seconds_bucket)")
        until(
            "an alert is on its way",
            lambda: value('ALERTS{alertname="DsFlowDaemonDown"}'),
            while_lives=process,
        )
        rules = ask(address, "/api/v1/rules")["groups"][0]["rules"]
        assert [one["lastError"] for one in rules if one.get("lastError")] == []
        for panel in json.loads((MONITORING / "grafana.json").read_text())["panels"]:
            for one in panel["targets"]:
                asked = one["expr"].replace("$project", ".*")
                assert "result" in ask(address, "/api/v1/query", query=asked), asked
