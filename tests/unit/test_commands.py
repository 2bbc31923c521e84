"""One call of another system's command line."""

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from cli_project import SETTINGS, Project
from ds_flow.core.errors import DispatchError
from ds_flow.core.plan import Plan
from ds_flow.dispatch import commands
from ds_flow.dispatch.rounds import JobSpec, open_round
from ds_flow.doctor import backends, probe_job
from ds_flow.runs.launch import Runs
from ds_flow.service import requests
from ds_flow.settings.load import load_settings
from ds_flow.work.batch import Batch
from project import until


def test_an_answer_has_both_streams_and_the_exit_code(tmp_path: Path) -> None:
    said = commands.call(["sh", "-c", "cat; echo err >&2; exit 3"], 30, stdin="in", cwd=tmp_path)

    assert (said.out, said.err, said.exit_code, said.timed_out) == ("in", "err\n", 3, False)
    assert said.text == "in err"


def test_at_its_limit_a_command_and_what_it_started_are_ended(tmp_path: Path) -> None:
    said = commands.call(["sh", "-c", "sleep 600 & wait"], 0.1, cwd=tmp_path)

    assert said.timed_out


def test_a_program_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(DispatchError, match="no-such-program"):
        commands.call(["no-such-program"], 30, cwd=tmp_path)


def test_a_call_carries_no_mark_and_no_secret_but_what_the_tools_go_by() -> None:
    environ = {
        "DS_FLOW_ATTEMPT": "a/1",
        "DS_FLOW_GIVEN": "HOME_TOKEN,LSF_ENVDIR",
        "HOME_TOKEN": "x",
        "LSF_ENVDIR": "/etc/lsf",
        "LANG": "C",
    }

    assert commands.environment(environ).keys() == {"DS_FLOW_GIVEN", "LSF_ENVDIR", "LANG"}
    assert commands.given(environ) == {"HOME_TOKEN": "x", "LSF_ENVDIR": "/etc/lsf"}


def test_the_variables_of_dotenv_are_written_for_this_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "env"

    commands.put_environment(path, {"DS_FLOW_GIVEN": "TEAM_TOKEN", "TEAM_TOKEN": "a b"})

    assert path.stat().st_mode & 0o777 == 0o600
    assert "export TEAM_TOKEN='a b'\n" in path.read_text()


ENGINE = """#!/bin/sh
echo "$DOCKER_HOST,$TEAM_TOKEN" >>asked
case $1 in
    image) echo '[{"Id": "sha256:1", "RepoDigests": []}]' ;;
    run) echo refused >&2 && exit 1 ;;
esac
"""


def check_asks(made: Project) -> None:
    assert [one.level for one in backends.unreachable_backends(made.settings, os.environ)] == ["ok"]


def trial_asks(made: Project) -> None:
    assert probe_job.probe(made.settings, "process")[0] == "fault"


def canceller_asks(made: Project) -> None:
    runs, log = Runs(), made.root / "log" / "cancelling"
    batch = Batch.at(made.settings.output_dir, "b")
    until("it is over", lambda: runs.cancel_jobs(made.settings, batch, log) is not None)


def command_line_asks(made: Project) -> None:
    with closing(made.open()) as ledger:
        assert requests._end_jobs(made.settings, ledger, "b") == ""


@pytest.mark.parametrize("ask", [check_asks, trial_asks, canceller_asks, command_line_asks])
def test_whoever_asks_for_jobs_asks_the_engine_that_dotenv_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ask: Callable[[Project], None]
) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    made, program = Project(tmp_path), tmp_path / "engine"
    program.write_text(ENGINE.replace("asked", str(tmp_path / "asked")))
    program.chmod(0o755)
    (tmp_path / ".env").write_text("DOCKER_HOST=tcp://elsewhere:1\nTEAM_TOKEN=s3cr3t\n")
    docker = f"executor: docker, docker_image: own, docker_command: {program}"
    made.config.write_text(f"{SETTINGS}compute: {{{docker}}}\n")
    made.settings = load_settings(made.config, {})
    options = made.settings.options()
    batch = Batch.create(
        made.settings.output_dir,
        Plan(batch="b", trigger="", formed_at="", files=(), options=options),
    )
    job = JobSpec(key="a", command=("true",))
    open_round(batch.jobs / "process", "b", "b/1", "docker", [job], [job.command])

    ask(made)

    assert set((tmp_path / "asked").read_text().splitlines()) == {"tcp://elsewhere:1,"}
