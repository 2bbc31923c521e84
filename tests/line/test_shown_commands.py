"""Every command that the documentation shows does what the page says it does."""

import os
import re
from pathlib import Path

import pytest

from ds_flow.core.program import CHECKOUT
from shown import BLOCK, Reader, agrees, commands, reader

UPDATE = os.environ.get("UPDATE_DOCS") == "1"  # write what commands print into the pages
PAGES = [
    path
    for path in sorted((CHECKOUT / "docs").rglob("*.md"))
    if "```console" in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
@pytest.mark.exhaustive
def test_the_commands_of_a_page_print_what_it_says(page: Path, tmp_path: Path) -> None:
    text = page.read_text(encoding="utf-8")
    with reader(tmp_path) as reads:
        told = BLOCK.sub(lambda block: obeyed(reads, block), text)
    if UPDATE:
        page.write_text(told, encoding="utf-8")
    assert told == text


def obeyed(reads: Reader, block: re.Match[str]) -> str:
    """Do what a block says. Returns the block as it is true."""
    if block["verb"]:
        reads.put(block["verb"], block["path"] or "", block["text"])
    if block["kind"] != "console":
        return block[0]
    true = []
    for shown in commands(block["text"]):
        printed = reads.obey(shown)
        is_true = agrees(shown.output, printed)
        true.append("$ " + shown.command.replace("\n", "\n> "))
        true.extend(shown.output if is_true else printed)
    return "\n".join(["```console", *true, "```"])


def test_an_output_that_is_no_longer_true_is_found() -> None:
    assert agrees(["ok   a ..."], ["ok a b c"])
    assert not agrees(["ok   a ..."], ["no a b c"])
    assert agrees(["a", "...", "d"], ["a", "b", "c", "d"])
    assert agrees(["run 1795979989276264: 3 files"], ["run 1795979989276999: 3 files"])
    assert not agrees(["run 1795979989276264: 3 files"], ["run 1795979989276999: 4 files"])
    assert not agrees(["a", "...", "d"], ["a", "b", "c"])
    assert not agrees(["a"], ["a", "b"])
    assert not agrees(["a", "b"], ["a"])
