"""Which word of Metaflow's command line is the command."""

import pytest

from steps.command_line import command_of


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("run", "run"),
        ("run --tag run", "run"),
        ("--no-pylint run --with card", "run"),
        ("--with card run", "run"),
        ("--with=card --quiet run --tag=x", "run"),
        ("tag add --run-id 7 run", "tag"),
        ("resume --tag run --origin-run-id 7", "resume"),
        ("--datastore-root run show", "show"),
        ("--with run", ""),
        ("--help", ""),
        ("", ""),
    ],
)
def test_the_command_is_the_first_word_that_is_no_options_value(line: str, command: str) -> None:
    assert command_of(["student_flow.py", *line.split()]) == command
