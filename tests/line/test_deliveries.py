"""Hand-over: each command gets each publication at least once, in order, and never holds it up."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from conftest import require

import project as real
from cli_project import Project, manifest_of
from clock import NOON, MovedClock
from ds_flow.cli.main import main
from ds_flow.core.errors import RequestError
from ds_flow.core.states import DeliveryState, RunState, Trigger
from ds_flow.ledger.deliveries import DeliveryRow
from ds_flow.runs.recovery import disown_batches
from ds_flow.settings.load import Settings, load_settings
from ds_flow.upkeep.alert_text import text_of
from ds_flow.upkeep.deliveries import HAND_OVER, LOCKS, MOST_AT_ONCE, Deliverer
from ds_flow.views.health import problems
from ds_flow.views.metrics import metrics_text
from ds_flow.work.root import make_root
from project import until
from samples import BATCH, OTHER_BATCH

TAKE = ["sh", "-c", 'echo "$DS_FLOW_RUN_ID $1" >> taken', "-"]
GATED = ["sh", "-c", 'echo "$DS_FLOW_RUN_ID" >> begun; flock gates/door true; echo x >> ended', "-"]
THIRD_BATCH = "c" * 10


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with Project(tmp_path) as made:
        yield made


@pytest.fixture
def deliverer() -> Iterator[Deliverer]:
    made = Deliverer()
    yield made
    made.close()


def settings(project: Project, *commands: list[str], **given: object) -> Settings:
    own = {f"DS_FLOW_PUBLISH__{name.upper()}": str(value) for name, value in given.items()}
    then = json.dumps(commands)
    return load_settings(project.config, {**os.environ, "DS_FLOW_PUBLISH__THEN": then, **own})


def use(project: Project, *commands: list[str], **given: object) -> Settings:
    """Work by settings with these commands, as whoever opens the ledger does."""
    chosen = settings(project, *commands, **given)
    project.ledger.deliveries.commands = chosen.handed_to
    return chosen


def publish(project: Project, *run_ids: str) -> None:
    batches = (BATCH, OTHER_BATCH, THIRD_BATCH)
    for run_id, batch in zip(run_ids, batches, strict=False):
        project.published(batch, run_id, f"student_{run_id}.csv")


def work(
    deliverer: Deliverer, project: Project, chosen: Settings, clock: MovedClock, tries: int = 1
) -> None:
    """Keep until nothing runs, so many times, each time once what failed is due again."""
    for number in range(tries):
        clock.elapsed_s += 1000.0 * bool(number)
        deliverer.keep(chosen, project.ledger, clock.now())

        def is_done() -> bool:
            deliverer.keep(chosen, project.ledger, clock.now())
            return not deliverer.is_busy

        until("nothing was being handed over", is_done)


def lines(project: Project, name: str = "taken") -> list[str]:
    path = project.root / name
    return path.read_text().splitlines() if path.exists() else []


def row_of(project: Project, run_id: str = "1001", number: int = 0) -> DeliveryRow:
    return project.ledger.deliveries.of_run(run_id)[number]


# --------------------------------------------------------------------------- the line


def test_each_command_gets_the_manifest_and_the_run_id_of_each_publication_in_order(
    project: Project, deliverer: Deliverer, clock: MovedClock
) -> None:
    chosen = use(project, TAKE, [*TAKE[:2], 'echo "$1" >> other', "-"])
    publish(project, "1001", "1002", "1003")

    work(deliverer, project, chosen, clock)

    out = project.settings.output_dir
    paths = [f"{out}/manifest_{run_id}.json" for run_id in ("1001", "1002", "1003")]
    assert lines(project) == [f"{path[-9:-5]} {path}" for path in paths]
    assert lines(project, "other") == paths
    assert row_of(project).state == DeliveryState.DONE
    assert project.ledger.deliveries.waiting() == 0


def test_a_run_that_fails_is_tried_again_later_each_time_and_the_next_one_waits_for_it(
    project: Project, deliverer: Deliverer, clock: MovedClock
) -> None:
    fails = "test -e mended || { echo no room on the share >&2; exit 3; }; " + TAKE[2]
    chosen = use(project, [*TAKE[:2], fails, "-"], TAKE)
    publish(project, "1001", "1002")

    work(deliverer, project, chosen, clock)

    assert [line[:4] for line in lines(project)] == ["1001", "1002"]  # the other command goes on
    row = row_of(project)
    assert (row.state, row.attempts) == (DeliveryState.WAITING, 1)
    assert row.reason == "exit code 3: no room on the share"
    assert deliverer.next_at is not None
    assert timedelta(seconds=7) < deliverer.next_at - clock.now() < timedelta(seconds=13)
    assert row_of(project, "1002").attempts == 0

    work(deliverer, project, chosen, clock, tries=4)
    assert row_of(project).attempts == 4
    assert deliverer.next_at > clock.now() + timedelta(seconds=59)
    (project.root / "mended").touch()
    work(deliverer, project, chosen, clock, tries=2)
    assert [line[:4] for line in lines(project)] == ["1001", "1002"] * 2


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (["no-such-program"], "there is no program no-such-program on PATH"),
        (["./no/such"], "./no/such cannot be started: No such file or directory"),
        (["sh", "-c", "kill -9 $$"], "killed by signal 9"),
        (["false"], "exit code 1"),
    ],
)
def test_why_a_command_failed_is_said_in_plain_words(
    project: Project, deliverer: Deliverer, clock: MovedClock, command: list[str], why: str
) -> None:
    chosen = use(project, command)
    publish(project, "1001")
    work(deliverer, project, chosen, clock)
    assert row_of(project).reason == why


def test_a_fault_of_the_host_that_keeps_a_command_from_its_start_is_a_failure_that_is_told(
    project: Project, deliverer: Deliverer, clock: MovedClock
) -> None:
    chosen = use(project, TAKE)
    publish(project, "1001")
    locks = make_root(chosen.output_dir) / LOCKS
    locks.write_text("no folder")
    work(deliverer, project, chosen, clock)
    assert row_of(project).reason.startswith("it cannot be started: ")
    assert "File exists" in row_of(project).reason
    locks.unlink()
    clock.elapsed_s += 3600
    work(deliverer, project, chosen, clock)
    assert row_of(project).state == DeliveryState.DONE


def test_a_command_that_takes_too_long_is_ended_with_all_of_its_processes(
    project: Project, deliverer: Deliverer, clock: MovedClock
) -> None:
    sleeps = "sleep 1000 & echo $! > pid; echo still here; wait"
    chosen = use(project, ["sh", "-c", sleeps], limit_minutes=0.01)
    publish(project, "1001")
    work(deliverer, project, chosen, clock)
    assert row_of(project).reason == "it took longer than 0.01 minutes, and was ended"
    pid = (project.root / "pid").read_text().strip()
    until("its child was gone", lambda: not is_alive(pid))


def is_alive(pid: str) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def test_what_a_command_leaves_in_the_background_ends_with_it_and_holds_nothing_up(
    project: Project, deliverer: Deliverer, clock: MovedClock
) -> None:
    chosen = use(project, ["sh", "-c", "sleep 1000 & echo $! > pid"])
    publish(project, "1001")
    work(deliverer, project, chosen, clock)
    assert row_of(project).state == DeliveryState.DONE
    pid = (project.root / "pid").read_text().strip()
    until("its child was gone", lambda: not is_alive(pid))


def test_what_a_command_prints_is_in_a_log_of_bounded_length(
    project: Project, deliverer: Deliverer, clock: MovedClock
) -> None:
    chosen = use(project, ["sh", "-c", "echo hello; head -c 9000000 /dev/zero; exit 1"])
    publish(project, "1001")
    work(deliverer, project, chosen, clock, tries=9)
    (log,) = project.settings.log_dir.glob("deliver_1001_*.log")
    assert 2**18 < log.stat().st_size < 2**20 + 2**19
    text = log.read_bytes()
    assert b"\nhello\n" in text
    assert b"the rest of the output is left out" in text
    assert text.endswith(b"\n")


def test_a_command_has_the_secrets_of_the_project_and_no_message_does(
    project: Project, deliverer: Deliverer, clock: MovedClock
) -> None:
    (project.root / ".env").write_text("DB_PASSWORD=correct-horse\n")
    chosen = use(project, ["sh", "-c", 'echo "no: $DB_PASSWORD"; exit 1'])
    publish(project, "1001")
    work(deliverer, project, chosen, clock)
    assert row_of(project).reason == "exit code 1: no: ***"


def test_only_a_few_processes_run_at_once_and_each_command_has_its_turn(
    project: Project, deliverer: Deliverer, clock: MovedClock
) -> None:
    gate = real.Gate(project.root / "gates" / "door")
    commands = [[*GATED, str(number)] for number in range(MOST_AT_ONCE + 1)]
    chosen = use(project, *commands)
    publish(project, "1001", "1002")
    deliverer.keep(chosen, project.ledger, clock.now())
    until("all had begun", lambda: len(lines(project, "begun")) == MOST_AT_ONCE)
    deliverer.keep(chosen, project.ledger, clock.now())
    assert lines(project, "begun") == ["1001"] * MOST_AT_ONCE
    gate.open()

    def has_turn() -> bool:
        deliverer.keep(chosen, project.ledger, clock.now())
        return json.dumps(commands[-1]) in deliverer._going

    until("the last command had its turn", has_turn)
    of_next = project.ledger.deliveries.of_run("1002")
    assert not [row for row in of_next if row.state == DeliveryState.DONE]
    work(deliverer, project, chosen, clock)
    assert sorted(lines(project, "begun")) == sorted(["1001", "1002"] * len(commands))


# --------------------------------------------------------------------------- the queue


def test_a_publication_and_what_it_is_handed_over_to_are_recorded_together_or_not_at_all(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(project, TAKE)
    rows = project.admit("student_a.csv")
    project.start(project.form(BATCH, rows), "1001")

    def fail(*_: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(project.ledger.deliveries, "enter", fail)
        with pytest.raises(KeyboardInterrupt):
            project.ledger.record(manifest_of(BATCH, "1001", rows), NOON)
    run = project.ledger.read.run("1001")
    assert run is not None
    assert run.state == RunState.RUNNING
    project.ledger.record(manifest_of(BATCH, "1001", rows), NOON)
    assert row_of(project).state == DeliveryState.WAITING


def test_runs_of_before_are_not_handed_over_and_a_new_command_begins_with_the_next_run(
    project: Project, deliverer: Deliverer, clock: MovedClock
) -> None:
    publish(project, "1001")
    chosen = use(project, TAKE)
    project.published(OTHER_BATCH, "1002", "student_b.csv")
    work(deliverer, project, chosen, clock)
    assert [line[:4] for line in lines(project)] == ["1002"]
    assert project.ledger.deliveries.of_run("1001") == []


def test_a_ledger_that_is_made_anew_hands_nothing_over_again(project: Project) -> None:
    rows = project.admit("student_a.csv")
    project.start(project.form(BATCH, rows), "1001")
    use(project, TAKE)
    project.ledger.record(manifest_of(BATCH, "1001", rows), NOON, is_old=True)
    assert project.ledger.deliveries.of_run("1001") == []


def test_what_waits_for_a_command_that_is_removed_ends_and_the_history_says_so(
    project: Project, deliverer: Deliverer, clock: MovedClock
) -> None:
    chosen = use(project, ["false"])
    publish(project, "1001", "1002")
    work(deliverer, project, chosen, clock)
    chosen = settings(project, TAKE)
    work(deliverer, project, chosen, clock)
    for run_id in ("1001", "1002"):
        row = row_of(project, run_id)
        assert (row.state, row.reason) == (
            DeliveryState.DROPPED,
            "its command is not in publish.then any more",
        )
    last = project.ledger.history.last("delivery.ended")
    assert last is not None
    assert last[1].startswith('["false"]: 2 not handed over: its command')
    assert not lines(project)


def test_a_person_hands_a_run_over_again_after_what_waits(
    project: Project, deliverer: Deliverer, clock: MovedClock
) -> None:
    chosen = use(project, TAKE)
    publish(project, "1001", "1002")
    work(deliverer, project, chosen, clock)
    assert project.ledger.deliveries.again("1001", clock.now()) == 1
    work(deliverer, project, chosen, clock)
    assert [line[:4] for line in lines(project)] == ["1001", "1002", "1001"]


def test_a_person_who_asks_again_does_not_wait_for_the_next_try(
    project: Project, deliverer: Deliverer, clock: MovedClock
) -> None:
    chosen = use(project, [*TAKE[:2], "test -e mended && " + TAKE[2], "-"])
    publish(project, "1001", "1002")
    work(deliverer, project, chosen, clock)
    (project.root / "mended").touch()
    assert project.ledger.deliveries.again("1002", clock.now()) == 0
    work(deliverer, project, chosen, clock)
    assert [line[:4] for line in lines(project)] == ["1001", "1002"]


def test_what_a_person_gives_up_lets_later_runs_go_on(
    project: Project, deliverer: Deliverer, clock: MovedClock
) -> None:
    chosen = use(project, [*TAKE[:2], 'test "$DS_FLOW_RUN_ID" != 1001 && ' + TAKE[2], "-"])
    publish(project, "1001", "1002")
    work(deliverer, project, chosen, clock)
    assert project.ledger.deliveries.skip("1001", clock.now()) == 1
    work(deliverer, project, chosen, clock)
    assert [line[:4] for line in lines(project)] == ["1002"]
    assert row_of(project).state == DeliveryState.GIVEN_UP
    with pytest.raises(RequestError, match="nothing of run 1001 waits"):
        project.ledger.deliveries.skip("1001", clock.now())


def test_a_command_that_runs_ends_when_its_run_is_given_up(
    project: Project, deliverer: Deliverer, clock: MovedClock
) -> None:
    gate = real.Gate(project.root / "gates" / "door")
    chosen = use(project, GATED)
    publish(project, "1001")
    deliverer.keep(chosen, project.ledger, clock.now())
    gate.wait()
    project.ledger.deliveries.skip("1001", clock.now())
    work(deliverer, project, chosen, clock)
    assert not lines(project, "ended")
    assert row_of(project).state == DeliveryState.GIVEN_UP


def test_what_has_published_nothing_or_was_removed_is_not_handed_over(project: Project) -> None:
    use(project, TAKE)
    publish(project, "1001")
    project.ledger.history.remove_outputs(["1001"], "old", NOON)
    for run_id, why in (("1001", "were removed"), ("17", "has published nothing")):
        with pytest.raises(RequestError, match=why):
            project.ledger.deliveries.again(run_id, NOON)


def test_retention_leaves_the_outputs_of_a_run_that_waits_to_be_handed_over(
    project: Project,
) -> None:
    use(project, TAKE)
    rows = project.published(BATCH, "1001", "student_a.csv")
    project.start(project.form(OTHER_BATCH, rows, Trigger.RERUN), "1002")
    project.publish(OTHER_BATCH, "1002", rows)
    later = NOON + timedelta(days=1)
    assert project.ledger.history.replaced_runs(later, 1) == []
    project.ledger.deliveries.succeed(row_of(project), NOON)
    assert project.ledger.history.replaced_runs(later, 1) == ["1001"]


def test_a_manifest_that_is_gone_is_named_and_tried_again(
    project: Project, deliverer: Deliverer, clock: MovedClock
) -> None:
    chosen = use(project, TAKE)
    publish(project, "1001")
    manifest = project.settings.output_dir / "manifest_1001.json"
    text = manifest.read_text()
    manifest.unlink()
    work(deliverer, project, chosen, clock)
    assert row_of(project).reason == f"its manifest is gone: {manifest}"
    manifest.write_text(text)
    work(deliverer, project, chosen, clock, tries=2)
    assert [line[:4] for line in lines(project)] == ["1001"]


def test_a_clock_that_was_set_back_holds_nothing_up(
    project: Project, deliverer: Deliverer, clock: MovedClock
) -> None:
    chosen = use(project, ["false"])
    publish(project, "1001")
    work(deliverer, project, chosen, clock)
    clock.set_by_s = -86_400
    work(deliverer, project, chosen, clock)
    assert row_of(project).attempts == 2


# --------------------------------------------------------------------------- what people see


def said(project: Project, capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert main(["--config", str(project.config), *words]) == code
    out, err = capsys.readouterr()
    return str(err if code else out)


@pytest.fixture
def failing(
    project: Project,
    deliverer: Deliverer,
    clock: MovedClock,
    monkeypatch: pytest.MonkeyPatch,
) -> Project:
    """Two runs, of which the first was not taken three times."""
    monkeypatch.setenv("DS_FLOW_PUBLISH__THEN", '[["sh", "-c", "echo full; exit 1"]]')
    chosen = use(project, ["sh", "-c", "echo full; exit 1"])
    publish(project, "1001", "1002")
    work(deliverer, project, chosen, clock, tries=3)
    return project


def test_a_run_says_to_whom_it_was_handed_over_and_why_not(
    failing: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    (one,) = json.loads(said(failing, capsys, "show", "1001", "--json"))["deliveries"]
    (row,) = failing.ledger.deliveries.of_run("1001")
    (log,) = failing.settings.log_dir.glob("deliver_1001_*.log")
    assert one == {
        "command": ["sh", "-c", "echo full; exit 1"],
        "state": "waiting",
        "failures": 3,
        "next_try_at": row.due_at,
        "ended_at": None,
        "reason": "exit code 1: full",
        "log": f"log/{log.name}",
    }
    runs = json.loads(said(failing, capsys, "runs", "--json"))["runs"]
    assert runs[0]["deliveries"] == [one]
    assert runs[1]["deliveries"][0]["failures"] == 0
    assert "not handed over: exit code 1: full" in said(failing, capsys, "runs")
    assert "exit code 1: full" in said(failing, capsys, "show", "1001")


def test_status_an_alert_and_a_metric_tell_of_a_run_that_is_not_taken(failing: Project) -> None:
    found = problems(failing.settings, failing.ledger, 1, NOON)
    (one,) = [one for one in found if one.kind == "delivery"]
    assert one.text == (
        "not handed over: run 1001 to sh -c echo full; exit 1: exit code 1: full"
        " (1 later run behind it)"
    )
    assert one.command == "ds-flow deliver 1001"
    assert "ds-flow deliver --skip 1001" in one.remedy
    alert = failing.ledger.history.take_alert(
        "delivery.failing", NOON + timedelta(hours=2), every=timedelta(), gather=timedelta()
    )
    assert alert is not None
    assert alert.count == 1
    assert "Type: `ds-flow deliver 1001`" in text_of(failing.settings, alert)
    text = metrics_text(failing.settings, failing.ledger, 1, NOON)
    assert 'ds_flow_deliveries_waiting{project="x"} 2.0' in text


def test_a_person_gives_a_run_up_or_has_it_done_again_by_a_command(
    failing: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    skipped = said(failing, capsys, "deliver", "--no-wait", "--skip", "1001")
    assert "run 1001: 1 command will not get it" in skipped
    assert "nothing of run 1001 waits" in said(
        failing, capsys, "deliver", "--no-wait", "--skip", "1001", code=1
    )
    again = said(failing, capsys, "deliver", "--no-wait", "1001", "1002")
    assert "run 1001: handed over to 1 command after what waits" in again
    assert "run 1002: handed over to 1 command without further wait" in again
    assert row_of(failing).state == DeliveryState.WAITING


# --------------------------------------------------------------------------- kills


def test_a_killed_helper_is_a_failure_like_any_other(
    project: Project, deliverer: Deliverer, clock: MovedClock
) -> None:
    gate = real.Gate(project.root / "gates" / "door")
    chosen = use(project, GATED)
    publish(project, "1001")
    deliverer.keep(chosen, project.ledger, clock.now())
    gate.wait()
    (going,) = deliverer._going.values()
    assert going.process is not None
    going.process.send_signal(signal.SIGKILL)
    work(deliverer, project, chosen, clock)
    assert row_of(project).reason == "exit code -9"


def test_a_command_dies_with_its_killed_helper(
    project: Project, deliverer: Deliverer, clock: MovedClock
) -> None:
    """So none is there when the next one starts, also if the daemon is killed with its helper."""
    chosen = use(project, ["sh", "-c", "echo $$ > pid; mv pid its_pid; exec sleep 1000"])
    publish(project, "1001")
    deliverer.keep(chosen, project.ledger, clock.now())
    until("it had begun", (project.root / "its_pid").exists)
    (going,) = deliverer._going.values()
    assert going.process is not None
    going.process.send_signal(signal.SIGKILL)
    pid = (project.root / "its_pid").read_text().strip()
    until("it was gone", lambda: not is_alive(pid))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")
@pytest.mark.parametrize(
    ("seconds", "why"),
    [("600", ""), ("0.1", "minutes, and ended by itself: it was another user's")],
)
def test_a_command_of_another_user_ends_by_itself_and_its_end_is_known(
    tmp_path: Path, seconds: str, why: str
) -> None:
    """As by sudo. Root without the capability to kill is any user to whom a process is foreign."""
    foreign = [require("setpriv"), "--reuid=1234", "sh", "-c", "sleep 1; echo x; exit 0"]
    no_kill = ["setpriv", "--bounding-set=-kill", "--", sys.executable, str(HAND_OVER)]
    daemon = os.pipe()
    done = subprocess.run(
        [*no_kill, str(tmp_path / "log"), str(tmp_path / "lock"), seconds, *foreign],
        stdin=daemon[0],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    for descriptor in daemon:
        os.close(descriptor)
    assert (done.returncode, why in done.stderr) == (bool(why), True)
    assert "Traceback" not in done.stderr
    assert "\nx\n" in (tmp_path / "log").read_text()


def test_a_command_is_not_started_while_that_of_a_killed_daemon_is_still_there(
    project: Project, deliverer: Deliverer, clock: MovedClock
) -> None:
    chosen = use(project, TAKE)
    publish(project, "1001")
    key = sha256(chosen.handed_to[0].encode()).hexdigest()[:8]
    held = real.Gate(chosen.work_root / LOCKS / key)
    deliverer.keep(chosen, project.ledger, clock.now())
    held.wait()
    assert not lines(project)
    held.open()
    work(deliverer, project, chosen, clock)
    assert len(lines(project)) == 1


def test_a_copy_of_a_project_hands_nothing_over_that_the_other_one_does(project: Project) -> None:
    use(project, TAKE)
    publish(project, "1001")
    disown_batches(project.ledger, project.settings.output_dir, NOON)
    assert row_of(project).state == DeliveryState.GIVEN_UP


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[real.Project]:
    made = real.Project(tmp_path, publish={"then": [TAKE, GATED], "retry_first_seconds": 0.2})
    yield made
    made.end_everything()


def taken(project: real.Project, name: str = "taken") -> list[str]:
    path = project.root / name
    return path.read_text().splitlines() if path.exists() else []


def test_a_command_dies_with_a_daemon_that_is_killed_and_the_next_one_starts_it_again(
    daemon: real.Project,
) -> None:
    gate = daemon.gate("door")
    daemon.drop("student_a.csv", real.table("a"))
    daemon.start()
    gate.wait()
    daemon.kill()
    until("nothing of it was left", lambda: not daemon.processes())
    assert not taken(daemon, "ended")

    gate.open()
    daemon.start()
    until("the command had ended", lambda: taken(daemon, "ended"))
    (run,) = daemon.runs()
    assert taken(daemon, "begun") == [run.run_id] * 2
    assert taken(daemon)  # the other one, whose end may not be recorded
    daemon.stop()


def test_once_hands_over_what_it_publishes_and_says_what_it_could_not(
    daemon: real.Project,
) -> None:
    daemon.configure(publish={"then": [TAKE, ["false"]], "retry_first_seconds": 600})
    daemon.drop("student_a.csv", real.table("a"))
    said = daemon.once()
    (run,) = daemon.runs()
    assert len(taken(daemon)) == 1
    assert f"not handed over: run {run.run_id} to false: exit code 1" in said.stdout
    assert said.returncode == 1
