"""What an alert says to a person, and that no chat finds more in it than text."""

import json
import re
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli_project import Project
from clock import NOON
from ds_flow.core.retry_policy import Dead
from ds_flow.core.states import Cause, RunState
from ds_flow.ledger.events import Alert
from ds_flow.upkeep.alert_text import LINE_CHARACTERS, SAID, tame
from ds_flow.upkeep.alerts import message, shaped

BATCH = "0123456789"
BOLD_MENTIONS = re.compile(r"<!|<@|<#|@(channel|here|all|everyone|team)\b", re.IGNORECASE)
LINKS = re.compile(r"://|<http|\]\(|\]\[|www\.|mailto:|`", re.IGNORECASE)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def told(project: Project, kind: str) -> dict[str, str]:
    every, gather = timedelta(hours=1), timedelta()
    now = NOON + timedelta(minutes=1)
    alert = project.ledger.history.take_alert(kind, now, every=every, gather=gather)
    assert alert is not None
    read: dict[str, str] = json.loads(message(project.settings, alert))
    return read


def test_a_quarantined_file_is_told_with_reason_remedy_and_command(project: Project) -> None:
    with project:
        project.admit("student_a.csv", cause=Cause.REJECTED, reason="line 3: 1 cell, not 2")
        said = told(project, "file.quarantined")["text"].splitlines()
    assert re.fullmatch(r"ds-flow, x on \S+: files were set aside\.", said[0])
    assert said[1:] == [
        "• data/student_a.csv: line 3: 1 cell, not 2",
        "   To do: correct the file and put it into the inbox again, or remove it.",
        "   Type: `ds-flow explain -- data/student_a.csv`",
    ]


def test_a_dead_batch_is_told_with_the_command_that_retries_it(project: Project) -> None:
    with project:
        project.start(project.form(BATCH, project.admit("student_a.csv")), "17")
        end = Dead("all failed")
        project.ledger.end_run(BATCH, 1, RunState.FAILED, error="x", results=0, then=end, now=NOON)
        said = told(project, "batch.dead")
    assert f"• batch {BATCH}: all failed" in said["text"]
    assert f"Type: `ds-flow retry {BATCH}`" in said["text"]
    assert said["subject"].startswith(f"x: a batch has used up its attempts: {BATCH}: all failed")


def test_many_files_are_a_few_and_the_way_to_the_others(project: Project) -> None:
    with project:
        names = [f"student_{number}.csv" for number in range(40)]
        project.admit(*names, cause=Cause.REJECTED, reason="no table")
        said = told(project, "file.quarantined")["text"]
    assert said.count("•") == 5
    assert "(40 times)" in said
    assert said.splitlines()[-1].startswith("And 35 more since ")
    assert said.endswith("`ds-flow files --state quarantined`")


HOSTILE = [
    "<!channel> look",
    "@everyone @here @channel",
    "<@U123> <#C123|x>",
    "[click](http://evil.example/)",
    "![](https://evil.example/x.png)",
    "<http://evil.example|the log>",
    "www.evil.example",
    "[a][b] [b]: http://evil.example",
    "```\nls\n``` `x`",
    "mailto:a@evil.example",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_stranger_s_text_mentions_nobody_and_links_nowhere(project: Project, text: str) -> None:
    with project:
        project.admit("student_a.csv", cause=Cause.REJECTED, reason=text)
        name = f"student_{text.replace('/', ' ')}.csv"[:80]
        project.admit(name, cause=Cause.REJECTED, reason="no table")
        found = told(project, "file.quarantined")
    for line in found["text"].splitlines():
        if line.startswith("   Type: "):
            assert re.fullmatch(r"   Type: `ds-flow [\w ./-]+`", line, re.ASCII)
            continue
        assert not BOLD_MENTIONS.search(line)
        assert not LINKS.search(line)
    assert "\n" not in found["subject"]
    assert not BOLD_MENTIONS.search(found["subject"])


@given(st.text())
def test_tamed_text_is_one_short_line_without_mention_or_link(text: str) -> None:
    line = tame(text)
    assert not set(line) & set("<>`\n\r\x1b")
    assert not BOLD_MENTIONS.search(line)
    assert not LINKS.search(line)
    assert len(tame("@" * 10_000 + text)) <= 2 * LINE_CHARACTERS + 10


@pytest.mark.parametrize("kind", sorted(SAID))
def test_every_kind_says_what_to_do_and_what_to_type(project: Project, kind: str) -> None:
    alert = Alert(kind=kind, count=1, first_at="", last_at="", examples=("x",))
    said = json.loads(message(project.settings, alert))["text"]
    assert "To do: " in said
    assert "Type: `ds-flow " in said


def test_the_text_for_teams_workflows_is_a_card_and_for_others_as_it_is(project: Project) -> None:
    alert = Alert(kind="batch.dead", count=1, first_at="", last_at="", examples=("x: y",))
    text = message(project.settings, alert)
    for other in ("https://hooks.slack.com/services/T/B/x", "https://chat.example.org/hooks/x"):
        assert shaped(other, text) == text
    teams = json.loads(shaped("https://prod-00.westus.logic.azure.com:443/workflows/x", text))
    (attachment,) = teams["attachments"]
    assert teams["type"] == "message"
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    blocks = attachment["content"]["body"]
    assert [one["text"] for one in blocks] == json.loads(text)["text"].split("\n")
