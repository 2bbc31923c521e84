"""OpenLineage: what each event says by the official models, and that each comes at least once."""

import json
import os
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from openlineage.client import event_v2, facet_v2
from openlineage.client.serde import Serde

import project as real
from cli_project import Project
from clock import NOON
from ds_flow.core.errors import DispatchError, RequestError
from ds_flow.core.retry_policy import Dead, RetryAt
from ds_flow.core.states import FireOutcome, RunState
from ds_flow.ledger.schedules import Fire
from ds_flow.settings.load import Settings, load_settings
from ds_flow.upkeep.child import only_one
from ds_flow.upkeep.lineage_post import lineage_sender, send_lineage
from ds_flow.upkeep.sender import Sender
from ds_flow.work import make_root
from ds_flow.work.published import HEADER_BYTES
from project import until
from samples import BATCH, OTHER_BATCH

LATER = NOON + timedelta(minutes=1)
ENDS = {
    RunState.FAILED: "FAIL",
    RunState.TIMED_OUT: "FAIL",
    RunState.LOST: "FAIL",
    RunState.STOPPED: "ABORT",
    RunState.CANCELLED: "ABORT",
}
Event = dict[str, Any]


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with Project(tmp_path) as made:
        yield made


def settings(project: Project, **given: str) -> Settings:
    environ = {f"DS_FLOW_LINEAGE__{key.upper()}": value for key, value in given.items()}
    return load_settings(project.config, {"DS_FLOW_LINEAGE__FILE": "log/lineage.jsonl"} | environ)


