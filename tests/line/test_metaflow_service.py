"""Runs at a Metaflow service: each appears there once, and no service keeps a run from its end."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ds_flow.core.errors import DispatchError
from ds_flow.core.states import RunState
from ds_flow.ledger import Ledger
from ds_flow.settings import Settings
from ds_flow.settings.load import load_settings
from ds_flow.upkeep.metaflow_post import metaflow_sender, send_runs
from metaflow_service import Service, served
from project import Project, ids, table, until

KEY = "a-key-of-the-service"
STEPS = ["analyze", "combine", "end", "process", "start"]

# What a notebook of the team sees, by Metaflow's own client.
CLIENT = """
import json, sys
import metaflow
metaflow.namespace(None)
run = metaflow.Run(sys.argv[1])
print(json.dumps({
    "successful": run.successful,
    "finished": run.finished,
    "tags": sorted(run.user_tags),
    "steps": {step.id: sorted(str(task.successful) for task in step) for step in run},
    "artifacts": sorted(one.id for one in run["end"].task),
}))
"""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    made = Project(tmp_path / "project")
    yield made
    made.end_everything()


def use(project: Project, address: str, **given: Any) -> None:
    project.configure(metaflow={"metadata": "service", "url": address}, **given)


def run_once(project: Project, *names: str) -> str:
    """Make a run of these files that is sent nowhere yet; its id at a service."""
    project.configure()
    for name in names:
        project.drop(f"student_{name}.csv", table(name))
    assert project.once().returncode == 0
    return f"ds-flow-{project.runs()[-1].run_id}"


def send(project: Project, now: datetime | None = None) -> None:
    settings = load_settings(project.config, {})
    with closing(Ledger(project.ledger)) as ledger:
        send_runs(settings, ledger, now or datetime.now(UTC))


def forget_position(project: Project) -> None:
    (project.out / ".work" / "metaflow.json").unlink(missing_ok=True)


def ask_client(service: Service, run: str, home: Path) -> dict[str, Any]:
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "METAFLOW_USER": "someone",
        "METAFLOW_DEFAULT_METADATA": "service",
        "METAFLOW_SERVICE_URL": service.address,
    }
    command = [sys.executable, "-c", CLIENT, f"StudentDataFlow/{run}"]
    done = subprocess.run(
        command, env=environ, cwd=home, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


# --------------------------------------------------------------------------- what appears


@pytest.mark.exhaustive
def test_a_run_appears_at_the_service_as_metaflows_own_client_reads_it(
    project: Project, tmp_path: Path
) -> None:
    with served() as service:
        run = run_once(project, "a")
        use(project, service.address)
        assert service.asked == []  # a run knows of no service
        assert project.ds_flow("metaflow").returncode == 0

        found = ask_client(service, run, tmp_path)
        assert (found["successful"], found["finished"]) == (True, True)
        assert sorted(found["steps"]) == STEPS
        assert {"True"} == {one for tasks in found["steps"].values() for one in tasks}
        assert {"manifest", "published", "started_at"} <= {*found["artifacts"]}
        run_id = project.manifests()[0].run_id
        assert {"project:story", f"run:{run_id}"} <= {*found["tags"]}
        assert run == f"ds-flow-{run_id}"


@pytest.mark.exhaustive
def test_what_was_sent_is_not_sent_again_and_what_is_missing_is_completed(
    project: Project,
) -> None:
    with served() as service:
        run = run_once(project, "a")
        use(project, service.address)
        send(project)
        tasks, metadata, asked = service.tasks(run), service.metadata(run), len(service.asked)
        artifacts = {*service.tables.artifacts}
        assert len(metadata) == len({*metadata})

        send(project)
        assert len(service.asked) == asked

        forget_position(project)
        kept = [one for one in service.tables.metadata if one[0][2] != "end"]
        service.tables.metadata = kept[::2]
        service.tables.artifacts = dict([*service.tables.artifacts.items()][::2])
        for key in [key for key in service.tables.rows if key[2:3] == ("end",)]:
            del service.tables.rows[key]
        send(project)
        assert sorted(service.tasks(run)) == sorted(tasks)
        assert sorted(service.metadata(run)) == sorted(metadata)
        assert {*service.tables.artifacts} == artifacts


@pytest.mark.exhaustive
def test_a_run_is_whole_and_once_at_a_service_that_died_after_any_request(
    project: Project,
) -> None:
    with served() as service:
        run = run_once(project, "a")
        use(project, service.address)
        send(project)
        whole, requests = service, len(service.asked)
    for number in range(0, requests, 5):
        forget_position(project)
        with served() as service:
            use(project, service.address)
            service.takes = number
            with pytest.raises(DispatchError, match=r"metaflow\.url: "):
                send(project)
            service.takes = None
            send(project)
            assert sorted(service.tasks(run)) == sorted(whole.tasks(run)), number
            assert sorted(service.metadata(run)) == sorted(whole.metadata(run)), number
            assert service.tables.artifacts.keys() == whole.tables.artifacts.keys(), number


@pytest.mark.exhaustive
def test_a_new_service_gets_the_runs_of_the_last_day(project: Project) -> None:
    with served() as service:
        run = run_once(project, "a")
        use(project, service.address)
        send(project, datetime.now(UTC) + timedelta(days=2))
        assert service.runs() == {}
        forget_position(project)
        send(project)
        assert [*service.runs()] == [run]


@pytest.mark.exhaustive
def test_a_service_at_another_address_is_a_new_one_and_gets_them_without_a_new_run(
    project: Project,
) -> None:
    sender = metaflow_sender()
    run = run_once(project, "a")
    with served() as first, served() as second, closing(Ledger(project.ledger)) as ledger:
        for service in (first, second):
            use(project, service.address)
            chosen = load_settings(project.config, {})

            def is_sent(service: Service = service, chosen: Settings = chosen) -> bool:
                sender.keep(chosen, ledger, 0.0)
                return [*service.runs()] == [run] and not sender._child.is_there

            until("it was sent", is_sent)
        asked = len(second.asked)
        send(project)
        assert len(second.asked) == asked  # it is known now


@pytest.mark.exhaustive
def test_a_process_that_sends_ends_when_nothing_is_to_be_sent_any_more(project: Project) -> None:
    sender = metaflow_sender()
    run_once(project, "a")
    with served() as service, closing(Ledger(project.ledger)) as ledger:
        service.hold.clear()
        use(project, service.address)
        sender.keep(load_settings(project.config, {}), ledger, 0.0)
        assert sender._child.is_there
        project.configure()
        chosen = load_settings(project.config, {})

        def has_ended() -> bool:
            sender.keep(chosen, ledger, 0.0)
            return not sender._child.is_there

        until("it ended", has_ended)
        service.hold.set()


@pytest.mark.exhaustive
def test_a_key_goes_with_each_request_and_into_no_message(project: Project) -> None:
    with served() as service:
        run_once(project, "a")
        given = {"metadata": "service", "url": f"{service.address}/", "auth_key": KEY}
        project.configure(metaflow=given)
        send(project)
        assert service.keys == {KEY}
        forget_position(project)
        service.codes = [403]
        with pytest.raises(DispatchError) as caught:
            send(project)
        assert KEY not in str(caught.value)
        assert service.address not in str(caught.value)


# --------------------------------------------------------------------------- what does not


@pytest.mark.parametrize("code", [400, 413, 422])
@pytest.mark.exhaustive
def test_a_run_that_the_service_never_takes_does_not_hold_back_the_others(
    project: Project, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    with served() as service:
        run_once(project, "a")
        second = run_once(project, "b")
        use(project, service.address)
        service.codes = [code, code]  # for its beginning, and for its end
        send(project)
        assert [*service.runs()] == [second]
    assert "metaflow.refused" in caplog.text


@pytest.mark.exhaustive
def test_a_run_that_the_service_fails_on_for_a_day_is_passed_over(project: Project) -> None:
    with served() as service:
        run_once(project, "a")
        use(project, service.address)
        service.codes = [500]
        with pytest.raises(DispatchError, match="500"):
            send(project)
        service.codes = [500, 500]  # for its beginning, and for its end
        send(project, datetime.now(UTC) + timedelta(days=2))
        assert service.codes == []
        assert service.runs() == {}


@pytest.mark.exhaustive
def test_a_service_that_was_down_from_the_first_day_gets_the_runs_since_then(
    project: Project,
) -> None:
    run = run_once(project, "a")
    use(project, "http://127.0.0.1:9/")
    with pytest.raises(DispatchError):
        send(project)
    with served() as service:
        use(project, service.address)
        send(project, datetime.now(UTC) + timedelta(days=2))
        assert [*service.runs()] == [run]


@pytest.mark.exhaustive
def test_a_run_whose_records_are_gone_stops_nothing(project: Project) -> None:
    with served() as service:
        gone = run_once(project, "a")
        run = run_once(project, "b")
        use(project, service.address)
        folder = project.root / ".metaflow" / "StudentDataFlow"
        (folder / gone.removeprefix("ds-flow-")).rename(folder / "elsewhere")
        torn = next((folder / run.removeprefix("ds-flow-")).glob("end/*/_meta/*_artifact_*.json"))
        torn.write_text("{torn")
        send(project)
        assert [*service.runs()] == [run]


@pytest.mark.exhaustive
def test_local_metadata_is_sent_nowhere(project: Project) -> None:
    with served() as service:
        project.configure(metaflow={"url": service.address})
        run_once(project, "a")
        done = project.ds_flow("metaflow")
        assert (done.returncode, "local" in done.stdout) == (0, True)
        send(project)
        assert service.asked == []


# --------------------------------------------------------------------------- a daemon


def wait_sent(service: Service, number: int) -> None:
    """Wait until so many runs are at the service with all that an end has."""

    def are_sent() -> bool:
        ends = [run for run in service.runs() if ended(service, run)]
        return len(ends) == number

    until(f"{number} runs had ended at the service", are_sent)


def ended(service: Service, run: str) -> bool:
    return any(
        one[0] == "end" and one[2:] == ("attempt_ok", "True") for one in service.metadata(run)
    )


@pytest.mark.exhaustive
def test_a_daemon_shows_a_run_while_it_lives_and_its_end(project: Project) -> None:
    with served() as service:
        use(project, service.address)
        project.start()
        gate = project.gate("gate")
        project.drop("student_gate.csv", table("gate", gate="gate"))
        gate.wait()
        until("it was at the service", service.runs)
        (run,) = service.runs()
        until("its step was there", lambda: any(one[0] == "process" for one in service.tasks(run)))
        until("it was alive", lambda: any(one.endswith("heartbeat") for one in service.asked))
        assert not ended(service, run)
        gate.open()
        project.wait_processed("student_gate.csv")
        wait_sent(service, 1)
        assert project.stop() == 0


def test_a_live_run_that_the_service_does_not_take_is_no_fault_of_the_service(
    project: Project,
) -> None:
    with served() as service:
        project.start()
        gate = project.gate("gate")
        project.drop("student_gate.csv", table("gate", gate="gate"))
        gate.wait()
        until("its Run ID was known", lambda: project.runs()[-1].run_id)
        use(project, service.address)
        service.codes = [400, 400]  # for its beginning, and while it lives
        send(project)
        assert service.codes == []
        gate.open()
        project.wait_processed("student_gate.csv")
        assert project.stop() == 0


DOWN: dict[str, Callable[[Service], None]] = {
    "hangs": lambda service: service.hold.clear(),
    "fails": lambda service: service.codes.extend([503] * 1000),
}
EXHAUSTIVE = {"fails": pytest.mark.exhaustive}


@pytest.mark.parametrize(
    "break_it",
    [pytest.param(one, id=name, marks=EXHAUSTIVE.get(name, ())) for name, one in DOWN.items()],
)
@pytest.mark.exhaustive
def test_runs_go_on_without_a_service_and_it_gets_them_later(
    project: Project, break_it: Callable[[Service], None]
) -> None:
    with served() as service:
        use(project, service.address, alerts={"limit_seconds": 1})
        project.start()
        break_it(service)
        project.drop("student_a.csv", table("a"))
        project.wait_processed("student_a.csv")
        until("the daemon had asked", lambda: "metaflow.waits" in project.said())
        assert project.status()["files"]["quarantined"] == 0
        assert {run.state for run in project.runs()} == {RunState.SUCCEEDED}
        service.codes.clear()
        service.hold.set()
        wait_sent(service, 1)
        assert project.stop() == 0


@pytest.mark.exhaustive
def test_a_service_that_dies_in_mid_run_costs_the_run_nothing(project: Project) -> None:
    with served() as service:
        use(project, service.address)
        project.start()
        gate = project.gate("gate")
        project.drop("student_gate.csv", table("gate", gate="gate"))
        gate.wait()
        until("it was at the service", service.runs)
        tables, port = service.tables, service.server_port
    with socket.socket() as refused:  # nobody listens any more
        assert refused.connect_ex(("127.0.0.1", port))
    gate.open()
    project.wait_processed("student_gate.csv")
    assert project.published_ids() == ids("gate")
    (run,) = project.runs()
    assert (run.state, run.attempt) == (RunState.SUCCEEDED, 1)
    with served(port, tables) as service:
        wait_sent(service, 1)
        assert [*service.runs()] == [f"ds-flow-{run.run_id}"]
        metadata = service.metadata(f"ds-flow-{run.run_id}")
        assert len(metadata) == len({*metadata})
    assert project.stop() == 0


@pytest.mark.exhaustive
def test_a_killed_daemon_loses_no_run_that_it_had_not_sent(project: Project) -> None:
    with served() as service:
        service.hold.clear()
        use(project, service.address)
        project.start()
        project.drop("student_a.csv", table("a"))
        project.wait_processed("student_a.csv")
        project.kill()
        project.end_everything()
        service.hold.set()
        project.start()
        wait_sent(service, 1)
        assert project.stop() == 0


@pytest.mark.exhaustive
def test_a_service_that_takes_nothing_for_long_is_a_problem_in_the_status(
    project: Project,
) -> None:
    run_once(project, "a")
    use(project, "http://127.0.0.1:9/")
    past = datetime.now(UTC) - timedelta(hours=1)
    with pytest.raises(DispatchError):
        send(project, past)
    with pytest.raises(DispatchError):
        send(project)
    (one,) = (one for one in project.status()["problems"] if one["kind"] == "metaflow")
    assert "no runs are sent to the Metaflow service" in one["text"]
    assert (one["needs_person"], one["since"]) == (True, past.isoformat())
    with served() as service:
        use(project, service.address)
        send(project)
    assert not [one for one in project.status()["problems"] if one["kind"] == "metaflow"]


# --------------------------------------------------------------------------- nothing else counts


@pytest.mark.exhaustive
def test_no_variable_profile_or_home_of_the_caller_leads_a_run_to_a_service(
    project: Project, tmp_path: Path
) -> None:
    with served() as service:
        config = {
            "METAFLOW_DEFAULT_METADATA": "service",
            "METAFLOW_SERVICE_URL": service.address,
            "METAFLOW_SERVICE_INTERNAL_URL": service.address,
            "METAFLOW_SERVICE_AUTH_KEY": KEY,
            "METAFLOW_SERVICE_HEADERS": '{"x": "y"}',
        }
        home = tmp_path / "home"
        for name in ("config.json", "config_team.json"):
            file = home / ".metaflowconfig" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(config))
        project.environment |= {
            **config,
            "HOME": str(home),
            "METAFLOW_HOME": str(home / ".metaflowconfig"),
            "METAFLOW_PROFILE": "team",
            "METAFLOW_METADATA": "service",
        }
        run = run_once(project, "a").removeprefix("ds-flow-")
        assert project.published_ids() == ids("a")
        assert (project.root / ".metaflow" / "StudentDataFlow" / run / "_meta").is_dir()
        project.start()
        project.drop("student_b.csv", table("b"))
        project.wait_processed("student_b.csv")
        assert project.stop() == 0
        assert service.asked == []
