"""The reasons in the page of troubleshooting are those that ds-flow gives."""

import re
from pathlib import Path

import pytest

from ds_flow.core.program import CHECKOUT
from shown import reader

PAGE = CHECKOUT / "docs/operations/troubleshooting.md"
BAD = {
    "cells": b"a,b,c,d,e\n1,2,3,4,5,6\n",
    "cut": b"id,score\n1,2\n3",
    "tie": b"a,b;c\n1,2;3\n",
    "encoding": b"a,b\n1,\xe9\n",
    "twice": b"a,a\n1,2\n",
    "title": b"Marks of 2026\n\nid,score\n1,2\n",
    "quote": b'id,"score\n1,2\n',
    "excel": b"PK\x03\x04" + bytes(40),
    "html": b"<!doctype html><html><body>login</body></html>",
    "empty": b"",
}
MADE_HERE = 10  # reasons in the table, before those of settings and of a transform


@pytest.mark.exhaustive
def test_each_reason_in_the_table_is_given_for_such_a_file(tmp_path: Path) -> None:
    section = PAGE.read_text(encoding="utf-8").partition("A file was refused")[2].partition("##")[0]
    reasons = re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)[:MADE_HERE]
    assert len(reasons) == len(BAD)
    with reader(tmp_path) as reads:
        for name, content in BAD.items():
            (tmp_path / f"data/student_{name}.csv").write_bytes(content)
        said = "\n".join(reads.run("ds-flow once"))
    assert [reason for reason in reasons if reason not in said] == []


@pytest.mark.exhaustive
def test_explain_says_what_the_table_of_places_says(tmp_path: Path) -> None:
    section = PAGE.read_text(encoding="utf-8").partition("My file is not")[2].partition("##")[0]
    phrases = set(re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE))
    with reader(tmp_path) as reads:
        (tmp_path / "data/student_bad.csv").write_text("a,b\n1\n")
        (tmp_path / "data/Student_X.CSV").touch()
        reads.run("ds-flow once")
        names = ("student_algebra.csv", "student_bad.csv", "Student_X.CSV", "student_none.csv")
        said = [line for name in names for line in reads.run(f"ds-flow explain data/{name}")]
        with (tmp_path / "data/student_open.csv").open("w"):
            said += reads.run("ds-flow explain data/student_open.csv")
    assert [phrase for phrase in phrases if phrase not in "\n".join(said)] == []