def events(project: Project) -> list[Event]:
    text = (project.root / "log" / "lineage.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def sent(project: Project, **given: str) -> list[Event]:
    send_lineage(settings(project, **given), project.ledger, LATER)
    return events(project)


def publish(project: Project, batch: str = BATCH, run_id: str = "1001") -> None:
    rows = project.admit(f"student_{run_id}a.csv", f"student_{run_id}b.csv")
    project.start(project.form(batch, rows), run_id)
    project.publish(batch, run_id, rows)


# --------------------------------------------------------------------------- the official models


def facet(key: str, what: Event) -> Any:
    """The same facet as an object of the official client."""
    values = {name: value for name, value in what.items() if not name.startswith("_")}
    producer = what["_producer"]
    if key == "parent":
        parent = facet_v2.parent_run
        return parent.ParentRunFacet(
            run=parent.Run(**values["run"]), job=parent.Job(**values["job"]), producer=producer
        )
    if key == "schema":
        schema = facet_v2.schema_dataset
        fields = [schema.SchemaDatasetFacetFields(**one) for one in values["fields"]]
        return schema.SchemaDatasetFacet(fields=fields, producer=producer)
    kinds = {
        "nominalTime": facet_v2.nominal_time_run.NominalTimeRunFacet,
        "processing_engine": facet_v2.processing_engine_run.ProcessingEngineRunFacet,
        "errorMessage": facet_v2.error_message_run.ErrorMessageRunFacet,
        "jobType": facet_v2.job_type_job.JobTypeJobFacet,
        "version": facet_v2.dataset_version_dataset.DatasetVersionDatasetFacet,
        "inputStatistics": facet_v2.input_statistics_input_dataset.InputStatisticsInputDatasetFacet,
        "outputStatistics": (
            facet_v2.output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet
        ),
    }
    if key == "dsflow_run":
        made = facet_v2.RunFacet(producer=producer)
        return made.with_additional_properties(**values)
    return kinds[key](**values, producer=producer)


def facets(found: Event) -> Any:
    return {key: facet(key, what) for key, what in found.items()}


def by_the_models(event: Event) -> Event:
    """Build the event from the official classes, and let the client write it."""
    made = event_v2.RunEvent(
        eventType=event_v2.RunState[event["eventType"]],
        eventTime=event["eventTime"],
        producer=event["producer"],
        run=event_v2.Run(event["run"]["runId"], facets=facets(event["run"]["facets"])),
        job=event_v2.Job(
            event["job"]["namespace"], event["job"]["name"], facets=facets(event["job"]["facets"])
        ),
        inputs=[
            event_v2.InputDataset(
                one["namespace"],
                one["name"],
                facets=facets(one["facets"]),
                inputFacets=facets(one.get("inputFacets", {})),
            )
            for one in event["inputs"]
        ],
        outputs=[
            event_v2.OutputDataset(
                one["namespace"],
                one["name"],
                facets=facets(one["facets"]),
                outputFacets=facets(one.get("outputFacets", {})),
            )
            for one in event["outputs"]
        ],
    )
    written: Event = json.loads(Serde.to_json(made))
    return written


def pruned(what: Any) -> Any:
    """Without keys that have nothing: the client writes some of them."""
    if isinstance(what, dict):
        return {key: pruned(value) for key, value in what.items() if value not in ([], {}, None)}
    return [pruned(one) for one in what] if isinstance(what, list) else what


def end(project: Project, state: RunState, error: str = "it broke") -> None:
    project.start(project.form(BATCH, project.admit("student_a.csv")), "1001")
    then = None if state == RunState.CANCELLED else Dead("1 of 1 attempts")
    project.ledger.end_run(BATCH, 1, state, error=error, results=0, then=then, now=LATER)


@pytest.mark.parametrize(("state", "kind"), ENDS.items())
def test_each_end_is_an_event_that_the_official_models_write_in_the_same_way(
    project: Project, state: RunState, kind: str
) -> None:
    end(project, state)
    start, last = sent(project)
    assert (start["eventType"], last["eventType"]) == ("START", kind)
    assert last["run"]["facets"]["errorMessage"]["message"] == "it broke"
    for event in (start, last):
        assert pruned(by_the_models(event)) == pruned(event)


def test_a_published_run_says_what_it_read_and_what_it_made(project: Project) -> None:
    publish(project)
    combined = project.root / "out" / "final_combined_1001.csv"
    combined.write_text('id,"a ""b""",processed_at\n')
    start, complete = sent(project)
    assert (start["eventType"], complete["eventType"]) == ("START", "COMPLETE")
    assert pruned(by_the_models(complete)) == pruned(complete)
    row = project.ledger.read.latest(["data/student_1001a.csv"])[0]
    first = complete["inputs"][0]
    assert first["namespace"] == "file"
    assert first["name"] == f"{project.root}/data/student_1001a.csv"
    assert first["facets"]["version"]["datasetVersion"] == row.sha256
    assert start["inputs"][0]["facets"] == first["facets"]
    statistics = first["inputFacets"]["inputStatistics"]
    assert (statistics["rowCount"], statistics["size"]) == (3, row.size_bytes)
    made = {Path(one["name"]).name: one for one in complete["outputs"]}
    assert len(made) == 3
    described = made[combined.name]
    assert [one["name"] for one in described["facets"]["schema"]["fields"]] == [
        "id",
        'a "b"',
        "processed_at",
    ]
    assert described["facets"]["version"]["datasetVersion"] == "0" * 64
    assert described["outputFacets"]["outputStatistics"]["rowCount"] == 3


@pytest.mark.parametrize(
    ("header", "columns"), [("x" * 200_000, 1), ("x" * (HEADER_BYTES + 1), 0), ('"a"b\0', 1)]
)
def test_no_header_of_an_output_stops_lineage(project: Project, header: str, columns: int) -> None:
    publish(project)
    combined = project.root / "out" / "final_combined_1001.csv"
    combined.write_text(f"{header}\n")
    made = {Path(one["name"]).name: one for one in sent(project)[-1]["outputs"]}
    fields = made[combined.name]["facets"].get("schema", {}).get("fields", [])
    assert len(fields) == columns


def test_an_output_that_somebody_made_a_pipe_stops_no_lineage(project: Project) -> None:
    publish(project)
    combined = project.root / "out" / "final_combined_1001.csv"
    combined.unlink(missing_ok=True)
    os.mkfifo(combined)
    assert sent(project)[-1]["eventType"] == "COMPLETE"


def test_the_ids_follow_from_the_pathspec_and_the_batch(project: Project) -> None:
    publish(project)
    for event in sent(project):
        spec = uuid.uuid5(uuid.NAMESPACE_URL, "StudentDataFlow/1001")
        assert event["run"]["runId"] == str(spec)
        parent = event["run"]["facets"]["parent"]["run"]["runId"]
        assert parent == str(uuid.uuid5(uuid.NAMESPACE_URL, f"batch/{BATCH}"))


def test_the_nominal_time_is_that_of_the_fire_or_of_the_batch(project: Project) -> None:
    due_at = NOON - timedelta(minutes=3)
    rows = project.published(BATCH, "1001", "student_a.csv")
    fire = Fire(schedule="nightly", due_at=due_at, outcome=FireOutcome.RUN, batch=OTHER_BATCH)
    project.ledger.schedules.form(fire, "all", [rows[0].id], NOON)
    project.start(OTHER_BATCH, "1002")
    times = [one["run"]["facets"]["nominalTime"]["nominalStartTime"] for one in sent(project)]
    assert times == [NOON.isoformat(timespec="milliseconds")] * 2 + [
        due_at.isoformat(timespec="milliseconds")
    ]


def test_a_secret_in_an_error_is_masked(project: Project) -> None:
    (project.root / ".env").write_text("TOKEN=hunter22222\n")
    end(project, RunState.FAILED, "no login with hunter22222")
    assert "hunter22222" not in json.dumps(sent(project))


def test_a_run_that_never_began_has_no_event(project: Project) -> None:
    project.start(project.form(BATCH, project.admit("student_a.csv")))
    project.ledger.end_run(
        BATCH, 1, RunState.FAILED, error="no disk", results=0, then=RetryAt(LATER), now=LATER
    )
    send_lineage(settings(project), project.ledger, LATER)
    assert not (project.root / "log" / "lineage.jsonl").exists()


def test_a_published_run_whose_manifest_is_gone_has_an_event_without_files(
    project: Project,
) -> None:
    publish(project)
    (project.root / "out" / "manifest_1001.json").unlink()
    complete = sent(project)[-1]
    assert (complete["inputs"], complete["outputs"]) == ([], [])


# --------------------------------------------------------------------------- at least once


def test_each_event_is_sent_once_if_nothing_is_killed(project: Project) -> None:
    publish(project)
    assert len(sent(project)) == 2
    assert len(sent(project)) == 2
    publish(project, OTHER_BATCH, "1002")
    kinds = [event["eventType"] for event in sent(project)]
    assert kinds == ["START", "COMPLETE", "START", "COMPLETE"]


def test_an_event_that_comes_again_is_the_same_to_the_byte(project: Project) -> None:
    publish(project)
    sent(project)
    (project.root / "out" / ".work" / "lineage.json").unlink()
    sent(project)
    lines = (project.root / "log" / "lineage.jsonl").read_text().splitlines()
    assert lines[:2] == lines[2:]


def test_a_line_that_was_cut_off_is_written_anew(project: Project) -> None:
    publish(project)
    sent(project)
    file = project.root / "log" / "lineage.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole[:-40])
    (project.root / "out" / ".work" / "lineage.json").write_text("{torn")
    kinds = [event["eventType"] for event in sent(project)]
    assert kinds == ["START", "START", "COMPLETE"]


def test_a_link_in_place_of_the_file_is_not_followed(project: Project) -> None:
    publish(project)
    other = project.root / "other"
    other.write_text("mine")
    (project.root / "log" / "lineage.jsonl").symlink_to(other)
    with pytest.raises(DispatchError, match="link"):
        sent(project)
    assert other.read_text() == "mine"


def test_a_new_recipient_gets_the_last_day_only(project: Project) -> None:
    publish(project)
    send_lineage(settings(project), project.ledger, NOON + timedelta(days=2))
    assert not (project.root / "log" / "lineage.jsonl").exists()


def test_a_ledger_that_was_made_anew_is_followed_from_its_end(project: Project) -> None:
    publish(project)
    sent(project)
    place = project.root / "out" / ".work" / "lineage.json"
    place.write_text('{"file": 1000000}')
    assert len(sent(project)) == 2
    publish(project, OTHER_BATCH, "1002")
    assert len(sent(project)) == 4


def test_two_processes_do_not_send_at_once(project: Project) -> None:
    with only_one(project.settings, "lineage", ""), pytest.raises(RequestError, match="another"):
        sent(project)


# --------------------------------------------------------------------------- to an address


class Catalog(ThreadingHTTPServer):
    """A server that takes events, or answers with the given codes first."""

    def __init__(self, *codes: int) -> None:
        super().__init__(("127.0.0.1", 0), _Taker)
        self.codes = [*codes]
        self.got: list[Event] = []
        self.tokens: list[str | None] = []
        self.hold = threading.Event()
        self.hold.set()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/api/v1/lineage?key=hidden-key"


class _Taker(BaseHTTPRequestHandler):
    server: Catalog

    def do_POST(self) -> None:
        event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.hold.wait()
        self.server.tokens.append(self.headers["Authorization"])
        code = self.server.codes.pop(0) if self.server.codes else 201
        if code < 300:
            self.server.got.append(event)
        self.send_response(code)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def catalog(*codes: int) -> Iterator[Catalog]:
    with Catalog(*codes) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.hold.set()
            server.shutdown()


def test_an_address_that_fails_gets_the_events_later_and_the_file_does_not_wait(
    project: Project,
) -> None:
    publish(project)
    with catalog(201, 503) as server:
        with pytest.raises(DispatchError, match=r"lineage\.url: .*503") as caught:
            sent(project, url=server.address)
        assert "hidden-key" not in str(caught.value)
        assert len(server.got) == 1
        assert len(events(project)) == 2
        assert len(sent(project, url=server.address)) == 2
        assert server.got == events(project)


def test_a_token_goes_with_each_event_and_into_no_message(project: Project) -> None:
    publish(project)
    words = ("a-secret-token", "no header\nat all")
    with catalog() as server:
        sent(project, url=server.address, token=words[0])
        assert server.tokens == ["Bearer a-secret-token"] * 2
    publish(project, OTHER_BATCH, "1002")
    with pytest.raises(DispatchError) as caught:
        sent(project, url=server.address, token=words[1])
    assert "at all" not in str(caught.value)


@pytest.mark.parametrize("code", [400, 413, 422])
def test_an_event_that_will_never_be_taken_does_not_hold_back_the_others(
    project: Project, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    publish(project)
    with catalog(code) as server:
        sent(project, url=server.address)
        assert [event["eventType"] for event in server.got] == ["COMPLETE"]
    assert "lineage.refused" in caplog.text


def sender_until(
    project: Project, sender: Sender, chosen: Settings, is_true: Any, now_s: float = 0.0
) -> None:
    def is_done() -> bool:
        sender.keep(chosen, project.ledger, now_s)
        return bool(is_true())

    until("it was sent", is_done)


def test_the_daemon_starts_no_process_without_a_recipient_or_news(project: Project) -> None:
    sender = lineage_sender()
    publish(project)
    sender.keep(project.settings, project.ledger, 0.0)
    assert not sender._child.is_there
    with catalog() as server:
        _configure(project, server.address)
        chosen = load_settings(project.config, {})
        sender_until(project, sender, chosen, lambda: sender._sent > 0)
        assert len(server.got) == 2
        for _ in range(3):
            sender.keep(chosen, project.ledger, 10.0)
        assert not sender._child.is_there


def _configure(project: Project, address: str) -> None:
    text = project.config.read_text()
    project.config.write_text(f"{text}lineage: {{url: '{address}'}}\n")
    # The events are of a day that is long past for the process that sends them.
    (make_root(project.root / "out") / "lineage.json").write_text('{"url": 0}')


@pytest.mark.exhaustive
def test_the_daemon_waits_for_no_answer_and_tries_again_after_longer_and_longer_rests(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    publish(project)
    with catalog(503, 503) as server:
        server.hold.clear()
        _configure(project, server.address)
        chosen, sender = load_settings(project.config, {}), lineage_sender()
        for _ in range(3):  # each returns at once, although nobody answers
            sender.keep(chosen, project.ledger, 0.0)
        assert server.got == []
        server.hold.set()
        sender_until(project, sender, chosen, lambda: not sender._child.is_there)
        assert sender._backoff.retry_at_s == 5.0
        sender.keep(chosen, project.ledger, 4.9)
        assert not sender._child.is_there
        sender_until(project, sender, chosen, lambda: sender._backoff.retry_at_s == 15.0, 5.0)
        sender_until(project, sender, chosen, lambda: sender._sent > 0, 15.0)
        assert [event["eventType"] for event in server.got] == ["START", "COMPLETE"]
    told = [one.why for one in caplog.records if one.getMessage() == "lineage.waits"]  # type: ignore[attr-defined]
    assert len(told) == 1, told


def test_a_process_that_takes_too_long_is_ended(project: Project) -> None:
    publish(project)
    with catalog() as server:
        server.hold.clear()
        _configure(project, server.address)
        chosen, sender = load_settings(project.config, {}), lineage_sender()
        sender.keep(chosen, project.ledger, 0.0)
        sender_until(project, sender, chosen, lambda: sender._backoff.retry_at_s > 600, 601.0)


def test_an_address_that_speaks_no_http_is_tried_again(project: Project) -> None:
    publish(project)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            peer, _ = server.accept()
            with peer:
                peer.recv(1)
                peer.sendall(b"220 mail\r\n")

        threading.Thread(target=answer, daemon=True).start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}/"
        with pytest.raises(DispatchError, match=r"lineage\.url: "):
            sent(project, url=address)


def test_the_daemon_does_without_http_and_without_templates() -> None:
    code = "import sys, ds_flow.service.process; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "ds_flow.upkeep.lineage_post" in loaded
    assert not {"http.client", "urllib.request", "jinja2", "openlineage"} & set(loaded)


# --------------------------------------------------------------------------- the whole line


def test_a_real_daemon_tells_of_a_real_run(tmp_path: Path) -> None:
    with catalog() as server:
        line = real.Project(tmp_path, lineage={"file": "log/lineage.jsonl", "url": server.address})
        try:
            line.start()
            line.drop("student_a.csv", real.table("a"))
            line.wait_processed("student_a.csv")
            file = line.root / "log" / "lineage.jsonl"
            until("the end was told", lambda: len(server.got) == 2)
            until("it is in the file", lambda: file.read_text().count("\n") == 2)
            line.stop()
        finally:
            line.end_everything()
        complete = server.got[1]
        (run,) = line.runs()
        assert complete["run"]["facets"]["dsflow_run"]["runId"] == run.run_id
        assert pruned(by_the_models(complete)) == pruned(complete)
        fields = complete["outputs"][0]["facets"]["schema"]["fields"]
        assert [one["name"] for one in fields][:2] == ["id", "processed_at"]
        assert list(map(json.loads, file.read_text().splitlines())) == server.got
