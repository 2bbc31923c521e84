"""One call of another system's command line."""

from pathlib import Path

import pytest

from ds_flow.dispatch import calls
from ds_flow.errors import DispatchError


def test_an_answer_has_both_streams_and_the_exit_code(tmp_path: Path) -> None:
    said = calls.call(["sh", "-c", "cat; echo err >&2; exit 3"], 30, stdin="in", cwd=tmp_path)

    assert (said.out, said.err, said.exit_code, said.timed_out) == ("in", "err\n", 3, False)
    assert said.text == "in err"


def test_at_its_limit_a_command_and_what_it_started_are_ended(tmp_path: Path) -> None:
    said = calls.call(["sh", "-c", "sleep 600 & wait"], 0.1, cwd=tmp_path)

    assert said.timed_out


def test_a_program_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(DispatchError, match="no-such-program"):
        calls.call(["no-such-program"], 30, cwd=tmp_path)


def test_a_call_carries_no_mark_and_no_secret_but_what_the_tools_go_by() -> None:
    environ = {
        "DS_FLOW_ATTEMPT": "a/1",
        "DS_FLOW_GIVEN": "HOME_TOKEN,LSF_ENVDIR",
        "HOME_TOKEN": "x",
        "LSF_ENVDIR": "/etc/lsf",
        "LANG": "C",
    }

    assert calls.environment(environ).keys() == {"DS_FLOW_GIVEN", "LSF_ENVDIR", "LANG"}
    assert calls.given(environ) == {"HOME_TOKEN": "x", "LSF_ENVDIR": "/etc/lsf"}
